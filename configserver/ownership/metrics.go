package ownership

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the series of a Manager.
type Metrics struct {
	session, owned, replicas    prometheus.Gauge
	sessions, claims, handovers prometheus.Counter
	restarts, panics            *prometheus.CounterVec
}

// NewMetrics makes the series and registers them, unless reg is nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const namespace, subsystem = "basalt", "configserver"
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	perCluster := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, []string{"cluster"})
	}
	m := &Metrics{
		session:   gauge("session_held", "1 while this Configserver holds a lease."),
		owned:     gauge("clusters_owned", "Clusters whose loop runs here."),
		replicas:  gauge("replicas", "Live Configservers, this one included."),
		sessions:  counter("sessions_total", "Leases that were obtained."),
		claims:    counter("claims_total", "Clusters that were claimed."),
		handovers: counter("handovers_total", "Clusters that were handed to a better placed Configserver."),
		restarts:  perCluster("loop_restarts_total", "Loops that ended by themselves and were started again."),
		panics:    perCluster("loop_panics_total", "Panics in loops."),
	}
	if reg != nil {
		reg.MustRegister(m.session, m.owned, m.replicas, m.sessions, m.claims, m.handovers, m.restarts, m.panics)
	}
	return m
}

// forget removes a cluster's series.
func (m *Metrics) forget(cluster string) {
	m.restarts.DeleteLabelValues(cluster)
	m.panics.DeleteLabelValues(cluster)
}

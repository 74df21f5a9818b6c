package control

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the series of all loops of a process, by cluster.
type Metrics struct {
	epoch         *prometheus.GaugeVec
	serving       *prometheus.GaugeVec
	shardServing  *prometheus.GaugeVec
	members       *prometheus.GaugeVec
	unacked       *prometheus.GaugeVec
	commits       *prometheus.CounterVec
	commitSeconds *prometheus.HistogramVec
	operations    *prometheus.CounterVec
	phaseSeconds  *prometheus.HistogramVec
	problems      *prometheus.GaugeVec
	probes        *prometheus.CounterVec
	probeSeconds  *prometheus.HistogramVec
	lag           *prometheus.GaugeVec
	nodeUp        *prometheus.GaugeVec
	pauses        *prometheus.CounterVec
	nodes         nodeVecs
}

// NewMetrics makes the series and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "basalt", Subsystem: "configserver", Name: name, Help: help},
			append([]string{"cluster"}, labels...))
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "basalt", Subsystem: "configserver", Name: name, Help: help},
			append([]string{"cluster"}, labels...))
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "basalt", Subsystem: "configserver", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)}, append([]string{"cluster"}, labels...))
	}
	m := &Metrics{
		epoch:         gauge("topology_epoch", "Epoch of the committed topology."),
		serving:       gauge("cluster_serving", "1 while every shard of the cluster serves: 0 while one does not, while the cluster forms and while it is deleted."),
		shardServing:  gauge("shard_serving", "1 while somebody answers for the slots of a shard.", "shard"),
		members:       gauge("proxies", "Member proxies, by whether their stream is open.", "state"),
		unacked:       gauge("proxies_unacked", "Member proxies that have not acked the newest epoch."),
		commits:       counter("commits_total", "Commits of the cluster's record, by result.", "result"),
		commitSeconds: histogram("commit_seconds", "Duration of commits."),
		operations:    counter("operations_total", "Operations that ended, by kind and result.", "shard", "kind", "result"),
		phaseSeconds:  histogram("operation_phase_seconds", "Duration of the phases of operations.", "kind", "phase"),
		problems:      gauge("problems", "Problems that match now, by code.", "code"),
		probes:        counter("probes_total", "Probes of nodes, by what was seen.", "node", "sight"),
		probeSeconds:  histogram("probe_seconds", "Time to the answer of a probe."),
		lag:           gauge("replication_lag_bytes", "Bytes a replica is behind its master; -1 when unknown.", "node"),
		nodeUp:        gauge("node_up", "1 while a node answers probes.", "node"),
		pauses:        counter("own_pause_seconds_total", "Time in which this Configserver itself was not running, by its own clock; not held against any node."),
	}
	m.nodes = newNodeVecs(reg)
	reg.MustRegister(m.epoch, m.serving, m.shardServing, m.members, m.unacked, m.commits, m.commitSeconds, m.operations,
		m.phaseSeconds, m.problems, m.probes, m.probeSeconds, m.lag, m.nodeUp, m.pauses)
	return m
}

// forget removes a cluster's series when its loop ends.
func (m *Metrics) forget(cluster string) {
	match := prometheus.Labels{"cluster": cluster}
	for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.epoch, m.serving, m.shardServing, m.members, m.unacked, m.commits, m.commitSeconds, m.operations,
		m.phaseSeconds, m.problems, m.probes, m.probeSeconds, m.lag, m.nodeUp, m.pauses,
	} {
		v.DeletePartialMatch(match)
	}
	m.nodes.forget(match)
}

// forgetNode removes the series of a node that left.
func (m *Metrics) forgetNode(cluster, node string) {
	match := prometheus.Labels{"cluster": cluster, "node": node}
	m.probes.DeletePartialMatch(match)
	m.lag.DeletePartialMatch(match)
	m.nodeUp.DeletePartialMatch(match)
	m.nodes.forget(match)
}

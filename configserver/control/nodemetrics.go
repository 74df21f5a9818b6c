package control

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// What each server says of itself, as metrics. They are set when a probe brings it, which
// is about once a second for each node; nothing is done for all nodes at once. A shard's
// are those of its nodes, by role.

// nodeLabels are the labels of a node's series. A node whose role changes gets others.
var nodeLabels = []string{"cluster", "shard", "node", "role"}

// nodeVecs are those series of all nodes.
type nodeVecs []*prometheus.GaugeVec

// nodeValues are the series: what they are called, and what they show.
var nodeValues = []struct {
	name, help string
	value      func(i *redisadmin.Info) float64
}{
	{"node_memory_bytes", "Memory that the server uses (used_memory).", func(i *redisadmin.Info) float64 { return float64(i.UsedMemory) }},
	{"node_memory_limit_bytes", "Memory that the server may use (maxmemory); 0 when there is no limit.", func(i *redisadmin.Info) float64 { return float64(i.MaxMemory) }},
	{"node_keys", "Keys in all databases.", func(i *redisadmin.Info) float64 { return float64(i.Keys) }},
	{"node_clients", "Connections to the server, those of proxies and of the Configserver included.", func(i *redisadmin.Info) float64 { return float64(i.Clients) }},
	{"node_commands_total", "Commands that the server executed since it started.", func(i *redisadmin.Info) float64 { return float64(i.Commands) }},
	{"node_append_only", "1 when the server keeps an append-only file.", func(i *redisadmin.Info) float64 { return oneIf(i.AppendOnly) }},
	{"node_last_save_timestamp_seconds", "When the last snapshot was finished, or the server started.", func(i *redisadmin.Info) float64 { return float64(i.Saved) }},
	{"node_persistence_failed", "1 when the last snapshot, or the last write or rewrite of the append-only file, failed.", func(i *redisadmin.Info) float64 { return oneIf(i.SaveFailed || i.AppendFailed) }},
}

func newNodeVecs(reg prometheus.Registerer) (vecs nodeVecs) {
	for _, v := range nodeValues {
		vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "basalt", Subsystem: "configserver", Name: v.name, Help: v.help}, nodeLabels)
		reg.MustRegister(vec)
		vecs = append(vecs, vec)
	}
	return vecs
}

// forget removes series.
func (v nodeVecs) forget(match prometheus.Labels) {
	for _, vec := range v {
		vec.DeletePartialMatch(match)
	}
}

// nodeSeries are those of one node in one role.
type nodeSeries struct {
	role   string
	gauges []prometheus.Gauge
}

// show sets the series of a node to what a probe says, if that is new and of the admitted
// incarnation.
func (r *running) show(m *Metrics, cluster string, s *topology.Shard, n *topology.Node, p *health.Probe) {
	if p.UsersAt.Equal(r.saidAt) || p.Info.RunID == "" || p.Info.RunID != n.Incarnation {
		return // only probes that ask for everything bring it
	}
	r.saidAt = p.UsersAt
	role := "replica"
	if s.Master == n.ID {
		role = "master"
	}
	if r.series == nil || r.series.role != role {
		m.nodes.forget(prometheus.Labels{"cluster": cluster, "node": n.ID})
		r.series = &nodeSeries{role: role}
		for _, vec := range m.nodes {
			r.series.gauges = append(r.series.gauges, vec.WithLabelValues(cluster, s.ID, n.ID, role))
		}
	}
	for i, g := range r.series.gauges {
		g.Set(nodeValues[i].value(&p.Info))
	}
}

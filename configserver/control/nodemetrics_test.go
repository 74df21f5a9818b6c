package control

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// scraped are the series of one metric: their values by node and role.
func scraped(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "basalt_configserver_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			values[strings.TrimSpace(labels["node"]+" "+labels["role"])] = m.GetGauge().GetValue()
		}
	}
	return values
}

// What each server says of itself is in metrics with its shard and role; what left takes
// its series with it.
func TestMetricsOfNodes(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	reg := prometheus.NewRegistry()
	r.stop()
	r.metrics = NewMetrics(reg)
	r.run()
	proxy := r.proxy("p")
	proxy.mustSet("shard-0", "a", strings.Repeat("x", 1<<20))
	r.eventually("memory and keys are shown", 10*time.Second, func() bool {
		memory, keys := scraped(t, reg, "node_memory_bytes"), scraped(t, reg, "node_keys")
		return memory["shard-0-0 master"] > 1<<20 && memory["shard-0-1 replica"] > 1<<20 && keys["shard-0-0 master"] == 1 && keys["shard-0-1 replica"] == 1
	})
	for _, name := range []string{"node_clients", "node_commands_total"} {
		if got := scraped(t, reg, name); got["shard-0-0 master"] < 1 || len(got) != 2 {
			t.Errorf("%s: %v", name, got)
		}
	}
	r.servers["shard-0-0"].MustDo("CONFIG", "SET", "maxmemory", "100mb")
	r.eventually("the limit is shown", 5*time.Second, func() bool { return scraped(t, reg, "node_memory_limit_bytes")["shard-0-0 master"] == 100<<20 })

	if _, err := r.loop.Switchover(t.Context(), "shard-0", ""); err != nil {
		t.Fatal(err)
	}
	r.eventually("the roles are the new ones", 10*time.Second, func() bool {
		keys := scraped(t, reg, "node_keys")
		return len(keys) == 2 && keys["shard-0-1 master"] == 1 && keys["shard-0-0 replica"] == 1
	})
	if _, err := r.loop.DeregisterNode(t.Context(), "shard-0-0"); err != nil {
		t.Fatal(err)
	}
	for _, v := range nodeValues {
		if got := scraped(t, reg, v.name); len(got) != 1 {
			t.Errorf("%s of a node that left: %v", v.name, got)
		}
	}
}

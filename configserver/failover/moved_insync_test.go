package failover

import (
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A master answers at another place, and is reached at the one of before as well: its
// replicas, which have everything and get its stream, are as good as they were.
func TestReplicasOfAMasterThatMovedStayInSync(t *testing.T) {
	w := newWorld(3)
	w.lookUp()
	w.tick(300 * step)
	if _, err := w.commit(func(c *topology.Cluster) ([]topology.Event, error) { // as Relocate does
		c.Shards[0].Node("n0").ReachedAt("10.0.9.9:6379")
		return nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	w.tick(5 * step)
	if !w.servers["n1"].linkUp || w.servers["n1"].offset != w.servers["n0"].offset {
		t.Fatal("n1 was to have everything")
	}
	if m := w.shard().Members(); len(m) != 3 {
		t.Errorf("in sync are only %v: n1: %+v", m, w.shard().Node("n1").Out)
	}
	w.kill("n0")
	w.tick(100 * step)
	for _, p := range w.detect() {
		if p.Code == "FailoverBlocked" {
			t.Errorf("a shard whose replicas have everything has no master: %s", p.Message)
		}
	}
}

package failover

import (
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// That a node's data may be discarded does not make somebody else's data the shard's.
func TestADiscardedNodeLendsItsNameToNobody(t *testing.T) {
	w := newWorld(2)
	w.shard().Node("n1").Discard = w.servers["n1"].runID // registered again with --discard-data, while it is well
	w.tick(100 * step)
	if n := w.shard().Node("n1"); !n.InSync {
		t.Fatalf("n1 was to be well: %+v", n)
	}
	w.kill("n0")
	w.kill("n1")
	w.tick(10 * step)
	stranger := w.restartWithJournal("n1")
	stranger.users = []string{topology.Mark(&w.c, "t", "t-1")}
	w.tick(100 * step)
	e := Election{Old: "n0", Since: w.now.Add(-2 * w.c.Policy.RestartGrace), Offset: 1000}
	if got := Elect(&w.c, w.shard(), e, &w.o, w.now); got.Chosen() != "" {
		t.Errorf("a server that says it is another shard's is promoted with that one's data: %+v", got)
	}
}

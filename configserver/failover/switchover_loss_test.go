package failover

import (
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A switchover that has lost its candidate and the old master is no reason to promote
// a node that has been out of sync for long.
func TestASwitchoverGoneWrongPromotesOnlyWhoHasEverything(t *testing.T) {
	w := newWorld(3)
	n2 := w.servers["n2"]
	n2.linkUp, n2.follows, n2.linkLost = false, "nowhere:1", w.now
	w.write(1 << 30)
	w.tick(300 * step)
	if node := w.shard().Node("n2"); node.InSync {
		t.Fatalf("n2 was to be out of sync: %+v", node)
	}
	offset := w.servers["n0"].offset
	op := &topology.Operation{ID: "1", Kind: topology.Switchover, Phase: Promoting, StartedAt: w.now, OldMaster: "n0", Candidate: "n1",
		Requested: "n1", OldMasterOffset: offset, Candidates: []topology.Candidate{{Node: "n1", Offset: offset, Chosen: true}}}
	if w.servers["n1"].offset != offset {
		t.Fatal("n1 was to have everything")
	}
	w.kill("n0")
	w.kill("n1")
	w.tick(100 * step)
	op.Phase, op.Candidate, op.Requested = Electing, "", "" // n1 could not be promoted
	w.shard().Operation = op
	e := ElectionOf(op)
	e.Since, e.Begun = w.now, w.now.Add(-w.c.Policy.ElectionWait)
	got := Elect(&w.c, w.shard(), e, &w.o, w.now)
	if got.Chosen() != "" {
		t.Errorf("%s is promoted, %d bytes behind, while n0 and n1 may come back with everything: %+v", got.Chosen(), offset-n2.offset, got)
	}
}

package failover

import (
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// An attempt promoted n1 while n2, which has more, was silent; then it failed, before
// any proxy heard of it. Nobody wrote to n1, so n2 is no older than it.
func TestAPromotionThatNobodyHeardOfMakesNobodyOlder(t *testing.T) {
	w := newWorld(3)
	w.servers["n1"].slow = true
	w.write(500) // acknowledged; n2 has it
	w.tick(20 * step)
	w.kill("n0")
	w.tick(20 * step)
	n1, n2 := w.servers["n1"], w.servers["n2"]
	n1.slow, n1.master, n1.follows, n1.linkUp = false, true, "", false
	n1.older, n1.secondOffset, n1.history = "h0", n1.offset+1, "own"
	w.tick(20 * step)
	if m := w.shard().Members(); len(m) != 3 || n2.offset != 1500 || n1.offset != 1000 {
		t.Fatalf("all were to be in sync: %v, %d, %d", m, n1.offset, n2.offset)
	}
	w.shard().Master = ""
	w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Failover, Phase: Electing, OldMaster: "n0", OldMasterOffset: 1500, StartedAt: w.now,
		Candidates: []topology.Candidate{{Node: "n1", Offset: 1000, Chosen: true}}}
	e := ElectionOf(w.shard().Operation)
	e.Since, e.Begun, e.Failed = w.now, w.now, []string{"n1"}
	if got := Elect(&w.c, w.shard(), e, &w.o, w.now); got.Chosen() != "n2" {
		t.Errorf("%q is chosen, and n2, which answers, is in sync and has 500 bytes more, is not: %+v", got.Chosen(), got)
	}
}

// A node that somebody made a master by hand, which left the set for that, does not
// keep a member out that followed the master to its end.
func TestAMasterMadeByHandMakesNoMemberOlder(t *testing.T) {
	w := newWorld(3)
	n1 := w.servers["n1"]
	n1.master, n1.follows, n1.linkUp = true, "", false
	n1.older, n1.secondOffset, n1.history = "h0", n1.offset+1, "own"
	for range 300 {
		w.write(10)
		w.tick(step)
	}
	w.kill("n0")
	w.tick(300 * step)
	if m := w.shard().Members(); len(m) != 2 || !w.shard().Node("n2").InSync {
		t.Fatalf("n1 was to leave: %v", m)
	}
	got := Elect(&w.c, w.shard(), Election{Old: "n0", Since: w.now, Offset: 4000}, &w.o, w.now)
	if got.Chosen() != "n2" {
		t.Errorf("%q is chosen, not n2, which is in sync and has everything; remedy %q: %+v", got.Chosen(), got.Remedy, got)
	}
}

package failover

import (
	"testing"
	"time"
)

// A blocked election commits its reasons each time that they change: while nothing
// happens, they do not.
func TestTheReasonsOfABlockedElectionStand(t *testing.T) {
	w := newWorld(2)
	n1 := w.servers["n1"]
	n1.linkUp, n1.follows, n1.linkLost = false, "nowhere:1", w.now.Add(-time.Minute-300*time.Millisecond)
	w.kill("n0")
	w.tick(time.Second)
	w.shard().Node("n1").InSync = true // nobody watched
	said := map[string]bool{}
	for range 20 {
		w.tick(electAgain)
		got := Elect(&w.c, w.shard(), Election{Old: "n0", Since: w.o.Started, Begun: w.o.Started, Offset: 1000}, &w.o, w.now)
		if got.Chosen() != "" {
			t.Fatalf("it was to be blocked: %+v", got)
		}
		said[Reasons(got.Candidates)] = true
	}
	if len(said) > 1 {
		t.Errorf("in %v in which nothing happened, as many as %d different reasons are committed in turn: %v", 20*electAgain, len(said), said)
	}
}

package failover

import (
	"testing"
	"time"
)

// As TestAnEvictionThatWasNotCommittedCountsAllTheSame, of a member that somebody made
// a master by hand; n2 followed n0 to its end.
func TestWhatWasSeenOfAMasterMadeByHandCounts(t *testing.T) {
	w := newWorld(3)
	n1 := w.servers["n1"]
	n1.master, n1.follows, n1.linkUp = true, "", false
	n1.older, n1.secondOffset, n1.history = "h0", n1.offset+1, "own"
	for end := w.now.Add(5 * time.Second); w.now.Before(end); {
		w.now = w.now.Add(step)
		w.write(1 << 14)
		w.replicate()
		for _, id := range []string{"n1", "n2", "n0"} {
			w.probe(id)
		}
	}
	if _, why := Tend(&w.c, w.shard(), &w.o, w.now); len(why) == 0 {
		t.Fatal("n1 was to leave")
	}
	w.kill("n0")
	for range 100 {
		w.now = w.now.Add(step)
		for _, id := range []string{"n1", "n2", "n0"} {
			w.probe(id)
		}
	}
	got := Elect(&w.c, w.shard(), Election{Old: "n0", Since: w.now.Add(-time.Second), Offset: w.servers["n0"].offset}, &w.o, w.now)
	if got.Chosen() != "n2" {
		t.Errorf("%q is chosen with %d bytes; n2 is in sync, answers and has %d", got.Chosen(), n1.offset, w.servers["n2"].offset)
	}
}

package failover

import (
	"testing"
	"time"
)

// The store is slow: that a replica lost its link is known here and not committed yet
// when its master dies.
func TestAnEvictionThatWasNotCommittedCountsAllTheSame(t *testing.T) {
	w := newWorld(2)
	n1 := w.servers["n1"]
	n1.linkUp, n1.follows, n1.linkLost = false, "nowhere:1", w.now
	evict := false
	for end := w.now.Add(5 * time.Second); w.now.Before(end); {
		w.now = w.now.Add(step)
		w.write(1 << 20)
		w.probe("n1")
		w.probe("n0")
		_, why := Tend(&w.c, w.shard(), &w.o, w.now)
		evict = evict || len(why) > 0
	}
	if !evict {
		t.Fatal("n1 was to leave")
	}
	gap := w.servers["n0"].offset - n1.offset
	w.kill("n0")
	for range 100 {
		w.now = w.now.Add(step)
		w.probe("n1")
		w.probe("n0")
	}
	for _, p := range w.detect() {
		if p.Remedy == Replace {
			t.Errorf("n1 is promoted, which was seen to be cut off for 5 s while n0 was well, and to be %d bytes behind: %s", gap, p.Message)
		}
	}
}

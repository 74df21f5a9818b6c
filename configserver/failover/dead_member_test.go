package failover

import (
	"testing"
	"time"
)

// A replica that was seen to be dead while its master was well lacks what was written
// meanwhile, whatever it finds on its disk.
func TestAReplicaThatDiedFirstDoesNotHaveEverything(t *testing.T) {
	w := newWorld(2)
	w.tick(time.Second)
	w.kill("n1")
	at := w.servers["n1"].offset
	for range 80 { // 8 s, less than policy.MaxReplicaAge
		w.write(1 << 20)
		w.tick(100 * time.Millisecond)
	}
	gap := w.servers["n0"].offset - at
	w.kill("n0")
	w.tick(time.Second)
	w.restartWithJournal("n1")
	w.tick(time.Second)
	e := Election{Old: "n0", Since: w.now.Add(-w.c.Policy.RestartGrace), Offset: at + gap}
	if got := Elect(&w.c, w.shard(), e, &w.o, w.now); got.Chosen() != "" {
		t.Errorf("%s is taken for complete, while n0 may come back, after it refused connections for 8 s in which %d bytes were acknowledged: lost %q",
			got.Chosen(), gap, got.Lost)
	}
}

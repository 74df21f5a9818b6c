package failover

import (
	"testing"
	"time"
)

// The grace of those that may have more is counted from when the master was lost, also
// when it was lost without a refusal, as with its machine.
func TestTheGraceOfASilentMasterIsCountedFromItsLoss(t *testing.T) {
	w := newWorld(2)
	w.tick(10 * time.Minute)
	w.cut["n0"] = true // its machine has lost power, and that of n1 restarts
	w.kill("n1")
	w.tick(2 * time.Second)
	w.restartWithJournal("n1")
	w.tick(w.c.Policy.HungAfter - 2*time.Second + step)
	for _, p := range w.detect() {
		if p.Remedy == Replace {
			t.Errorf("%v after n0 was lost, before its grace of %v is over, n1 is taken with what it found on its disk: %s",
				w.c.Policy.HungAfter, w.c.Policy.RestartGrace, p.Message)
		}
	}
	if since := troubleSince(w.shard(), &w.o); w.now.Sub(since) > time.Minute {
		t.Errorf("n0 is held to be lost for %v", w.now.Sub(since))
	}
}

package failover

import (
	"testing"
	"time"
)

// A master that was busy for long, and whose replicas have all it ever wrote, keeps
// its in-sync set when it answers again.
func TestABusyMasterKeepsItsInSyncSet(t *testing.T) {
	w := newWorld(3)
	w.c.Policy.HungAfter = 30 * time.Second // it is no failover
	w.tick(time.Second)
	w.servers["n0"].hung = true
	w.tick(w.c.Policy.MaxReplicaAge + 2*time.Second)
	w.servers["n0"].hung = false
	w.now = w.now.Add(step)
	w.probe("n0") // it is heard of first
	if next, why := Tend(&w.c, w.shard(), &w.o, w.now); len(next.Members()) != 3 {
		t.Errorf("in sync are only %v: %v", next.Members(), why)
	}
}

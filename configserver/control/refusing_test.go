package control

import (
	"testing"
	"time"
)

// A candidate that refuses to be promoted is asked again at a human pace.
func TestACandidateThatRefusesIsNotAskedInATightLoop(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	r.servers["shard-0-1"].MustDo("ACL", "SETUSER", "basalt-admin", "-replicaof")
	r.servers["shard-0-0"].Kill()
	r.eventually("begun", 5*time.Second, func() bool { return r.shard("shard-0").Operation != nil })
	time.Sleep(200 * time.Millisecond)
	before := r.loop.Topology().Epoch
	time.Sleep(time.Second)
	if epochs := r.loop.Topology().Epoch - before; epochs > 20 {
		t.Errorf("%d epochs within a second while a candidate refuses to be promoted", epochs)
	}
}

// And the next best is tried.
func TestACandidateThatRefusesDoesNotKeepOthersOut(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 3, nil)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	r.eventually("everywhere", 3*time.Second, func() bool {
		return r.servers["shard-0-1"].MustDo("GET", "k") == "v" && r.servers["shard-0-2"].MustDo("GET", "k") == "v"
	})
	r.servers["shard-0-1"].MustDo("ACL", "SETUSER", "basalt-admin", "-replicaof")
	r.servers["shard-0-0"].Kill()
	r.eventually("replaced", 10*time.Second, func() bool { return r.shard("shard-0").Master == "shard-0-2" })
}

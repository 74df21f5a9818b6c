package control

import (
	"testing"
	"time"
)

// A node that answers and cannot be admitted (it refuses to be configured) costs no
// epochs and events for ever, and keeps nothing else of its shard waiting.
func TestANodeThatCannotBeAdmittedCostsLittle(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 3, nil)
	s := r.servers["shard-0-1"]
	r.arm("admission/judged=error") // until it refuses
	s.RestartEmpty()
	time.Sleep(300 * time.Millisecond)
	s.MustDo("ACL", "SETUSER", "basalt-admin", "-config|set")
	r.arm("")
	time.Sleep(500 * time.Millisecond)
	before, told := r.loop.Topology().Epoch, len(r.events("NodeAdmitted"))+len(r.events("OldMasterReturned"))
	time.Sleep(4 * time.Second)
	epochs := r.loop.Topology().Epoch - before
	if epochs > 8 {
		t.Errorf("%d epochs within 4 s, and %d events that it was admitted", epochs, len(r.events("NodeAdmitted"))+len(r.events("OldMasterReturned"))-told)
	}
	r.servers["shard-0-2"].Kill()
	for begun := time.Now(); time.Since(begun) < 6*time.Second; time.Sleep(20 * time.Millisecond) {
		if !r.shard("shard-0").Nodes[2].InReadSet {
			return
		}
	}
	t.Error("6 s after shard-0-2 died it is in the read set, while shard-0-1 cannot be admitted")
}

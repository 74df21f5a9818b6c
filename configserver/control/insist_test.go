package control

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
)

// An admin who accepts what one node lacks does not accept what any other lacks.
func TestALossIsAcceptedForOneNode(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 3, nil)
	p := r.proxy("p1")
	p.fill("shard-0", 20)
	r.arm("failover/promoting-committed=pause:1s@1")
	go func() {
		_, _ = r.loop.Failover(t.Context(), "shard-0", failover.Wish{Node: "shard-0-1", AcceptLoss: true})
	}()
	r.eventually("chosen", 5*time.Second, func() bool {
		op := r.shard("shard-0").Operation
		return op != nil && op.Candidate == "shard-0-1"
	})
	r.servers["shard-0-0"].Kill()
	r.servers["shard-0-1"].Pause()
	r.servers["shard-0-2"].RestartEmpty()
	for begun := time.Now(); time.Since(begun) < 6*time.Second; time.Sleep(20 * time.Millisecond) {
		if s := r.shard("shard-0"); s.Master == "shard-0-2" || s.Operation != nil && s.Operation.Candidate == "shard-0-2" {
			t.Fatalf("shard-0-2, which restarted empty, is promoted %v after shard-0-1, which an admin had asked for and which has everything, was slow", time.Since(begun))
		}
	}
}

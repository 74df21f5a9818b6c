package control

import (
	"context"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
)

// The only node in sync cannot be promoted, whatever is tried. An admin who takes
// another one gets it.
func TestAnAdminIsHeardWhileACandidateRefuses(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 3, nil)
	r.servers["shard-0-1"].MustDo("ACL", "SETUSER", "basalt-admin", "-replicaof")
	r.arm("admission/judged=error")
	r.servers["shard-0-2"].RestartEmpty()
	r.eventually("seen", 5*time.Second, func() bool { return r.hasProblem("ReplicaRestarted") })
	r.servers["shard-0-0"].Kill()
	r.eventually("refused", 10*time.Second, func() bool { return len(r.events("PromotionFailed")) > 0 })
	time.Sleep(2500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	report, err := r.loop.Failover(ctx, "shard-0", failover.Wish{Node: "shard-0-2", AcceptLoss: true})
	if err != nil || report.NewMaster != "shard-0-2" {
		t.Errorf("an admin took shard-0-2 with what it lacks; after 12 s: %v, master %q, operation %+v", err, r.shard("shard-0").Master, r.shard("shard-0").Operation)
	}
}

package control

import (
	"context"
	"log/slog"
	"testing"

	"github.com/basalt-redis/basalt/configserver/failover"
)

// A step that was under way when its loop ended finds nothing known any more.
func TestLookAfterTheLoopEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	r.form(1, 1)
	c := r.loop.Topology()
	r.stop()
	x := failover.NewExecutor(context.Background(), r.loop, "shard-0", slog.New(slog.DiscardHandler))
	defer x.Close()
	o := x.Look(t.Context(), c.Shard("shard-0"))
	if n := o.Nodes["shard-0-0"]; n.Info.RunID != c.Shards[0].Nodes[0].Incarnation {
		t.Errorf("the node itself was not asked: %+v", n)
	}
}

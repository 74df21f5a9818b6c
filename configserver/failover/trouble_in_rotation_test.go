package failover

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A rotation that had begun long before says nothing about when the master went away.
func TestARotationDoesNotShortenTheGrace(t *testing.T) {
	w := newWorld(2)
	w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Rotation, Phase: Draining, OldMaster: "n0", StartedAt: w.now}
	w.tick(30 * time.Second)
	seen := w.o.Histories["s"].Seen
	if since := troubleSince(w.shard(), &w.o); since.Before(seen) {
		t.Errorf("the master, which was well %v ago, counts as gone for %v", w.now.Sub(seen), w.now.Sub(since))
	}
}

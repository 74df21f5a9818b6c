package control

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/basalt-redis/basalt/configserver/store/memstore"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// TestCommitThatIsTooLarge: a change that the store does not take is refused, and
// keeps no other waiting, also not one that shares its epoch.
func TestCommitThatIsTooLarge(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	r.stop()
	r.store = memstore.New(memstore.Options{CommitBytes: 64 << 10})
	if err := r.store.Create(t.Context(), r.loop.Topology()); err != nil {
		t.Fatal(err)
	}
	r.run()
	none := func(*topology.Cluster) ([]topology.Event, error) { return nil, nil }
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			reason, large := "small", i%5 == 2
			if large {
				reason = strings.Repeat("x", 70<<10)
			}
			_, err := r.loop.Commit(t.Context(), reason, none)
			var refused *topology.PreconditionError
			if large != errors.As(err, &refused) || !large && err != nil {
				t.Errorf("commit %d: %v", i, err)
			}
		})
	}
	all.Wait()
}

package grpcapi

import (
	"context"
	"sync"

	"github.com/basalt-redis/basalt/configserver/store"
)

// owners tells piped streams when to look again who owns their cluster. One
// watch of the store serves them all.
type owners struct {
	mu      sync.Mutex
	changed chan struct{} // closes at the next change
}

// follow runs until ctx ends.
func (o *owners) follow(ctx context.Context, st store.Store) {
	for range st.Watch(ctx) {
		o.mu.Lock()
		if o.changed != nil {
			close(o.changed)
			o.changed = nil
		}
		o.mu.Unlock()
	}
}

// next returns a channel that closes at the next change.
func (o *owners) next() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.changed
}

// untilMoved returns when somebody other than owner owns the cluster, or when
// ctx ends. A cluster without an owner is waited for: its owner may be back.
func (s *Server) untilMoved(ctx context.Context, cluster string, owner store.Replica) {
	for {
		changed := s.owners.next()
		now, err := s.cfg.Store.Owner(ctx, cluster)
		if err == nil && now != owner {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

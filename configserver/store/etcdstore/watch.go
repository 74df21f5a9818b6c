package etcdstore

import (
	"context"
	"errors"
	"math"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// rewatchAfter is the pause before a watch that etcd ended is begun again.
const rewatchAfter = 200 * time.Millisecond

// Watch implements store.Store. A watch that etcd ends (it lost its leader, or
// compacted what the watch had missed) is begun again, and that is a signal
// too, since anything may have happened in between.
func (s *Store) Watch(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	signal := func() {
		select {
		case out <- struct{}{}:
		default:
		}
	}
	prefixes := []string{s.keys.replicas(), s.keys.owners(), s.keys.names()}
	done := make(chan struct{}, len(prefixes))
	for _, prefix := range prefixes {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				watch, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
				for r := range s.client.Watch(watch, prefix, clientv3.WithPrefix()) {
					if r.Err() != nil {
						break
					}
					signal()
				}
				cancel()
				if !pause(ctx, rewatchAfter) || s.client.Ctx().Err() != nil {
					return
				}
				signal()
			}
		}()
	}
	go func() {
		for range prefixes {
			<-done
		}
		close(out)
	}()
	return out
}

// WatchEvents implements store.Store. It survives restarts of etcd: after each
// interruption it lists what it missed. The channel closes when ctx ends, the
// store is closed or the cluster is deleted.
func (s *Store) WatchEvents(ctx context.Context, name string, after uint64) (<-chan topology.Event, error) {
	kept, revision, err := s.eventsAt(ctx, name, after, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	out := make(chan topology.Event)
	go func() {
		defer close(out)
		w := eventWatch{store: s, name: name, after: after, out: out}
		for {
			if !w.send(ctx, kept) || !w.follow(ctx, revision+1) {
				return
			}
			for {
				if !pause(ctx, rewatchAfter) || s.client.Ctx().Err() != nil {
					return
				}
				if kept, revision, err = s.eventsAt(ctx, name, w.after, math.MaxInt32); err == nil {
					break
				}
				if errors.Is(err, store.ErrNotFound) {
					return
				}
			}
		}
	}()
	return out, nil
}

// eventWatch is the state of one WatchEvents.
type eventWatch struct {
	store *Store
	name  string
	after uint64
	out   chan<- topology.Event
}

// send delivers events in order, each once; false when ctx ended.
func (w *eventWatch) send(ctx context.Context, events []topology.Event) bool {
	for _, e := range events {
		if e.Sequence <= w.after {
			continue
		}
		select {
		case w.out <- e:
			w.after = e.Sequence
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// follow delivers new events from a revision on. It returns true when etcd
// ended the watch and it must be begun again.
func (w *eventWatch) follow(ctx context.Context, revision int64) bool {
	s := w.store
	watch, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := s.client.Watch(watch, s.keys.events(w.name), clientv3.WithPrefix(),
		clientv3.WithRev(revision), clientv3.WithFilterDelete())
	gone := s.client.Watch(watch, s.keys.name(w.name), clientv3.WithRev(revision), clientv3.WithFilterPut())
	for {
		select {
		case r, ok := <-events:
			if !ok || r.Err() != nil {
				return ctx.Err() == nil
			}
			var list []topology.Event
			for _, e := range r.Events {
				var event topology.Event
				if err := decode(string(e.Kv.Key), e.Kv.Value, &event); err != nil {
					s.log.Error("event skipped", "error", err)
					continue
				}
				list = append(list, event)
			}
			if !w.send(ctx, list) {
				return false
			}
		case r, ok := <-gone:
			if !ok || r.Err() != nil {
				return ctx.Err() == nil
			}
			if len(r.Events) > 0 {
				return false
			}
		}
	}
}

// pause waits; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

func proxyUser(generation uint64) string { return credentials.ProxyUser(generation) }

// member is a proxy that was given credentials. It is owned by the loop's
// goroutine.
type member struct {
	store.Member
	acked  uint64
	stream *stream // nil while it is away
	since  time.Time
	load   Load
	sights map[string]health.ProxySight
	// greeted: it said hello to this loop.
	greeted bool
	// hung: its stream is open, but it did not say in time that it obeys, and is
	// waited for like one that is away, until it says something.
	hung bool
	// fenced are the shards it was shut out of while it was away. It holds no
	// credential that works there, so what it acks does not matter there.
	fenced map[string]bool
}

// stream is one proxy's connection.
type stream struct {
	l       *Loop
	id      string
	mu      sync.Mutex
	updates chan View
	closed  bool
}

// Connect implements API. The member is in the store before any credential
// leaves, so that whoever owns the cluster next knows of it.
func (l *Loop) Connect(ctx context.Context, hello Hello) (ProxyStream, error) {
	m := store.Member{ID: hello.ID, Address: hello.Address, Version: hello.Version}
	if err := store.CheckMember(m); err != nil {
		return nil, err
	}
	s := &stream{l: l, id: hello.ID, updates: make(chan View, 1)}
	l.memberMu.Lock()
	defer l.memberMu.Unlock()
	if l.Topology().Phase == topology.Deleting {
		return nil, topology.Preconditionf("cluster %s is being deleted", l.cfg.Cluster)
	}
	if err := l.cfg.Ownership.PutMember(ctx, m); err != nil {
		return nil, fmt.Errorf("register proxy %s: %w", hello.ID, err)
	}
	err := l.do(ctx, func() {
		now := l.members[hello.ID]
		known := now != nil
		if !known {
			now = &member{}
			l.members[hello.ID] = now
		} else if now.stream != nil {
			now.stream.end()
		}
		now.Member, now.stream, now.since = m, s, time.Now()
		now.sights, now.fenced, now.hung, now.greeted = map[string]health.ProxySight{}, nil, false, true
		now.acked = acked(hello.Epoch, l.record.Load().Epoch, known)
		l.heardOf(hello.ID, hello.UID, hello.Epoch)
		if !l.listProxies() {
			s.offer(l.view)
		}
		l.checkWaiters()
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// acked is the epoch that a proxy's hello counts as an ack of.
//
// A new proxy that obeys nothing has sent nothing to anybody, and what it is
// about to be sent is the newest epoch or a later one. One that is known may
// have been about to ack a view that it routes by already. And an epoch that was
// never committed here is of another cluster of the same name, or of a store
// that was restored since: whoever obeys it has acked nothing of this one.
func acked(hello, newest uint64, known bool) uint64 {
	switch {
	case hello > newest:
		return 0
	case hello == 0 && !known:
		return newest
	}
	return hello
}

// offer hands a view to the stream; one that was not taken yet is replaced.
func (s *stream) offer(v View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	select {
	case <-s.updates:
	default:
	}
	s.updates <- v
}

// end closes the stream's updates.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.updates)
	}
}

// Updates implements ProxyStream.
func (s *stream) Updates() <-chan View { return s.updates }

// with runs f with the stream's member, as long as the stream is its present one.
func (s *stream) with(f func(m *member)) {
	_ = s.l.do(context.Background(), func() {
		if m := s.l.members[s.id]; m != nil && m.stream == s {
			f(m)
		}
	})
}

// Ack implements ProxyStream. An epoch that was never committed here is no ack,
// see acked.
func (s *stream) Ack(epoch uint64) {
	s.with(func(m *member) {
		if epoch <= s.l.record.Load().Epoch {
			m.acked, m.hung = max(m.acked, epoch), false
			s.l.checkWaiters()
		}
	})
}

// Report implements ProxyStream.
func (s *stream) Report(sights []NodeSight) {
	now := time.Now()
	s.with(func(m *member) {
		for _, n := range sights {
			seen := health.ProxySight{Sight: n.Sight, At: now, Detail: n.Error}
			if n.SinceReply >= 0 {
				seen.ReplyAt = now.Add(-n.SinceReply)
			}
			m.sights[n.Node] = seen
		}
		s.l.inbox.poke()
	})
}

// Load implements ProxyStream.
func (s *stream) Load(load Load) { s.with(func(m *member) { m.load = load }) }

// Close implements ProxyStream.
func (s *stream) Close() {
	s.with(func(m *member) {
		m.stream, m.since, m.sights = nil, time.Now(), nil
		s.l.listProxies()
	})
	s.end()
}

// Goodbye implements ProxyStream. On a stream that another one of the same
// proxy has replaced it says nothing.
func (s *stream) Goodbye(ctx context.Context) error {
	l := s.l
	l.memberMu.Lock()
	defer l.memberMu.Unlock()
	present := false
	s.with(func(*member) { present = true })
	if !present {
		return nil
	}
	if err := l.cfg.Ownership.RemoveMembers(ctx, s.id); err != nil {
		return err
	}
	err := l.do(ctx, func() {
		if m := l.members[s.id]; m != nil && m.stream == s {
			delete(l.members, s.id)
			l.listProxies()
		}
		l.checkWaiters()
	})
	s.end()
	return err
}

// listProxies puts the connected proxies into the view. When they changed, it
// publishes the view and returns true.
func (l *Loop) listProxies() bool {
	var list []Proxy
	for id, m := range l.members {
		if m.stream != nil {
			list = append(list, Proxy{ID: id, Address: m.Address})
		}
	}
	slices.SortFunc(list, func(a, b Proxy) int { return strings.Compare(a.ID, b.ID) })
	if slices.Equal(list, l.view.Proxies) {
		return false
	}
	l.view.Proxies = list // not changed in place: streams hold the one before
	l.publish()
	return true
}

// publish sends the newest view to every stream.
func (l *Loop) publish() {
	for _, m := range l.members {
		if m.stream != nil {
			m.stream.offer(l.view)
		}
	}
}

// shutStreams ends all streams; the loop's goroutine has ended.
func (l *Loop) shutStreams() {
	for _, m := range l.members {
		if m.stream != nil {
			m.stream.end()
		}
	}
}

// ackWaiter waits for the acks of an epoch.
type ackWaiter struct {
	shard string // "" for all
	epoch uint64
	done  chan struct{}
}

// missing lists the members that have not acked an epoch and may still use a
// shard, or any shard.
func (l *Loop) missing(shard string, epoch uint64) (connected, away []string) {
	for id, m := range l.members {
		switch {
		case m.acked >= epoch || shard != "" && m.fenced[shard]:
		case m.stream != nil && !m.hung:
			connected = append(connected, id)
		default:
			away = append(away, id)
		}
	}
	return connected, away
}

func (l *Loop) checkWaiters() {
	l.waiters = slices.DeleteFunc(l.waiters, func(w *ackWaiter) bool {
		if connected, away := l.missing(w.shard, w.epoch); len(connected)+len(away) > 0 {
			return false
		}
		close(w.done)
		return true
	})
}

// wait registers a waiter; the returned function takes it away.
func (l *Loop) wait(ctx context.Context, shard string, epoch uint64) (*ackWaiter, func(), error) {
	w := &ackWaiter{shard: shard, epoch: epoch, done: make(chan struct{})}
	err := l.do(ctx, func() {
		l.waiters = append(l.waiters, w)
		l.checkWaiters()
	})
	return w, func() {
		_ = l.do(l.life, func() {
			l.waiters = slices.DeleteFunc(l.waiters, func(other *ackWaiter) bool { return other == w })
		})
	}, err
}

// AwaitAcks implements failover.Host.
func (l *Loop) AwaitAcks(ctx context.Context, shard string, epoch uint64, connected, away time.Duration) []string {
	w, forget, err := l.wait(ctx, shard, epoch)
	if err != nil {
		return nil
	}
	defer forget()
	short := time.NewTimer(min(away, connected))
	defer short.Stop()
	long := time.NewTimer(connected)
	defer long.Stop()
	var poll <-chan time.Time
	for {
		var late []string
		waiting := 0
		select {
		case <-w.done:
			return nil
		case <-ctx.Done():
			return nil
		case <-l.life.Done():
			return nil
		case <-long.C:
			_ = l.do(ctx, func() {
				a, b := l.missing(shard, epoch)
				late = append(a, b...)
			})
			slices.Sort(late)
			return late
		case <-short.C:
		case <-poll:
		}
		// From here on only members whose stream is open are waited for; one that
		// closes it counts as away.
		_ = l.do(ctx, func() {
			var a []string
			a, late = l.missing(shard, epoch)
			waiting = len(a)
		})
		if waiting == 0 {
			slices.Sort(late)
			return late
		}
		poll = time.After(10 * time.Millisecond)
	}
}

// Fenced implements failover.Host.
func (l *Loop) Fenced(ctx context.Context, shard string, members []string) {
	l.memberMu.Lock()
	defer l.memberMu.Unlock()
	var gone []string
	err := l.do(ctx, func() {
		c := l.record.Load()
		for _, id := range members {
			m := l.members[id]
			if m == nil || m.stream != nil {
				continue // it came back: it has the new credentials and will ack
			}
			if m.fenced == nil {
				m.fenced = map[string]bool{}
			}
			m.fenced[shard] = true
			if !slices.ContainsFunc(c.Shards, func(s topology.Shard) bool { return !m.fenced[s.ID] }) {
				gone = append(gone, id)
			}
		}
		l.checkWaiters()
	})
	if err != nil || len(gone) == 0 {
		return
	}
	if err := l.cfg.Ownership.RemoveMembers(ctx, gone...); err != nil {
		l.log.Warn("fenced proxies could not be forgotten; they are fenced again next time", "error", err)
		return
	}
	_ = l.do(ctx, func() {
		for _, id := range gone {
			delete(l.members, id)
		}
		l.checkWaiters()
	})
	l.log.Info("forgot proxies that were fenced everywhere", "proxies", gone)
}

// Barrier implements API.
func (l *Loop) Barrier(ctx context.Context, epoch uint64) (uint64, []string, error) {
	newest := l.Topology().Epoch
	if epoch == 0 {
		epoch = newest
	}
	if epoch > newest {
		return epoch, nil, topology.Invalidf("epoch", "%d is in the future; the newest is %d", epoch, newest)
	}
	w, forget, err := l.wait(ctx, "", epoch)
	if err != nil {
		return epoch, nil, err
	}
	defer forget()
	select {
	case <-w.done:
	case <-l.stopped:
		return epoch, nil, ErrStopped
	case <-ctx.Done():
		var late []string
		_ = l.do(context.WithoutCancel(ctx), func() {
			a, b := l.missing("", epoch)
			late = append(a, b...)
		})
		slices.Sort(late)
		return epoch, nil, fmt.Errorf("epoch %d: no ack from %s: %w", epoch, topology.Few(late, topology.MaxUnacked), ctx.Err())
	}
	var acked []string
	err = l.do(ctx, func() { acked = slices.Sorted(maps.Keys(l.members)) })
	return epoch, acked, err
}

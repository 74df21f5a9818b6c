package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// member is a proxy that was given credentials. It is owned by the loop's
// goroutine.
type member struct {
	store.Member
	acked  uint64
	stream *stream // nil while it is away
	since  time.Time
	load   Load
	sights map[string]health.ProxySight
	// behind is by node id what it waited for when it last told; also while it is away.
	behind map[string]health.Behind
	// greeted: it said hello to this loop. alone: it need not know of other proxies.
	greeted, alone bool
	// outSince is the epoch in which it lost its seat, 0 when it has one. fenced are
	// the shards it was shut out of since: it holds no credential that works there, so
	// what it acks does not matter there.
	outSince uint64
	fenced   map[string]bool
	// reseating: it is being given its seat again. serving: it is away and has
	// connections to masters.
	reseating, serving bool
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
	seat, err := l.takeSeat(ctx, hello.ID)
	if err != nil {
		return nil, fmt.Errorf("a seat for proxy %s: %w", hello.ID, err)
	}
	m.Seat, m.SeatVersion = seat.Number, seat.Version
	if err := l.cfg.Ownership.PutMember(ctx, m); err != nil {
		return nil, fmt.Errorf("register proxy %s: %w", hello.ID, err)
	}
	err = l.do(ctx, func() {
		now := l.members[hello.ID]
		known := now != nil
		if !known {
			now = &member{}
			l.members[hello.ID] = now
		} else if now.stream != nil {
			now.stream.end()
		}
		now.sit(m)
		now.stream, now.since, now.sights, now.greeted = s, time.Now(), map[string]health.ProxySight{}, true
		now.acked = acked(hello.Epoch, l.record.Load().Epoch, known)
		now.alone = hello.Alone
		l.heardOf(hello.ID, hello.UID, hello.Epoch)
		l.noteSeats()
		l.listProxies()
		s.offer(l.viewOf(now))
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
			m.acked = max(m.acked, epoch)
			s.l.checkWaiters()
			s.l.reseatObedient()
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
			m.waitsBehind(n, now)
		}
		s.l.inbox.seen()
	})
}

// waitsBehind takes what a proxy says it waits for. That it has nothing to say while
// there are no replies takes nothing back: its connection may have ended, which ends
// nothing at the server.
func (m *member) waitsBehind(n NodeSight, now time.Time) {
	switch {
	case n.Behind != "":
		if m.behind == nil {
			m.behind = map[string]health.Behind{}
		}
		m.behind[n.Node] = health.Behind{Command: n.Behind, Sent: now.Add(-n.SinceBehind), At: now}
	case n.Sight == topology.SightOK:
		delete(m.behind, n.Node)
	}
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

// listProxies notes the connected proxies and, when they changed, tells those that want
// to know of each other.
func (l *Loop) listProxies() {
	var list []Proxy
	for id, m := range l.members {
		if m.stream != nil {
			list = append(list, Proxy{ID: id, Address: m.Address})
		}
	}
	slices.SortFunc(list, func(a, b Proxy) int { return strings.Compare(a.ID, b.ID) })
	if slices.Equal(list, l.proxies) {
		return
	}
	l.proxies = list // not changed in place: streams hold the one before
	for _, m := range l.members {
		if m.stream != nil && !m.alone {
			m.stream.offer(l.viewOf(m))
		}
	}
}

// publish sends the newest view to every stream.
func (l *Loop) publish() {
	for _, m := range l.members {
		if m.stream != nil {
			m.stream.offer(l.viewOf(m))
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
	// all: it waits for those that are out, too, until they were shut out at the
	// servers.
	all  bool
	done chan struct{}
}

// missing lists the members that have not acked an epoch and may still use a
// shard, or any shard. Those that are out may, as long as its servers let them in.
func (l *Loop) missing(shard string, epoch uint64) (connected, away, out []string) {
	for id, m := range l.members {
		switch seated := l.seated(m); {
		case m.acked >= epoch || !seated && l.fencedFrom(m, shard):
		case !seated:
			out = append(out, id)
		case m.stream != nil:
			connected = append(connected, id)
		default:
			away = append(away, id)
		}
	}
	return connected, away, out
}

// late is all of missing, in order.
func (l *Loop) late(shard string, epoch uint64) []string {
	connected, away, out := l.missing(shard, epoch)
	return slices.Sorted(slices.Values(slices.Concat(connected, away, out)))
}

func (l *Loop) checkWaiters() {
	l.waiters = slices.DeleteFunc(l.waiters, func(w *ackWaiter) bool {
		connected, away, out := l.missing(w.shard, w.epoch)
		if len(connected)+len(away) > 0 || w.all && len(out) > 0 {
			return false
		}
		close(w.done)
		return true
	})
}

// wait registers a waiter; the returned function takes it away.
func (l *Loop) wait(ctx context.Context, shard string, epoch uint64, all bool) (*ackWaiter, func(), error) {
	w := &ackWaiter{shard: shard, epoch: epoch, all: all, done: make(chan struct{})}
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
	w, forget, err := l.wait(ctx, shard, epoch, false)
	if err != nil {
		return nil
	}
	defer forget()
	late := func() (late []string) {
		_ = l.do(ctx, func() { late = l.late(shard, epoch) })
		return late
	}
	short := time.NewTimer(min(away, connected))
	defer short.Stop()
	long := time.NewTimer(connected)
	defer long.Stop()
	var poll <-chan time.Time
	for {
		waiting := 0
		select {
		case <-w.done:
			return late()
		case <-ctx.Done():
			return nil
		case <-l.life.Done():
			return nil
		case <-long.C:
			return late()
		case <-short.C:
		case <-poll:
		}
		// From here on only members whose stream is open are waited for; one that
		// closes it counts as away.
		_ = l.do(ctx, func() {
			connected, _, _ := l.missing(shard, epoch)
			waiting = len(connected)
		})
		if waiting == 0 {
			return late()
		}
		poll = time.After(10 * time.Millisecond)
	}
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
	w, forget, err := l.wait(ctx, "", epoch, true)
	if err != nil {
		return epoch, nil, err
	}
	defer forget()
	select {
	case <-w.done:
	case <-l.stopped:
		return epoch, nil, ErrStopped
	case <-answerBy(ctx):
		return epoch, nil, l.unacked(ctx, epoch)
	case <-ctx.Done():
		return epoch, nil, l.unacked(context.WithoutCancel(ctx), epoch)
	}
	var acked []string
	err = l.do(ctx, func() { acked = slices.Sorted(maps.Keys(l.members)) })
	return epoch, acked, err
}

// unacked says who has not acked an epoch, and why.
func (l *Loop) unacked(ctx context.Context, epoch uint64) error {
	e := &UnackedError{Epoch: epoch}
	err := l.do(ctx, func() {
		now := time.Now()
		late := l.late("", epoch)
		for _, id := range late[:min(len(late), topology.MaxUnacked)] {
			m := l.members[id]
			what := fmt.Sprintf("%s at %s ", id, m.Address)
			switch {
			case !l.seated(m):
				what += "is shut out, but not of " + topology.Few(l.openTo(m), maxNamed) + " yet"
			case m.stream != nil:
				what += fmt.Sprintf("is connected and is at epoch %d", m.acked)
			case m.serving:
				what += fmt.Sprintf("has been away for %v and is connected to servers", now.Sub(m.since).Round(time.Second))
			default:
				what += fmt.Sprintf("has been away for %v", now.Sub(m.since).Round(time.Second))
			}
			e.Proxies = append(e.Proxies, what)
		}
		e.More = len(late) - len(e.Proxies)
	})
	if err != nil {
		return err
	}
	return e
}

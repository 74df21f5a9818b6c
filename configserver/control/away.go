package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/lifecycle"
)

// Proxies that are away.
//
// A proxy whose stream has ended is dead, or cut off from here. One that is cut off
// serves its clients on by what it obeys, and must be let do so; one that is dead would
// be waited for by the next operation, and by every barrier. The masters know which of
// the two it is: who serves has connections to them.
//
//  1. One that has been away for goneAfter is looked for at the masters, every
//     goneAfter again. Its user there is its own (seats.go), so that is certain.
//  2. It has no connection, and every master said so or refuses connections itself: it
//     is shut out, and then forgotten, without an operation. Should it be alive all the
//     same, it serves nobody now, and gets its seat back by its next hello.
//  3. It has connections: it stays what it is, until it has been away for awayTooLong.
//     A host that lost its power does not close its connections; the servers do so
//     after some minutes (tcp-keepalive).

const (
	// goneAfter is how long a proxy may look for its Configserver before it is looked
	// for itself.
	goneAfter = 5 * time.Second
	// awayTooLong is after how long a proxy that nothing was heard of is taken for
	// gone, whatever connections it has.
	awayTooLong = 10 * time.Minute
	// glance bounds the question to one master.
	glance = time.Second
)

// shutOutAbsent shuts out proxies that are gone.
func (l *Loop) shutOutAbsent(now time.Time) {
	if l.dismissing || now.Before(l.lookedAt.Add(goneAfter)) {
		return
	}
	var away, tooLong []string
	for id, m := range l.members {
		switch {
		case m.stream != nil || !l.seated(m):
		case now.Sub(m.since) > awayTooLong:
			tooLong = append(tooLong, id)
		case now.Sub(m.since) > goneAfter:
			away = append(away, id)
		}
	}
	if len(away)+len(tooLong) == 0 {
		return
	}
	l.dismissing, l.lookedAt = true, now
	l.spawn(func() {
		gone, err := l.gone(l.life, away)
		if err == nil && len(gone) > 0 {
			if err = l.cfg.Faults.Hit("seats/gone"); err == nil {
				err = l.unseat(l.life, gone, false, true, "went away without a goodbye and has no connection to any master: it is shut out, and forgotten")
			}
		}
		if len(tooLong) > 0 {
			slices.Sort(tooLong)
			err = errors.Join(err, l.unseat(l.life, tooLong, false, true, fmt.Sprintf("has been away for %v: it is shut out, and forgotten", awayTooLong)))
		}
		if err != nil && l.life.Err() == nil {
			l.log.Warn("proxies that are gone without a goodbye are shut out later", "error", err)
		}
		l.later(func() { l.dismissing = false })
	})
}

// gone are those of some proxies that are away still and have no connection to a master.
// It notes which of them have one.
func (l *Loop) gone(ctx context.Context, ids []string) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	seats := map[string]credentials.Seat{}
	err := l.do(ctx, func() {
		for _, id := range ids {
			if m := l.members[id]; m != nil && m.stream == nil {
				seats[id] = m.seat()
			}
		}
	})
	if err != nil {
		return nil, err
	}
	serving, err := l.serving(ctx, seats)
	if err != nil {
		return nil, err
	}
	var gone []string
	err = l.do(ctx, func() {
		for id, seat := range seats {
			m := l.members[id]
			if m == nil || m.stream != nil || m.seat() != seat {
				continue // it came back
			}
			if m.serving = serving[id]; !m.serving {
				gone = append(gone, id)
			}
		}
	})
	slices.Sort(gone)
	return gone, err
}

// serving finds out which proxies have connections to masters, by their seats.
func (l *Loop) serving(ctx context.Context, seats map[string]credentials.Seat) (map[string]bool, error) {
	c := l.Topology()
	var (
		mu      sync.Mutex
		found   = map[string]bool{}
		unknown error
	)
	lifecycle.Parallel(len(c.Shards), askAtOnce, func(i int) {
		s := &c.Shards[i]
		m := s.MasterNode()
		mu.Lock()
		all := len(found) == len(seats)
		mu.Unlock()
		if all || m == nil || m.Incarnation == "" {
			return // with no master nobody is connected, and nobody connects
		}
		users, err := l.connected(ctx, m)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			if sight, _ := redisadmin.SightOf(err); sight != topology.SightRefused {
				unknown = fmt.Errorf("who is connected to %s is not known: %w", m.ID, err)
			}
			return
		}
		for id, seat := range seats {
			if users[credentials.ProxyUser(s.Generation, seat)] {
				found[id] = true
			}
		}
	})
	if unknown != nil {
		for id := range seats {
			found[id] = true // for all that is known
		}
	}
	return found, ctx.Err()
}

// connected asks a node which users have connections to it.
func (l *Loop) connected(ctx context.Context, n *topology.Node) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	conn, err := redisadmin.Dial(ctx, n.Endpoint(), l.AdminPasswords(n.ID))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Connected(ctx)
}

// ForgetProxy implements API.
func (l *Loop) ForgetProxy(ctx context.Context, id string) error {
	var refusal error
	err := l.do(ctx, func() {
		switch m := l.members[id]; {
		case m == nil:
			refusal = fmt.Errorf("proxy %s: %w", id, store.ErrNotFound)
		case m.stream != nil:
			refusal = topology.Preconditionf("%s at %s is connected, and would come back at once: stop it first", id, m.Address)
		}
	})
	if err == nil {
		err = refusal
	}
	if err == nil {
		err = l.unseat(ctx, []string{id}, false, true, "is away: it is shut out, and forgotten, as an admin asked")
	}
	end := answerBy(ctx) // once: the less is left, the later it would be
	for err == nil {
		var forgotten, back bool
		var open []string
		err = l.do(ctx, func() {
			m := l.members[id]
			if forgotten = m == nil; !forgotten {
				back, open = m.stream != nil, l.openTo(m)
			}
		})
		switch {
		case err != nil || forgotten:
			return err
		case back:
			return topology.Preconditionf("%s has come back: stop it first", id)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-end:
			return topology.Preconditionf("%s is shut out, and forgotten as soon as the masters of %s have been told of it; they cannot be now",
				id, topology.Few(open, maxNamed))
		case <-l.stopped:
			return l.why()
		}
	}
	return err
}

// answerBy ends early enough before a context to answer its caller, who gives up with it.
func answerBy(ctx context.Context) <-chan time.Time {
	end, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	left := time.Until(end)
	return time.After(left - min(left/10, 500*time.Millisecond))
}

// proxyStatus is what is known of the members.
func (l *Loop) proxyStatus() (list []ProxyStatus) {
	for _, id := range slices.Sorted(maps.Keys(l.members)) {
		m := l.members[id]
		p := ProxyStatus{ID: id, Address: m.Address, Version: m.Version,
			AckedEpoch: m.acked, Connected: m.stream != nil, Clients: m.load.Clients, ShutOut: !l.seated(m)}
		if m.stream == nil {
			p.AwaySince, p.Serving, p.Clients = m.since, m.serving, 0
		}
		if p.ShutOut {
			p.OpenTo = l.openTo(m)
		}
		list = append(list, p)
	}
	return list
}

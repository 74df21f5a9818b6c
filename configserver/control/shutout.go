package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// How proxies lose their seats, and what becomes of them; seats.go says why.

// leaving is the seat of before of a proxy that is out.
type leaving struct {
	proxy string
	seat  credentials.Seat
	until time.Time
}

// ShutOut implements failover.Host.
func (l *Loop) ShutOut(ctx context.Context, members []string, gently bool) error {
	return l.unseat(ctx, members, gently, false, "did not say in time that the topology is obeyed: every server refuses it until it does")
}

// unseat is ShutOut for a reason, which completes the sentence that begins with the
// members. absent spares those that have come back.
func (l *Loop) unseat(ctx context.Context, members []string, gently, absent bool, why string) error {
	_, err := l.Commit(ctx, fmt.Sprintf("shuts out proxies %.500s", strings.Join(members, ", ")), func(c *topology.Cluster) ([]topology.Event, error) {
		var out []string
		for _, id := range members {
			m := l.members[id]
			if m == nil || m.Seat >= len(c.Seats) || c.Seats[m.Seat] != m.SeatVersion {
				continue // it said goodbye, or is out
			}
			if absent && m.stream != nil {
				continue
			}
			if gently && m.stream != nil {
				l.leave(m)
			}
			c.Seats[m.Seat]++
			out = append(out, fmt.Sprintf("%s at %s", id, m.Address))
		}
		if len(out) == 0 {
			return nil, failover.ErrSuperseded
		}
		return []topology.Event{{Time: time.Now(), Kind: "ProxiesShutOut", Severity: topology.Warning, Epoch: c.Epoch,
			Message: fmt.Sprintf("%.1000s %s", strings.Join(out, ", "), why)}}, nil
	})
	if err != nil && !errors.Is(err, failover.ErrSuperseded) {
		return err
	}
	return l.cfg.Faults.Hit("seats/committed")
}

// leave lets the users of a member stay for a while.
func (l *Loop) leave(m *member) {
	l.leaving = append(l.leaving, leaving{m.ID, m.seat(), time.Now().Add(leaveFor)})
	l.noteLeaving()
}

// endLeaving takes the users of those away whose time is over.
func (l *Loop) endLeaving(now time.Time) {
	before := len(l.leaving)
	l.leaving = slices.DeleteFunc(l.leaving, func(g leaving) bool {
		m := l.members[g.proxy]
		return m == nil || m.stream == nil || now.After(g.until)
	})
	if len(l.leaving) == before {
		return
	}
	l.noteLeaving()
	for shard := range l.seatsAt {
		l.seatsAt[shard] = 0
	}
}

func (l *Loop) noteLeaving() {
	l.obs.Leaving = nil // not changed in place: others hold the one before
	for _, g := range l.leaving {
		l.obs.Leaving = append(l.obs.Leaving, g.seat)
	}
}

// renewSeats makes the nodes of a shard let in those proxies that have a seat. It
// returns true when there is something to do.
func (l *Loop) renewSeats(s *topology.Shard, now time.Time) bool {
	shard, version := s.ID, l.seatsVersion
	if _, known := l.seatsAt[shard]; !known {
		l.seatsAt[shard] = version // what was before the probes see
	}
	out := slices.DeleteFunc(slices.Clone(l.out), func(id string) bool {
		m := l.members[id]
		return m == nil || m.fenced[shard] || slices.ContainsFunc(l.leaving, func(g leaving) bool { return g.proxy == id })
	})
	if len(out) == 0 && l.seatsAt[shard] == version || l.seating.Load() >= seatsAtOnce {
		return false
	}
	if m := s.MasterNode(); m == nil || s.SecretID == "" || !l.obs.Admitted(m, now) {
		return false
	}
	l.seating.Add(1)
	l.start(shard, "seats", true, func(ctx context.Context, x *failover.Executor) error {
		defer l.seating.Add(-1)
		if err := l.matchSeats(ctx, x, shard, out); err != nil {
			return err
		}
		return l.do(ctx, func() { l.seatsAt[shard] = max(l.seatsAt[shard], version) })
	})
	return true
}

// matchSeats makes the nodes of one shard have the users of seats, and shuts members
// out of it.
func (l *Loop) matchSeats(ctx context.Context, x *failover.Executor, shard string, out []string) error {
	if len(out) == 0 {
		return x.MatchSeats(ctx)
	}
	done, err := x.ShutOut(ctx, out)
	if err != nil {
		return err
	}
	if done {
		return x.MatchSeats(ctx) // the users of seats that nobody has, too
	}
	cause := "proxies lost their seats and know the password of users with limits: " + strings.Join(out, ", ")
	if _, err := l.Commit(ctx, shard+": shuts out proxies", failover.BeginRotation(shard, newID(), cause, time.Now())); err != nil {
		return err
	}
	return x.Run(ctx)
}

// fencedFrom tells if a member was shut out of a shard, or of all ("").
func (l *Loop) fencedFrom(m *member, shard string) bool {
	if shard != "" {
		return m.fenced[shard]
	}
	return len(l.openTo(m)) == 0
}

// openTo are the shards that a member was not shut out of.
func (l *Loop) openTo(m *member) (shards []string) {
	c := l.record.Load()
	for i := range c.Shards {
		// Where no node was admitted yet nobody has credentials.
		if s := &c.Shards[i]; !m.fenced[s.ID] && s.SecretID != "" {
			shards = append(shards, s.ID)
		}
	}
	return shards
}

// Fenced implements failover.Host.
func (l *Loop) Fenced(ctx context.Context, shard string, seats []uint32, members []string) {
	if l.cfg.Faults.Hit("seats/fenced") != nil {
		return
	}
	_ = l.do(ctx, func() {
		for _, id := range members {
			m := l.members[id]
			if m == nil || m.Seat >= len(seats) || m.SeatVersion >= seats[m.Seat] {
				continue // it came back: it has the new credentials and will ack
			}
			if m.fenced == nil {
				m.fenced = map[string]bool{}
			}
			m.fenced[shard] = true
		}
		l.checkWaiters()
		l.forgetFenced()
	})
}

// forgetFenced forgets members that are away and were shut out everywhere.
func (l *Loop) forgetFenced() {
	gone := func() (ids []string) {
		for id, m := range l.members {
			if m.stream == nil && !l.seated(m) && l.fencedFrom(m, "") {
				ids = append(ids, id)
			}
		}
		return ids
	}
	if l.forgetting || len(gone()) == 0 {
		return
	}
	l.forgetting = true
	l.spawn(func() {
		l.memberMu.Lock()
		defer l.memberMu.Unlock()
		var ids []string
		err := l.do(l.life, func() { ids = gone() })
		slices.Sort(ids)
		if err == nil && len(ids) > 0 {
			ctx, cancel := context.WithTimeout(l.life, storeTimeout)
			err = l.cfg.Ownership.RemoveMembers(ctx, ids...)
			cancel()
			if err == nil {
				err = l.cfg.Faults.Hit("seats/forgotten")
			}
		}
		if err != nil {
			l.log.Warn("proxies that were shut out could not be forgotten; it is tried again", "error", err)
		}
		l.later(func() {
			l.forgetting = false
			if err != nil {
				return
			}
			for _, id := range ids {
				delete(l.members, id)
			}
			l.noteSeats()
			l.checkWaiters()
			l.log.Info("forgot proxies that were shut out everywhere", "proxies", ids)
			l.spawn(func() {
				l.Tell(l.life, topology.Event{Time: time.Now(), Kind: "ProxiesForgotten", Severity: topology.Info, Epoch: l.Topology().Epoch,
					Message: fmt.Sprintf("%.1000s: no server lets it in any more, and nobody waits for it", strings.Join(ids, ", "))})
			})
		})
	})
}

// awaitFenced waits until members that were shut out are so at the servers of every
// shard, or obey an epoch.
func (l *Loop) awaitFenced(ctx context.Context, members []string, epoch uint64) error {
	giveUp := time.NewTimer(busyFor)
	defer giveUp.Stop()
	for {
		var open []string
		err := l.do(ctx, func() {
			for _, id := range members {
				if m := l.members[id]; m != nil && m.acked < epoch {
					open = append(open, l.openTo(m)...)
				}
			}
		})
		if err != nil || len(open) == 0 {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-giveUp.C:
			slices.Sort(open)
			return fmt.Errorf("%s did not answer and could not be shut out of %s", strings.Join(members, ", "), strings.Join(slices.Compact(open), ", "))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

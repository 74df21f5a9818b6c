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
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// The proxies' seats.
//
// Goal: a proxy that does not obey is shut out once, everywhere, without the others
// noticing; after that nobody waits for it.
//
//  1. A proxy that connects gets a seat, and keeps it until it says goodbye or is
//     forgotten. Which one and in which version is in the store before the proxy
//     gets a credential, so the next owner knows it. There are always some seats to
//     spare, whose users are at the servers already (topology.Cluster.MoreSeats).
//  2. ShutOut gives the seat of a proxy the next version, in one commit. The proxy
//     holds the one before: it is *out*. No operation waits for its acks any more;
//     each removes its users from its own shard, which takes a moment (AwaitAcks,
//     failover/fencing.go).
//  3. Meanwhile every other shard at which nothing is done removes the users, too. When
//     the masters of all have done it, the proxy is forgotten, unless its stream is
//     open. A Configserver that takes over finds who is out by comparing the versions
//     of the members with those of the record, and does that again.
//  4. One whose stream is open may only be slow. Where nothing is done, its
//     connections stay for a while (leaveFor), in which it can show that it obeys.
//  5. A proxy that is out gets no credentials, but the topology. When it acks the epoch
//     in which it lost its seat, or says hello anew, it gets its seat in the present
//     version. Credentials of a version travel with an epoch that is not older than the
//     version: so whoever has them obeys what it was shut out for.
//
// A node that could not be reached has the user of before until it can. It is then a
// node with wrong users, whatever its role (failover.Detect), and nobody promotes it
// with them (makeMaster).

const (
	// leaveFor is how long the connections of a proxy that is out, and whose stream
	// is open, may stay at shards at which nothing is done.
	leaveFor = 3 * time.Second
	// reseatWithin is how long one that obeys again waits for the shards.
	reseatWithin = time.Second
	// seatsAtOnce is how many shards get users of seats at the same time.
	seatsAtOnce = 32
)

// leaving is the seat of before of a proxy that is out.
type leaving struct {
	proxy string
	seat  credentials.Seat
	until time.Time
}

// seated tells if a member holds its seat in the present version.
func (l *Loop) seated(m *member) bool {
	seats := l.record.Load().Seats
	return m.Seat < len(seats) && seats[m.Seat] == m.SeatVersion
}

// seat is what the member holds.
func (m *member) seat() credentials.Seat {
	return credentials.Seat{Number: m.Seat, Version: m.SeatVersion}
}

// viewOf is the newest view for one member.
func (l *Loop) viewOf(m *member) View {
	v := l.view
	v.Seat = m.seat()
	return v
}

// takeSeat finds a seat for a proxy: its own, or one that nobody has. The caller
// holds memberMu.
func (l *Loop) takeSeat(ctx context.Context, id string) (credentials.Seat, error) {
	for {
		number, version := -1, uint32(0)
		err := l.do(ctx, func() {
			seats := l.record.Load().Seats
			if m := l.members[id]; m != nil && m.SeatVersion > 0 && m.Seat < len(seats) {
				number = m.Seat
			} else {
				number = slices.Index(l.takenSeats(), false)
			}
			if number >= 0 {
				version = seats[number]
			}
		})
		if err != nil || number >= 0 {
			return credentials.Seat{Number: number, Version: version}, err
		}
		if err := l.moreSeats(ctx); err != nil {
			return credentials.Seat{}, err
		}
	}
}

// takenSeats tells of each seat if a member has it.
func (l *Loop) takenSeats() []bool {
	taken := make([]bool, len(l.record.Load().Seats))
	for _, m := range l.members {
		if m.SeatVersion > 0 && m.Seat < len(taken) {
			taken[m.Seat] = true
		}
	}
	return taken
}

// fewSeats tells if less than a quarter of the seats are to spare.
func (l *Loop) fewSeats() bool {
	free := 0
	taken := l.takenSeats()
	for _, is := range taken {
		if !is {
			free++
		}
	}
	return 4*free < len(taken) || len(taken) == 0
}

// moreSeats commits seats if there are few.
func (l *Loop) moreSeats(ctx context.Context) error {
	_, err := l.Commit(ctx, "seats for more proxies", func(c *topology.Cluster) ([]topology.Event, error) {
		switch {
		case c.Phase == topology.Deleting:
			return nil, topology.Preconditionf("cluster %s is being deleted", c.Name)
		case !l.fewSeats():
			return nil, failover.ErrSuperseded
		case !c.MoreSeats():
			return nil, topology.Preconditionf("cluster %s has %d proxies, more are not possible: stop some", c.Name, len(c.Seats))
		}
		return nil, nil
	})
	if errors.Is(err, failover.ErrSuperseded) {
		return nil
	}
	return err
}

// ShutOut implements failover.Host.
func (l *Loop) ShutOut(ctx context.Context, members []string, gently bool) error {
	_, err := l.Commit(ctx, fmt.Sprintf("shuts out proxies %.500s", strings.Join(members, ", ")), func(c *topology.Cluster) ([]topology.Event, error) {
		var out []string
		for _, id := range members {
			m := l.members[id]
			if m == nil || m.Seat >= len(c.Seats) || c.Seats[m.Seat] != m.SeatVersion {
				continue // it said goodbye, or is out
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
			Message: fmt.Sprintf("%.1000s did not say in time that the topology is obeyed: every server refuses it until it does", strings.Join(out, ", "))}}, nil
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

// noteSeats notes who is out, and since which epoch: the record has other seats than
// before, or members do.
func (l *Loop) noteSeats() {
	c := l.record.Load()
	l.out, l.seatsVersion = nil, versionOf(c.Seats)
	for id, m := range l.members {
		if l.seated(m) {
			continue
		}
		l.out = append(l.out, id)
		if m.outSince == 0 {
			m.outSince = c.Epoch
		}
	}
	slices.Sort(l.out)
}

// versionOf grows whenever seats change.
func versionOf(seats []uint32) (version uint64) {
	for _, v := range seats {
		version += uint64(v)
	}
	return version
}

// seatsEverywhere tells if the nodes of all shards that have a master were given the
// users of all seats.
func (l *Loop) seatsEverywhere() bool {
	c := l.record.Load()
	return !slices.ContainsFunc(c.Shards, func(s topology.Shard) bool { return s.Master != "" && l.seatsAt[s.ID] < l.seatsVersion })
}

// reseat gives a member that obeys its seat in the present version, when its user is
// everywhere or that takes too long.
func (l *Loop) reseat(s *stream) {
	for begun, ready := time.Now(), false; !ready && time.Since(begun) < reseatWithin; {
		if l.do(l.life, func() { ready = l.seatsEverywhere() }) != nil {
			return
		}
		if !ready {
			time.Sleep(2 * time.Millisecond)
		}
	}
	l.memberMu.Lock()
	defer l.memberMu.Unlock()
	var again store.Member
	s.with(func(m *member) {
		if !l.seated(m) {
			again = m.Member
		}
	})
	if again.ID == "" {
		return
	}
	seat, err := l.takeSeat(l.life, again.ID)
	if err == nil {
		again.Seat, again.SeatVersion = seat.Number, seat.Version
		err = l.cfg.Ownership.PutMember(l.life, again)
	}
	if err == nil {
		err = l.cfg.Faults.Hit("seats/given")
	}
	if err != nil {
		l.log.Warn("proxy gets its seat later", "proxy", again.ID, "error", err)
		return
	}
	s.with(func(m *member) {
		m.sit(again)
		l.noteSeats()
		s.offer(l.viewOf(m))
		l.checkWaiters()
	})
	l.log.Info("proxy obeys again and is let in", "proxy", again.ID)
}

// sit notes what the store says of a member that was given its seat.
func (m *member) sit(as store.Member) { m.Member, m.fenced, m.outSince = as, nil, 0 }

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
	if !done {
		cause := "proxies lost their seats and know the password of users with limits: " + strings.Join(out, ", ")
		if _, err := l.Commit(ctx, shard+": shuts out proxies", failover.BeginRotation(shard, newID(), cause, time.Now())); err != nil {
			return err
		}
		return x.Run(ctx)
	}
	return nil
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
		l.seatsAt[shard] = max(l.seatsAt[shard], versionOf(seats))
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
		if err == nil && len(ids) > 0 {
			ctx, cancel := context.WithTimeout(l.life, storeTimeout)
			err = l.cfg.Ownership.RemoveMembers(ctx, ids...)
			cancel()
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
		})
	})
}

// awaitFenced waits until members that were shut out are so at the servers of every
// shard, or obey again.
func (l *Loop) awaitFenced(ctx context.Context, members []string) error {
	giveUp := time.NewTimer(busyFor)
	defer giveUp.Stop()
	for {
		var open []string
		err := l.do(ctx, func() {
			for _, id := range members {
				if m := l.members[id]; m != nil && !l.seated(m) {
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

// seatsTick sees to the seats as a whole.
func (l *Loop) seatsTick(now time.Time) {
	l.endLeaving(now)
	l.forgetFenced()
	l.shutOutAbsent(now)
	if !l.growing && l.fewSeats() && l.record.Load().Phase != topology.Deleting {
		l.growing = true
		l.spawn(func() {
			if err := l.moreSeats(l.life); err != nil && l.life.Err() == nil {
				l.log.Warn("no seats for more proxies", "error", err)
				select {
				case <-time.After(retryAfter):
				case <-l.life.Done():
				}
			}
			l.later(func() { l.growing = false })
		})
	}
}

// awayTooLong is after how long a proxy that nothing was heard of is taken for
// gone: it is shut out and forgotten.
const awayTooLong = 10 * time.Minute

// shutOutAbsent shuts out proxies that have been away too long.
func (l *Loop) shutOutAbsent(now time.Time) {
	var gone []string
	for id, m := range l.members {
		if m.stream == nil && l.seated(m) && now.Sub(m.since) > awayTooLong {
			gone = append(gone, id)
			m.since = now // not again before that was tried
		}
	}
	if len(gone) == 0 {
		return
	}
	slices.Sort(gone)
	l.spawn(func() {
		if err := l.ShutOut(l.life, gone, false); err != nil && l.life.Err() == nil {
			l.log.Warn("proxies that are gone without a goodbye are not shut out yet", "proxies", gone, "error", err)
		}
	})
}

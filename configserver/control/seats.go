package control

import (
	"context"
	"errors"
	"slices"
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
	v := View{Common: l.view, Seat: m.seat()}
	if !m.alone {
		v.Proxies = l.proxies
	}
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

// noteSeats notes who is out, and since which epoch: the record has other seats than
// before, or members do.
func (l *Loop) noteSeats() {
	c := l.record.Load()
	l.out, l.seatsVersion = nil, versionOf(c.Seats)
	l.obs.Held = []int{} // not changed in place: others hold the one before
	for i, is := range l.takenSeats() {
		if is {
			l.obs.Held = append(l.obs.Held, i)
		}
	}
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

// seatsEverywhere tells if the nodes of all shards whose master answers were given the
// users of all seats.
func (l *Loop) seatsEverywhere() bool {
	now := time.Now()
	return !slices.ContainsFunc(l.record.Load().Shards, func(s topology.Shard) bool {
		m := s.MasterNode()
		return m != nil && l.seatsAt[s.ID] < l.seatsVersion && l.obs.Admitted(m, now)
	})
}

// reseatObedient gives those that are out and obey again their seats.
func (l *Loop) reseatObedient() {
	for _, id := range l.out {
		m := l.members[id]
		if m == nil || m.stream == nil || m.acked < m.outSince || m.reseating {
			continue
		}
		m.reseating = true
		s := m.stream
		l.spawn(func() {
			err := l.reseat(s)
			if err != nil && l.life.Err() == nil {
				l.log.Warn("a proxy that obeys again is let in later", "proxy", s.id, "error", err)
				l.pause(retryAfter)
			}
			l.later(func() { m.reseating = false })
		})
	}
}

// pause waits, unless the loop ends.
func (l *Loop) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.life.Done():
	}
}

// reseat gives a member its seat in the present version, when its user is everywhere
// or that takes too long.
func (l *Loop) reseat(s *stream) error {
	for begun, ready := time.Now(), false; !ready && time.Since(begun) < reseatWithin; l.pause(2 * time.Millisecond) {
		if err := l.do(l.life, func() { ready = l.seatsEverywhere() }); err != nil {
			return err
		}
		if ready {
			break
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
		return nil // it came back on another stream
	}
	seat, err := l.takeSeat(l.life, again.ID)
	if err != nil {
		return err
	}
	again.Seat, again.SeatVersion = seat.Number, seat.Version
	ctx, cancel := context.WithTimeout(l.life, storeTimeout)
	defer cancel()
	if err := l.cfg.Ownership.PutMember(ctx, again); err != nil {
		return err
	}
	if err := l.cfg.Faults.Hit("seats/given"); err != nil {
		return err
	}
	s.with(func(m *member) {
		m.sit(again)
		l.noteSeats()
		s.offer(l.viewOf(m))
		l.checkWaiters()
	})
	l.log.Info("proxy obeys again and is let in", "proxy", again.ID)
	return nil
}

// sit notes what the store says of a member that was given its seat.
func (m *member) sit(as store.Member) { m.Member, m.fenced, m.outSince, m.serving = as, nil, 0, false }

// seatsTick sees to the seats as a whole.
func (l *Loop) seatsTick(now time.Time) {
	l.endLeaving(now)
	l.forgetFenced()
	l.reseatObedient()
	l.shutOutAbsent(now)
	if !l.growing && l.fewSeats() && l.record.Load().Phase != topology.Deleting {
		l.growing = true
		l.spawn(func() {
			if err := l.moreSeats(l.life); err != nil && l.life.Err() == nil {
				l.log.Warn("no seats for more proxies", "error", err)
				l.pause(retryAfter)
			}
			l.later(func() { l.growing = false })
		})
	}
}

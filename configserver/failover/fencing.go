package failover

import (
	"context"
	"fmt"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Fencing: shut proxies out of a shard whose master lives.
//
// Goal: a proxy that lost its seat (Host.ShutOut) gets in nowhere in the shard, and
// no other proxy notices.
//
//  1. The seat has another version in the record since, so whatever gives users to a
//     node from then on gives none to that proxy.
//  2. Every node that can be reached switches the user of the version before off and
//     closes its connections. The master must have done it; a replica that cannot
//     be reached serves reads at most, and is put right before it is promoted
//     (makeMaster) or let take part again (Regrant, AdmitReplica).
//
// While there are users of applications with limits at the nodes, that is not enough:
// all proxies know their password. (To become such a user a proxy logs in by its seat
// first, so those that are made later are of no use to one that lost it; but it may
// have a connection as one of them.) The shard gets a new generation then, and all
// proxies connect to it anew.

// fenceShard is step 2 for a shard that is frozen.
func (x *Executor) fenceShard(ctx context.Context, s *topology.Shard, unacked []string) error {
	generation := s.Generation
	if len(x.host.NodeUsers()) > 0 {
		// Committed before it is granted: proxies try again to log in, and whoever goes
		// on from here, or goes back, knows of it.
		generation++
		err := x.commit(ctx, "fences proxies that do not ack", func(_ *topology.Cluster, s *topology.Shard, _ *topology.Operation) ([]topology.Event, error) {
			s.Generation = max(s.Generation, generation)
			return nil, nil
		})
		if err == nil {
			err = x.hit("generation-committed")
		}
		if err != nil {
			return err
		}
	}
	seats, err := x.onlySeats(ctx, s, generation)
	if err != nil {
		return err
	}
	x.missed(unacked)
	x.fenced = true
	x.host.Fenced(ctx, x.shard, seats, unacked)
	return nil
}

// ShutOut shuts members that lost their seats out of a shard at which nothing else is
// done. It returns false when that takes a new generation.
func (x *Executor) ShutOut(ctx context.Context, members []string) (bool, error) {
	if len(x.host.NodeUsers()) > 0 {
		return false, nil
	}
	r := x.host.Record()
	s := r.Shard(x.shard)
	if s == nil || s.Operation != nil || s.Master == "" {
		return false, ErrSuperseded
	}
	seats, err := x.onlySeats(ctx, s, s.Generation)
	if err == nil {
		x.host.Fenced(ctx, x.shard, seats, members)
	}
	return true, err
}

// MatchSeats gives the nodes of a shard the users of all seats, and takes those of
// before away.
func (x *Executor) MatchSeats(ctx context.Context) error {
	r := x.host.Record()
	s := r.Shard(x.shard)
	if s == nil || s.Operation != nil || s.Master == "" {
		return ErrSuperseded
	}
	sec, err := x.secretsOf(s.ID, s.SecretID, s.Generation)
	if err != nil {
		return err
	}
	return x.onlyProxies(ctx, s, &sec.proxies)
}

// onlySeats makes the nodes let in the proxies of a generation that have a seat, and
// nobody besides, not even for a moment. It returns the versions of the seats.
func (x *Executor) onlySeats(ctx context.Context, s *topology.Shard, generation uint64) ([]uint32, error) {
	sec, err := x.secretsOf(s.ID, s.SecretID, generation)
	if err != nil {
		return nil, err
	}
	sec = sec.urgent()
	sec.proxies.Alone = len(sec.users) == 0
	return sec.proxies.Seats, x.onlyProxies(ctx, s, &sec.proxies)
}

// onlyProxies makes the nodes let in just these proxies. The master must have done it.
func (x *Executor) onlyProxies(ctx context.Context, s *topology.Shard, p *redisadmin.Proxies) error {
	if err := x.host.Owned(); err != nil {
		return err
	}
	nodes := append(x.reachable(s, s.Master), *s.MasterNode())
	left := x.each(ctx, nodes, redisadmin.CallTimeout, func(ctx context.Context, _ *topology.Node, c *redisadmin.Conn) error {
		return c.OnlyProxies(ctx, p)
	})
	if err := left[s.Master]; err != nil {
		return fmt.Errorf("shut proxies out at the master: %w", err)
	}
	return nil
}

package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Rotation: put the credentials on file into force in one shard.
//
// Goal: afterwards nothing that knows only the old secrets can do anything, and
// no request fails on the way.
//
//  1. Granting: every node accepts the new admin password next to the old, the
//     replication user accepts both passwords, replicas will use the new one at
//     their next connect, and the proxies' users of generation+1 exist next to
//     those of the present generation.
//  2. A commit publishes generation+1. Proxies open new connections, end what is
//     in flight on the old ones, and ack.
//  3. Draining waits for them. A proxy that does not ack loses its seat, so that no
//     other shard waits for it, and is shut out of this one by step 4.
//  4. Finishing removes the old generation's users, the old replication password
//     and the old admin passwords.
//
// Every step can be repeated. A node that cannot be reached now is given the
// new users when it is back; it has to be started with the new admin password,
// or the old one has to stay on line 2 of its file until then. A failover in
// between takes the shard over, and the rotation is begun again after it.

// drainFor is how long a connected proxy gets to leave its old connections, on
// which a long command may still run.
const drainFor = 30 * time.Second

// BeginRotation is the change that begins a rotation of one shard, or of a
// shard that a proxy is to be shut out of that knows what others know, too
// (Executor.ShutOut).
func BeginRotation(shard, id, cause string, now time.Time) Change {
	return func(c *topology.Cluster) ([]topology.Event, error) {
		s, err := beginOn(c, shard)
		if err != nil {
			return nil, err
		}
		switch {
		case s.Operation != nil:
			return nil, s.Busy()
		case s.Master == "":
			return nil, topology.Preconditionf("%s has no master now; wait until it has one", shard)
		}
		s.Operation = &topology.Operation{ID: id, Kind: topology.Rotation, Phase: Granting, Cause: cause, StartedAt: now,
			StartEpoch: c.Epoch, OldMaster: s.Master, OldMasterOffset: -1}
		return nil, nil
	}
}

func (x *Executor) rotate(ctx context.Context, s *topology.Shard) error {
	switch phase := s.Operation.Phase; phase {
	case Granting:
		return x.grantNew(ctx, s)
	case Draining:
		x.enter(Draining)
		if err := x.hit("published"); err != nil {
			return err
		}
		// Nobody's requests are held meanwhile: one that looks for its Configserver
		// may find it.
		x.missed(x.host.AwaitAcks(ctx, x.shard, s.Operation.StartEpoch, drainFor, max(x.policy().AckTimeout, reconnect)))
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(x.unacked) > 0 {
			if err := x.host.ShutOut(ctx, x.unacked, true); err != nil {
				return err
			}
		}
		return x.commit(ctx, "rotation removes the old credentials", func(_ *topology.Cluster, _ *topology.Shard, op *topology.Operation) ([]topology.Event, error) {
			op.Phase = Finishing
			return nil, nil
		})
	case Finishing:
		return x.removeOld(ctx, s)
	default:
		return fmt.Errorf("rotation is in phase %q, which this version does not know", phase)
	}
}

// grantNew is steps 1 and 2.
func (x *Executor) grantNew(ctx context.Context, s *topology.Shard) error {
	x.enter(Granting)
	if err := x.hit("began"); err != nil {
		return err
	}
	if err := x.host.Owned(); err != nil {
		return err
	}
	set := x.host.Credentials()
	id, generation := set.SecretID(), s.Generation+1
	sec, err := x.secretsOf(s.ID, id, generation)
	if err != nil {
		return err
	}
	passwords := []string{sec.replication}
	if old, err := set.ReplicationPassword(s.SecretID, x.host.Record().UID, s.ID); err == nil && old != sec.replication {
		passwords = append(passwords, old)
	}
	nodes, err := x.withMaster(s)
	if err != nil {
		return err
	}
	left := x.each(ctx, nodes, redisadmin.CallTimeout, func(ctx context.Context, _ *topology.Node, c *redisadmin.Conn) error {
		return errors.Join(
			c.AllowAdmin(ctx, set.AdminPasswords()[0]),
			c.GrantReplication(ctx, passwords...),
			letProxiesIn(ctx, c, sec))
	})
	if err := failed(left); err != nil {
		return err // nothing depends on the new credentials yet: try again
	}
	// Only now, when every node accepts it, may a replica log in with the new one.
	left = x.each(ctx, nodes, redisadmin.CallTimeout, func(ctx context.Context, _ *topology.Node, c *redisadmin.Conn) error {
		return c.Config(ctx, "masterauth", sec.replication)
	})
	if err := failed(left); err != nil {
		return err
	}
	if err := x.hit("granted"); err != nil {
		return err
	}
	return x.commit(ctx, "rotation publishes the new credentials", func(c *topology.Cluster, s *topology.Shard, op *topology.Operation) ([]topology.Event, error) {
		s.Generation, s.SecretID = generation, id
		op.Phase, op.StartEpoch = Draining, c.Epoch
		return nil, nil
	})
}

// withMaster are the nodes that can be reached, if the master is one of them.
// Proxies could not log in with new credentials it does not have, and would not
// be shut out if it went on accepting the old ones.
func (x *Executor) withMaster(s *topology.Shard) ([]topology.Node, error) {
	nodes := x.reachable(s, "")
	if !slices.ContainsFunc(nodes, func(n topology.Node) bool { return n.ID == s.Master }) {
		return nil, fmt.Errorf("master %s does not answer now; without it nothing is rotated", s.Master)
	}
	return nodes, nil
}

// removeOld is step 4.
func (x *Executor) removeOld(ctx context.Context, s *topology.Shard) error {
	x.enter(Finishing)
	if err := x.hit("drained"); err != nil {
		return err
	}
	if err := x.host.Owned(); err != nil {
		return err
	}
	sec, err := x.secretsOf(s.ID, s.SecretID, s.Generation)
	if err != nil {
		return err
	}
	admin := x.host.Credentials().AdminPasswords()[0]
	nodes, err := x.withMaster(s)
	if err != nil {
		return err
	}
	left := x.each(ctx, nodes, redisadmin.CallTimeout, func(ctx context.Context, _ *topology.Node, c *redisadmin.Conn) error {
		return errors.Join(
			c.OnlyProxies(ctx, &sec.proxies),
			c.GrantReplication(ctx, sec.replication),
			c.OnlyAdmin(ctx, admin))
	})
	if err := failed(left); err != nil {
		return err
	}
	if len(x.unacked) > 0 {
		x.fenced = true
		x.host.Fenced(ctx, x.shard, sec.proxies.Seats, x.unacked)
	}
	err = x.commit(ctx, "rotation finished", func(c *topology.Cluster, s *topology.Shard, _ *topology.Operation) ([]topology.Event, error) {
		s.Operation = nil
		return []topology.Event{{Time: time.Now(), Kind: "CredentialsRotated", Severity: topology.Info, Shard: s.ID, Epoch: c.Epoch,
			Message: fmt.Sprintf("%s accepts proxies of generation %d only", s.ID, s.Generation)}}, nil
	})
	if err != nil {
		return err
	}
	x.enter("")
	return x.hit("finished")
}

// failed joins errors of nodes, in the order of their ids.
func failed(byNode map[string]error) error {
	ids := make([]string, 0, len(byNode))
	for id := range byNode {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, topology.CompareIDs)
	errs := make([]error, 0, len(ids))
	for _, id := range ids {
		errs = append(errs, fmt.Errorf("%s: %w", id, byNode[id]))
	}
	return errors.Join(errs...)
}

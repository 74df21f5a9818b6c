package failover

import (
	"context"
	"fmt"
	"time"

	"github.com/basalt-redis/basalt/configserver/parameters"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Admission: let one incarnation of a node take part.
//
// A server boots fenced: no user but the administrator's works. To admit it as
// a replica:
//
//  1. Its run_id is read on the one connection that is used throughout, so
//     that nothing below can hit a later, empty incarnation.
//  2. Whatever proxies' users it has are removed, with their connections: it may
//     be an old master that does not know yet.
//  3. The shard's master must be the incarnation that was admitted. A newcomer at
//     the master's address, which may be empty, gets no followers. (It could not
//     serve them either: its replication user does not exist.)
//  4. It gets its settings and is told to follow the master. From here on it
//     refuses writes.
//  5. Its run_id is committed as admitted.
//  6. Only then are the users switched on.
//
// A crash between any two steps leaves a fenced node that is admitted by whoever
// comes next.

// AdmitReplica makes a node a replica of its shard's master. It repeats nothing
// that is done already.
func (x *Executor) AdmitReplica(ctx context.Context, node string) error {
	s, n, err := x.find(node)
	if err != nil {
		return err
	}
	master := s.MasterNode()
	if master == nil || s.Operation != nil {
		return topology.Preconditionf("%s has no settled master now", s.ID)
	}
	if node == s.Master {
		return topology.Preconditionf("%s is the master of %s", node, s.ID)
	}
	sec, err := x.secretsOf(s.ID, s.SecretID, s.Generation)
	if err != nil {
		return err
	}
	c, err := x.dialFenced(ctx, n.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	wasMaster := c.Info.Master
	old := n.Incarnation == c.Info.RunID
	m, err := x.dialAdmitted(ctx, master)
	if err != nil {
		return fmt.Errorf("master %s: %w", master.ID, err)
	}
	defer m.Close()
	if !m.Info.Master {
		return topology.Preconditionf("%s is not a master now", master.ID)
	}
	if err := m.GrantReplication(ctx, sec.replication); err != nil {
		return err
	}
	if err := configure(ctx, c, x.host.Record(), sec.replication); err != nil {
		return err
	}
	if wasMaster || c.Info.MasterAddress != master.Address {
		if err := c.Follow(ctx, master.Address); err != nil {
			return err
		}
	}
	return x.admit(ctx, c, sec, node, func(r *topology.Cluster) ([]topology.Event, error) {
		s := r.Shard(x.shard)
		if r.Phase == topology.Deleting || s == nil || s.Node(node) == nil || s.Master != master.ID || s.MasterNode().Incarnation != master.Incarnation || s.Generation != sec.generation {
			return nil, ErrSuperseded
		}
		n := s.Node(node)
		n.Incarnation, n.InReadSet = c.Info.RunID, n.InReadSet && old && !wasMaster
		e := topology.Event{Time: time.Now(), Kind: "NodeAdmitted", Severity: topology.Info, Shard: s.ID, Node: node, Epoch: r.Epoch,
			Message: fmt.Sprintf("%s is admitted as a replica of %s", node, master.ID)}
		if wasMaster && old {
			e.Kind = "OldMasterReturned"
			e.Message = fmt.Sprintf("%s still was a master: it was fenced and is a replica of %s now; what it had written alone (it stood at offset %d) is discarded",
				node, master.ID, c.Info.Offset)
		}
		return []topology.Event{e}, nil
	})
}

// AdmitMaster makes the first node of a forming shard its master. It may hold
// data, which then is the shard's.
func (x *Executor) AdmitMaster(ctx context.Context, node string) error {
	s, n, err := x.find(node)
	if err != nil {
		return err
	}
	id := s.SecretID
	if id == "" {
		id = x.host.Credentials().SecretID()
	}
	sec, err := x.secretsOf(s.ID, id, s.Generation)
	if err != nil {
		return err
	}
	c, err := x.dialFenced(ctx, n.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := configure(ctx, c, x.host.Record(), sec.replication); err != nil {
		return err
	}
	if err := c.Promote(ctx); err != nil {
		return err
	}
	return x.admit(ctx, c, sec, node+" as master", func(r *topology.Cluster) ([]topology.Event, error) {
		s := r.Shard(x.shard)
		if r.Phase != topology.Forming || s == nil || s.Node(node) == nil || s.Master != "" || s.Operation != nil || s.Generation != sec.generation {
			return nil, ErrSuperseded
		}
		n := s.Node(node)
		n.Incarnation, n.InReadSet = c.Info.RunID, n.Readable
		s.Master, s.SecretID = node, id
		return []topology.Event{{Time: time.Now(), Kind: "NodeAdmitted", Severity: topology.Info, Shard: s.ID, Node: node, Epoch: r.Epoch,
			Message: fmt.Sprintf("%s is admitted as the master of %s", node, s.ID)}}, nil
	})
}

// admit is steps 5 and 6.
func (x *Executor) admit(ctx context.Context, c *redisadmin.Conn, sec secrets, whom string, change Change) error {
	if _, err := x.host.Commit(ctx, x.shard+": admits "+whom, change); err != nil {
		return err
	}
	if err := x.host.Owned(); err != nil {
		return err
	}
	return grant(ctx, c, sec)
}

// Regrant puts settings and users of an admitted node right, without touching
// its role.
func (x *Executor) Regrant(ctx context.Context, node string) error {
	s, n, err := x.find(node)
	if err != nil {
		return err
	}
	sec, err := x.secretsOf(s.ID, s.SecretID, s.Generation)
	if err != nil {
		return err
	}
	c, err := x.dialAdmitted(ctx, n)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := x.host.Owned(); err != nil {
		return err
	}
	if err := configure(ctx, c, x.host.Record(), sec.replication); err != nil {
		return err
	}
	if r := x.host.Record(); r.Shard(x.shard) == nil || r.Shard(x.shard).Generation != sec.generation {
		return ErrSuperseded
	}
	return grantOnly(ctx, c, sec)
}

// Dismiss fences a node that left the cluster: nobody but the administrator
// gets in, and it follows nobody.
func (x *Executor) Dismiss(ctx context.Context, n *topology.Node) error {
	c, err := x.dialFenced(ctx, n.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Promote(ctx); err != nil {
		return err
	}
	if err := c.RevokeReplication(ctx); err != nil {
		return err
	}
	return c.Config(ctx, "masteruser", "", "masterauth", "")
}

// SetMinReplicas sets min-replicas-to-write of a shard's master.
func (x *Executor) SetMinReplicas(ctx context.Context, n *topology.Node, count int) error {
	c, err := x.dialAdmitted(ctx, n)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := x.host.Owned(); err != nil {
		return err
	}
	return c.Config(ctx, parameters.MinReplicas, fmt.Sprint(count))
}

// dialFenced connects to whatever incarnation is at an address now, and takes
// proxies' users from it, with their connections: steps 1 and 2. Close the
// connection.
func (x *Executor) dialFenced(ctx context.Context, address string) (*redisadmin.Conn, error) {
	c, err := redisadmin.Dial(ctx, address, x.host.Credentials().AdminPasswords())
	if err != nil {
		return nil, err
	}
	x.guard(ctx, c)
	if err = x.host.Owned(); err == nil {
		_, err = c.RevokeProxies(ctx, nil)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// dialAdmitted connects to the admitted incarnation of a node, for as long as
// ctx. Close the connection; those of an operation are kept (conn).
func (x *Executor) dialAdmitted(ctx context.Context, n *topology.Node) (*redisadmin.Conn, error) {
	c, err := redisadmin.DialIncarnation(ctx, n.Address, x.host.Credentials().AdminPasswords(), n.Incarnation)
	if err != nil {
		return nil, err
	}
	return x.guard(ctx, c), nil
}

// find returns copies of what the record says about a node now.
func (x *Executor) find(node string) (*topology.Shard, *topology.Node, error) {
	r := x.host.Record()
	s := r.Shard(x.shard)
	if s == nil || s.Node(node) == nil {
		return nil, nil, fmt.Errorf("node %s in %s: %w", node, x.shard, store.ErrNotFound)
	}
	return s, s.Node(node), nil
}

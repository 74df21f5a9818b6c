package failover

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
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
//  1. Who it is, is judged on the one connection that is used throughout
//     (health.Stranger): nothing below can hit another server, or a later, empty
//     incarnation. A stranger is left as it is.
//  2. Whatever proxies' users it has are removed, with their connections: it may
//     be an old master that does not know yet. That only takes rights away.
//  3. The shard's master must be the incarnation that was admitted. A newcomer at
//     the master's address, which may be empty, gets no followers. (It could not
//     serve them either: its replication user does not exist.)
//     One that cannot load the master's data gets no further (copies.go).
//  4. What it may have written alone is kept aside (diverged.go), before anything can
//     replace it.
//  5. Its run_id is committed as admitted, with where it answers, and not in sync.
//  6. Only then it is changed: it gets its mark and its settings, is told to follow
//     the master, which refuses it writes, and its users are switched on.
//
// A crash between 5 and the end leaves an admitted node that lacks its users or does
// not follow: the probes see that, and admission is repeated.

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
	c, err := x.dialNode(ctx, s, n)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.RevokeProxies(ctx, nil); err != nil {
		return err
	}
	m, err := x.dialAdmitted(ctx, master)
	if err != nil {
		return fmt.Errorf("master %s: %w", master.ID, err)
	}
	defer m.Close()
	if !m.Info.Master {
		return topology.Preconditionf("%s is not a master now", master.ID)
	}
	if why := CannotCopy(&c.Info, &m.Info); why != "" && (c.Info.Master || c.Info.MasterAddress != master.Endpoint()) {
		return topology.Preconditionf("%s %s", n.ID, why)
	}
	if err := x.keepDiverged(ctx, c, s, n); err != nil {
		return err
	}
	if err := x.host.Faults().Hit("admission/judged"); err != nil {
		return err
	}
	was := c.Info
	if err := x.commitReplica(ctx, c, s, n, master, sec.generation); err != nil {
		return err
	}
	if err := x.host.Faults().Hit("admission/committed"); err != nil {
		return err
	}
	if err := x.host.Owned(); err != nil {
		return err
	}
	if err := m.GrantReplication(ctx, sec.replication); err != nil {
		return err
	}
	if err := configure(ctx, c, x.host.Record(), node, sec.replication); err != nil {
		return err
	}
	if err := x.host.Faults().Hit("admission/configured"); err != nil {
		return err
	}
	if was.Master || was.MasterAddress != master.Endpoint() {
		if err := c.Follow(ctx, master.Endpoint()); err != nil {
			return err
		}
	}
	return grant(ctx, c, sec)
}

// commitReplica is step 5; nothing when the record says it already, as after an
// attempt that ended there.
func (x *Executor) commitReplica(ctx context.Context, c *redisadmin.Conn, s *topology.Shard, n, master *topology.Node, generation uint64) error {
	was := c.Info
	unmarked, err := x.unmarked(ctx, c, s, n)
	if err != nil {
		return err
	}
	admitted := func(n *topology.Node) topology.Node {
		next := n.Clone()
		next.InReadSet = n.InReadSet && n.Incarnation == was.RunID && !was.Master
		admit(&next, &was, c.Remote(), time.Now())
		next.Unmarked, next.History = unmarked, s.History().ReplID
		return next
	}
	if next := admitted(n); reflect.DeepEqual(next, n.Clone()) {
		return nil
	}
	_, err = x.host.Commit(ctx, x.shard+": admits "+n.ID, func(r *topology.Cluster) ([]topology.Event, error) {
		s := r.Shard(x.shard)
		if r.Phase == topology.Deleting || s == nil || s.Node(n.ID) == nil || s.Operation != nil || s.Master != master.ID ||
			s.MasterNode().Incarnation != master.Incarnation || s.Generation != generation {
			return nil, ErrSuperseded
		}
		n := s.Node(n.ID)
		old := n.Incarnation == was.RunID
		*n = admitted(n)
		e := topology.Event{Time: time.Now(), Kind: "NodeAdmitted", Severity: topology.Info, Shard: s.ID, Node: n.ID, Epoch: r.Epoch,
			Message: fmt.Sprintf("%s is admitted as a replica of %s", n.ID, master.ID)}
		if was.Master && old {
			e.Kind = "OldMasterReturned"
			e.Message = fmt.Sprintf("%s still was a master: it was fenced and is a replica of %s now", n.ID, master.ID)
		}
		return []topology.Event{e}, nil
	})
	return err
}

// AdmitMaster makes the first node of a forming shard its master. It may hold
// data, which then is the shard's. Its incarnation is committed before anything is
// done to it; that it is the master, when it is one.
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
	c, err := x.dialNode(ctx, s, n)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.RevokeProxies(ctx, nil); err != nil {
		return err
	}
	unmarked, err := x.unmarked(ctx, c, s, n)
	if err != nil {
		return err
	}
	unsettled := func(r *topology.Cluster, s *topology.Shard) bool {
		return r.Phase != topology.Forming || s == nil || s.Node(node) == nil || s.Master != "" || s.Operation != nil || s.Generation != sec.generation
	}
	_, err = x.host.Commit(ctx, x.shard+": admits "+node, func(r *topology.Cluster) ([]topology.Event, error) {
		s := r.Shard(x.shard)
		if unsettled(r, s) {
			return nil, ErrSuperseded
		}
		admit(s.Node(node), &c.Info, c.Remote(), time.Now())
		s.Node(node).Unmarked = unmarked
		return nil, nil
	})
	if err != nil {
		return err
	}
	if err := x.host.Faults().Hit("admission/committed"); err != nil {
		return err
	}
	if err := x.host.Owned(); err != nil {
		return err
	}
	if err := configure(ctx, c, x.host.Record(), node, sec.replication); err != nil {
		return err
	}
	if err := c.Promote(ctx); err != nil {
		return err
	}
	info, err := c.Replication(ctx)
	if err != nil {
		return err
	}
	_, err = x.host.Commit(ctx, x.shard+": "+node+" is master", func(r *topology.Cluster) ([]topology.Event, error) {
		s := r.Shard(x.shard)
		if unsettled(r, s) || s.Node(node).Incarnation != info.RunID {
			return nil, ErrSuperseded
		}
		n := s.Node(node)
		n.InReadSet, n.InSync, n.Out, n.History = n.Readable, true, nil, info.ReplID
		s.Master, s.SecretID = node, id
		s.Continue(topology.History{ReplID: info.ReplID, Start: -1})
		return []topology.Event{{Time: time.Now(), Kind: "NodeAdmitted", Severity: topology.Info, Shard: s.ID, Node: node, Epoch: r.Epoch,
			Message: fmt.Sprintf("%s is admitted as the master of %s", node, s.ID)}}, nil
	})
	if err != nil {
		return err
	}
	if err := x.host.Owned(); err != nil {
		return err
	}
	return grant(ctx, c, sec)
}

// admit notes in a record that an incarnation of a node is admitted, and where it
// answers, which says nothing about what it has.
func admit(n *topology.Node, info *redisadmin.Info, endpoint string, now time.Time) {
	if n.InSync {
		why := "it was admitted anew"
		if n.Incarnation != info.RunID {
			why = "it restarted"
		}
		n.Out = &topology.OutOfSync{Since: now.UTC().Round(time.Microsecond), Why: why, Offset: -1, MasterOffset: -1}
	}
	n.Incarnation, n.InSync, n.Discard = info.RunID, false, ""
	n.ReachedAt(endpoint)
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
	if err := configure(ctx, c, x.host.Record(), node, sec.replication); err != nil {
		return err
	}
	if r := x.host.Record(); r.Shard(x.shard) == nil || r.Shard(x.shard).Generation != sec.generation {
		return ErrSuperseded
	}
	return grantOnly(ctx, c, sec)
}

// Dismiss fences a node that left the cluster: nobody but the administrator
// gets in, and it follows nobody. Another process than the admitted one is left as it
// is: one that restarted is fenced by that, and any other is none of ours.
func (x *Executor) Dismiss(ctx context.Context, n *topology.Node) error {
	if n.Incarnation == "" {
		return nil // it was never changed
	}
	c, err := x.dialAdmitted(ctx, n)
	if errors.Is(err, redisadmin.ErrIncarnation) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.RevokeProxies(ctx, nil); err != nil {
		return err
	}
	if err := c.Promote(ctx); err != nil {
		return err
	}
	if err := c.RevokeReplication(ctx); err != nil {
		return err
	}
	if err := c.Config(ctx, "masteruser", "", "masterauth", ""); err != nil {
		return err
	}
	return c.SetMark(ctx, "")
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

// ErrStranger: another server than the node answers at its address; it is not touched.
var ErrStranger = errors.New("another server answers")

// dialNode connects to whatever incarnation is at a node's address now, if it is the
// node: step 1. Close the connection.
func (x *Executor) dialNode(ctx context.Context, s *topology.Shard, n *topology.Node) (*redisadmin.Conn, error) {
	c, err := x.dial(ctx, n)
	if err != nil {
		return nil, err
	}
	x.guard(ctx, c)
	if err := x.judge(ctx, c, s, n); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// judge fails when the server behind a connection is not the node.
func (x *Executor) judge(ctx context.Context, c *redisadmin.Conn, s *topology.Shard, n *topology.Node) error {
	if err := x.host.Owned(); err != nil {
		return err
	}
	users, err := c.Users(ctx)
	if err != nil {
		return err
	}
	record := x.host.Record()
	if problem := health.Stranger(&record, s, n, &c.Info, users); problem != "" {
		return fmt.Errorf("%s: %w: %s", n.ID, ErrStranger, problem)
	}
	if c.Info.Loading {
		return fmt.Errorf("%s is loading its data", n.ID) // what it holds is not known yet
	}
	if c.Info.RunID == n.Incarnation {
		return nil
	}
	elsewhere, err := x.host.Elsewhere(ctx, c.Info.RunID)
	if err == nil && elsewhere != "" {
		err = fmt.Errorf("%s: %w: %s", n.ID, ErrStranger, elsewhere)
	}
	return err
}

// unmarked tells if a server that is to be admitted does not say by itself which node
// it is; of one that was admitted, what was found then.
func (x *Executor) unmarked(ctx context.Context, c *redisadmin.Conn, s *topology.Shard, n *topology.Node) (bool, error) {
	if c.Info.RunID == n.Incarnation {
		return n.Unmarked, nil // Basalt has marked it
	}
	users, err := c.Users(ctx)
	record := x.host.Record()
	return !slices.Contains(users, topology.Mark(&record, s.ID, n.ID)), err
}

// dialAdmitted connects to the admitted incarnation of a node, for as long as
// ctx. Close the connection; those of an operation are kept (conn).
func (x *Executor) dialAdmitted(ctx context.Context, n *topology.Node) (*redisadmin.Conn, error) {
	c, err := redisadmin.DialIncarnation(ctx, n.Endpoint(), x.host.AdminPasswords(n.ID), n.Incarnation)
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

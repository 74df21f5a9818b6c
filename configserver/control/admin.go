package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/resolve"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/acl"
)

// UpdatePolicy implements API.
func (l *Loop) UpdatePolicy(ctx context.Context, p topology.Policy) (topology.Cluster, error) {
	if err := p.Validate(); err != nil {
		return topology.Cluster{}, err
	}
	return l.Commit(ctx, "policy changed", func(c *topology.Cluster) ([]topology.Event, error) {
		c.Policy = p
		return nil, nil
	})
}

// SetMaintenance implements API.
func (l *Loop) SetMaintenance(ctx context.Context, shard string, length time.Duration, reason string) (topology.Cluster, error) {
	return l.Commit(ctx, "maintenance", func(c *topology.Cluster) ([]topology.Event, error) {
		if shard != "" && c.Shard(shard) == nil {
			return nil, fmt.Errorf("shard %s: %w", shard, store.ErrNotFound)
		}
		now := time.Now().UTC()
		e := topology.Event{Time: now, Kind: "MaintenanceEnded", Severity: topology.Info, Shard: shard, Epoch: c.Epoch, Message: "masters that are lost are replaced again"}
		if length > 0 {
			e.Kind, e.Severity = "MaintenanceBegan", topology.Warning
			e.Message = fmt.Sprintf("masters that are lost are not replaced until %s: %s", now.Add(length).Format(time.RFC3339), cmp.Or(reason, "no reason was given"))
		}
		c.SetMaintenance(topology.Maintenance{Shard: shard, Since: now, Until: now.Add(length), Reason: reason}, now)
		return []topology.Event{e}, nil
	})
}

// SetReadable implements API.
func (l *Loop) SetReadable(ctx context.Context, node string, readable bool) (topology.Cluster, error) {
	word := map[bool]string{true: "may serve reads", false: "may not serve reads"}[readable]
	return l.Commit(ctx, node+" "+word, func(c *topology.Cluster) ([]topology.Event, error) {
		_, n := c.Node(node)
		if n == nil {
			return nil, fmt.Errorf("node %s: %w", node, store.ErrNotFound)
		}
		n.Readable = readable
		n.InReadSet = n.InReadSet && readable // back in when it is seen to be in sync
		return nil, nil
	})
}

// RegisterNode implements API. A node that is registered in the same way
// already is left alone.
func (l *Loop) RegisterNode(ctx context.Context, shard string, n topology.Node, discardData bool) (topology.Cluster, error) {
	if err := errors.Join(topology.ValidName("shard", shard), topology.ValidName("node", n.ID), topology.ValidAddress("address", n.Address)); err != nil {
		return topology.Cluster{}, err
	}
	n.Incarnation, n.Resolved, n.InReadSet = "", "", false
	now := l.Topology()
	if s, is := now.Node(n.ID); is != nil && s.ID == shard && is.Address == n.Address {
		if !discardData {
			return now, nil
		}
		return l.discard(ctx, s, is)
	}
	if err := mayRegister(&now, shard, &n); err != nil {
		return topology.Cluster{}, err
	}
	info, err := l.inspect(ctx, shard, &n, discardData)
	if err != nil {
		return topology.Cluster{}, err
	}
	return l.Commit(ctx, fmt.Sprintf("%s: registers %s", shard, n.ID), func(c *topology.Cluster) ([]topology.Event, error) {
		if err := mayRegister(c, shard, &n); err != nil {
			return nil, err
		}
		s := c.Shard(shard)
		becomesMaster := c.Phase == topology.Forming && (s == nil || len(s.Nodes) == 0)
		if !becomesMaster && info.Keys > 0 && !discardData {
			return nil, topology.Preconditionf("%s at %s holds %d keys, which it loses when it becomes a replica of %s: "+
				"empty it first, or register it with discard_data", n.ID, n.Address, info.Keys, shard)
		}
		if s == nil {
			s = c.AddShard(shard)
		}
		if discardData {
			n.Discard = info.RunID
		}
		s.Nodes = append(s.Nodes, n)
		return []topology.Event{{Time: time.Now(), Kind: "NodeRegistered", Severity: topology.Info, Shard: shard, Node: n.ID, Epoch: c.Epoch,
			Message: fmt.Sprintf("%s at %s is registered in %s", n.ID, n.Address, shard)}}, nil
	})
}

// discard lets the server that is at a registered node's address now be admitted,
// whatever data it holds. It is about that process only.
func (l *Loop) discard(ctx context.Context, s *topology.Shard, n *topology.Node) (topology.Cluster, error) {
	if n.ID == s.Master || s.Operation != nil && s.Operation.OldMaster == n.ID {
		return topology.Cluster{}, topology.Preconditionf("%s is the master of %s, so its data is the shard's: make another node the master first "+
			"(`basaltctl failover %s %s`, with --accept-loss if none is in sync)", n.ID, s.ID, l.cfg.Cluster, s.ID)
	}
	info, err := l.inspect(ctx, s.ID, n, true)
	if err != nil || info.RunID == n.Incarnation {
		return l.Topology(), err // it is the node, and well: there is nothing to allow
	}
	id := n.ID
	return l.Commit(ctx, fmt.Sprintf("%s: the data of the server at %s may be discarded", id, n.Address), func(c *topology.Cluster) ([]topology.Event, error) {
		s, n := c.Node(id)
		if n == nil || id == s.Master {
			return nil, fmt.Errorf("replica %s: %w", id, store.ErrNotFound)
		}
		n.Discard = info.RunID
		return nil, nil
	})
}

// mayRegister checks a registration against a record.
func mayRegister(c *topology.Cluster, shard string, n *topology.Node) error {
	if c.Phase == topology.Deleting {
		return topology.Preconditionf("cluster %s is being deleted", c.Name)
	}
	if s, is := c.Node(n.ID); is != nil {
		return topology.Invalidf("node", "%s is registered in %s with address %s: deregister it first", n.ID, s.ID, is.Address)
	}
	s := c.Shard(shard)
	switch {
	case s == nil && c.Phase != topology.Forming:
		return fmt.Errorf("shard %s: %w", shard, store.ErrNotFound)
	case s == nil && len(c.Shards) >= c.WantShards:
		return topology.Invalidf("shard", "%s would be one more than the %d shards of cluster %s", shard, c.WantShards, c.Name)
	case s != nil && len(s.Nodes) >= topology.MaxNodes:
		return topology.Preconditionf("%s has %d nodes, which is the most a shard can have", shard, len(s.Nodes))
	}
	return nil
}

// inspect looks at a server that is about to be registered.
func (l *Loop) inspect(ctx context.Context, shard string, n *topology.Node, discardData bool) (redisadmin.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := l.dial(ctx, n)
	if errors.Is(err, redisadmin.ErrPassword) && l.reread(ctx) == nil {
		conn, err = l.dial(ctx, n)
	}
	if err != nil {
		_, detail := redisadmin.SightOf(err)
		return redisadmin.Info{}, topology.Preconditionf("%s at %s: %s; start the server and see that it can be reached from the Configserver, then try again",
			n.ID, n.Address, detail)
	}
	defer conn.Close()
	def, err := conn.DefaultUser(ctx)
	var users []string
	if err == nil {
		users, err = conn.Users(ctx)
	}
	switch {
	case err != nil:
		return redisadmin.Info{}, topology.Preconditionf("%s at %s does not answer: %v", n.ID, n.Address, err)
	case def.Problem() != "":
		return redisadmin.Info{}, topology.Preconditionf("%s at %s %s", n.ID, n.Address, def.Problem())
	case conn.Info.Mode != "standalone":
		return redisadmin.Info{}, topology.Preconditionf("%s at %s runs in %s mode: put \"cluster-enabled no\" in its configuration and restart it",
			n.ID, n.Address, conn.Info.Mode)
	}
	if err := l.mayCopy(ctx, shard, n, &conn.Info); err != nil {
		return redisadmin.Info{}, err
	}
	elsewhere, err := l.Elsewhere(ctx, conn.Info.RunID)
	if err != nil {
		return redisadmin.Info{}, err
	}
	if elsewhere != "" {
		return redisadmin.Info{}, topology.Preconditionf("the server at %s is %s: deregister it there first", n.Address, elsewhere)
	}
	c := l.Topology()
	if u := topology.OtherMark(users, topology.Mark(&c, shard, n.ID)); u != "" && !discardData {
		return redisadmin.Info{}, topology.Preconditionf("the server at %s says it is %s: deregister it there, and take the line \"user %s off\" out of its configuration, "+
			"or register it with discard_data to make it another node", n.Address, strings.TrimPrefix(u, topology.MarkPrefix), u)
	}
	if slices.ContainsFunc(users, credentials.IsProxyUser) && !discardData {
		return redisadmin.Info{}, topology.Preconditionf("%s at %s lets proxies of a cluster in already: deregister it there or restart it, "+
			"or register it with discard_data to take it away from them", n.ID, n.Address)
	}
	return conn.Info, nil
}

// mayCopy fails when a server that is about to be registered could not load what the
// shard's master, or the node that is to become it, would send.
func (l *Loop) mayCopy(ctx context.Context, shard string, n *topology.Node, info *redisadmin.Info) error {
	c := l.Topology()
	s := c.Shard(shard)
	if s == nil || len(s.Nodes) == 0 {
		return nil // it becomes the master
	}
	master := cmp.Or(s.Master, s.Nodes[0].ID)
	var from redisadmin.Info
	if err := l.do(ctx, func() { from = l.obs.Nodes[master].Info }); err != nil {
		return err
	}
	if why := failover.CannotCopy(info, &from); why != "" && master != n.ID {
		return topology.Preconditionf("%s at %s is to follow %s: it %s", n.ID, n.Address, master, why)
	}
	return nil
}

// dial connects to whoever is at the address of a node that is not registered yet.
func (l *Loop) dial(ctx context.Context, n *topology.Node) (*redisadmin.Conn, error) {
	passwords := l.Credentials().AdminPasswords()
	place, err := resolve.Locate(ctx, l.cfg.Resolve, n, passwords)
	if err != nil {
		return nil, err
	}
	return redisadmin.Dial(ctx, place.Endpoint, passwords)
}

// DeregisterNode implements API.
func (l *Loop) DeregisterNode(ctx context.Context, node string) (topology.Cluster, error) {
	now := l.Topology()
	s, _ := now.Node(node)
	if s == nil {
		return topology.Cluster{}, fmt.Errorf("node %s: %w", node, store.ErrNotFound)
	}
	shard := s.ID
	var result topology.Cluster
	err := l.exclusive(ctx, shard, "deregister", false, func(ctx context.Context, x *failover.Executor) error {
		var gone topology.Node
		c, err := l.Commit(ctx, fmt.Sprintf("%s: deregisters %s", shard, node), func(c *topology.Cluster) ([]topology.Event, error) {
			s, n := c.Node(node)
			switch {
			case n == nil:
				return nil, fmt.Errorf("node %s: %w", node, store.ErrNotFound)
			case s.Master == node:
				return nil, topology.Preconditionf("%s is the master of %s: switch over to another node first", node, s.ID)
			case s.Operation != nil:
				return nil, s.Busy()
			case s.Master == "" && s.Nodes[0].ID == node && len(s.Nodes) > 1:
				return nil, topology.Preconditionf("%s is about to become the master of %s; wait until it is", node, s.ID)
			}
			gone = *n
			s.Nodes = slices.DeleteFunc(s.Nodes, func(n topology.Node) bool { return n.ID == node })
			return []topology.Event{{Time: time.Now(), Kind: "NodeDeregistered", Severity: topology.Info, Shard: s.ID, Node: node, Epoch: c.Epoch,
				Message: fmt.Sprintf("%s at %s left %s", node, gone.Address, s.ID)}}, nil
		})
		if err != nil {
			return err
		}
		result = c
		timeout := c.Policy.AckTimeout
		l.AwaitAcks(ctx, shard, c.Epoch, timeout, timeout)
		l.dismiss(ctx, x, &gone, shard)
		return nil
	})
	return result, err
}

// dismiss fences a node that left, and tells if that was not possible.
func (l *Loop) dismiss(ctx context.Context, x *failover.Executor, n *topology.Node, shard string) {
	bounded, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := x.Dismiss(bounded, n)
	if err == nil || ctx.Err() != nil {
		return
	}
	_, detail := redisadmin.SightOf(err)
	l.log.Warn("node left without being fenced", "shard", shard, "node", n.ID, "error", err)
	l.Tell(ctx, topology.Event{Time: time.Now(), Kind: "NodeNotFenced", Severity: topology.Warning, Shard: shard, Node: n.ID, Epoch: l.Topology().Epoch,
		Message: fmt.Sprintf("%s at %s could not be fenced when it left (%s): stop the server or restart it, a restart fences it", n.ID, n.Address, detail)})
}

// busyFor is how long a call waits for its turn at a shard.
const busyFor = 10 * time.Second

// exclusive runs f as the only activity of a shard, after the one that is
// running now has ended, and returns its error. The caller may go away; f
// goes on.
func (l *Loop) exclusive(ctx context.Context, shard, name string, yields bool, f func(ctx context.Context, x *failover.Executor) error) error {
	if err := l.do(ctx, func() { l.reserved[shard]++ }); err != nil {
		return err
	}
	release := func() { _ = l.do(context.WithoutCancel(ctx), func() { l.reserved[shard]-- }) }
	result := make(chan error, 1)
	giveUp := time.NewTimer(busyFor)
	defer giveUp.Stop()
	for {
		var running *activity
		err := l.do(ctx, func() {
			if running = l.activities[shard]; running == nil {
				l.start(shard, name, yields, func(doing context.Context, x *failover.Executor) error {
					err := f(AskedBy(doing, Asker(ctx)), x)
					result <- err
					if isRefusal(err) {
						return nil // the caller is told; nothing is left to be tried again
					}
					return err
				})
			}
		})
		if err != nil || running == nil {
			release()
			if err != nil {
				return err
			}
			break
		}
		select {
		case <-running.done:
			// Its end is noted on the loop's goroutine right after.
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
		case <-giveUp.C:
			release()
			return topology.Preconditionf("%s is busy (%s); try again when that has ended", shard, running.name)
		case <-ctx.Done():
			release()
			return ctx.Err()
		}
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-l.stopped:
		select {
		case err := <-result:
			return err
		default:
			return l.why()
		}
	}
}

// isRefusal tells if an error is an answer to a caller, and not trouble.
func isRefusal(err error) bool {
	var precondition *topology.PreconditionError
	var invalid *topology.InvalidError
	var rule *acl.Error
	return errors.As(err, &precondition) || errors.As(err, &invalid) || errors.As(err, &rule) || errors.Is(err, store.ErrNotFound)
}

package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/lifecycle"
)

// The users of applications at the nodes (redisadmin.NodeUser), for the scripts of
// users with limits.
//
// Goal: every node that lets proxies in has exactly those that the newest users ask
// for.
//
//  1. A node gets them with the proxies' own user: when it is admitted or promoted,
//     and when credentials are rotated.
//  2. A change of users is committed; then the nodes that answer get the users that
//     they miss, while proxies acknowledge. The caller waits for both.
//  3. The probes list the users of each node. Whatever a node misses (it was away, or
//     a Configserver died between the commit and here) it gets by that, also from an
//     owner that knows nothing of before. Nothing has to be remembered.
//  4. What nobody needs any more is removed by the same comparison, but only when
//     every proxy obeys the newest users and a moment has passed: a proxy that does
//     not may still run a script, and is shut out by other means if it stays so.
//
// A proxy asks a node for rights by their name, so a node that has the users of
// before, because it cannot be reached from here, gives nobody the rights of before.
// Scripts of the users concerned wait there until it has them.

const (
	// usersPush bounds how long a change of users waits for the nodes.
	usersPush = 2 * time.Second
	// usersKept is how long users that nobody needs stay at the nodes at least, for
	// scripts that were begun before.
	usersKept = time.Second
	// pushAtOnce is how many shards get users at the same time.
	pushAtOnce = 32
)

// NodeUsers implements failover.Host.
func (l *Loop) NodeUsers() []redisadmin.NodeUser { return l.nodeUsers.Load().want }

// nodeUsers are the users that nodes should have. They never change.
type nodeUsers struct {
	want []redisadmin.NodeUser
	// epoch of the record that they are of; since when they are known here.
	epoch uint64
	since time.Time
}

// wantUsers finds what nodes should have by a record that is about to be the newest.
func (l *Loop) wantUsers(c *topology.Cluster, before *topology.Cluster) {
	if l.nodeUsers.Load() != nil && slices.Equal(before.Users, c.Users) {
		return
	}
	var texts []string
	for _, u := range c.EffectiveUsers(nil) {
		texts = append(texts, u.Rules)
	}
	l.nodeUsers.Store(&nodeUsers{want: redisadmin.NodeUsers(texts), epoch: c.Epoch, since: time.Now()})
}

// pushUsers gives the nodes that answer the users that they miss. Shards at which
// something else is being done, and nodes that do not answer, get them later.
func (l *Loop) pushUsers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, usersPush)
	defer cancel()
	var shards []string
	nodes := map[string][]topology.Node{}
	_ = l.do(ctx, func() {
		c, users, now := l.record.Load(), l.nodeUsers.Load(), time.Now()
		for i := range c.Shards {
			s := &c.Shards[i]
			for _, n := range s.Nodes {
				if missing, _ := redisadmin.MatchUsers(l.obs.Nodes[n.ID].Users, s.Generation, users.want); len(missing) > 0 && s.SecretID != "" && l.obs.Admitted(&n, now) {
					nodes[s.ID] = append(nodes[s.ID], n)
				}
			}
			if len(nodes[s.ID]) > 0 {
				shards = append(shards, s.ID)
			}
		}
	})
	lifecycle.Parallel(len(shards), pushAtOnce, func(i int) {
		shard := shards[i]
		err := l.exclusive(ctx, shard, "users", true, func(ctx context.Context, x *failover.Executor) error {
			return l.matchUsers(ctx, x, nodes[shard], false)
		})
		if err != nil {
			l.log.Warn("nodes get the users of applications later: scripts of users that changed wait there", "shard", shard, "error", err)
		}
	})
}

// matchUsers makes nodes of one shard have the users that they should have.
func (l *Loop) matchUsers(ctx context.Context, x *failover.Executor, nodes []topology.Node, surplus bool) error {
	errs := make([]error, len(nodes))
	lifecycle.Parallel(len(nodes), 0, func(i int) {
		n := &nodes[i]
		bounded, cancel := context.WithTimeout(ctx, usersPush)
		defer cancel()
		begun := time.Now()
		refused, err := x.MatchUsers(bounded, n.ID, surplus)
		if err != nil {
			errs[i] = fmt.Errorf("%s: %w", n.ID, err)
			return
		}
		first := false
		_ = l.do(ctx, func() {
			first = l.usersRefused[n.ID] == "" && len(refused) > 0
			l.usersAt[n.ID], l.usersRefused[n.ID] = begun, strings.Join(refused, "; ")
		})
		if first {
			c := l.Topology()
			l.Tell(ctx, topology.Event{Time: begun, Kind: "UsersRefused", Severity: topology.Warning, Node: n.ID, Epoch: c.Epoch,
				Message: fmt.Sprintf("%s does not take the rules of %d users (%.200s): their scripts are refused there; give them rules that this version of the server knows", n.ID, len(refused), refused[0])})
		}
	})
	return errors.Join(errs...)
}

// renewUsers puts right what the probes saw of the users of applications at the nodes
// of a shard. It returns true when there is something to do.
func (l *Loop) renewUsers(s *topology.Shard, now time.Time) bool {
	if s.SecretID == "" {
		return false
	}
	users := l.nodeUsers.Load()
	surplus := now.Sub(users.since) > usersKept
	if surplus {
		surplus = len(l.late("", users.epoch)) == 0
	}
	var nodes []topology.Node
	for _, n := range s.Nodes {
		seen := l.obs.Nodes[n.ID]
		asked := seen.UsersAt
		if !l.obs.Admitted(&n, now) || !l.obs.Fresh(s.ID, asked) || !asked.After(users.since) || !asked.After(l.usersAt[n.ID]) ||
			l.usersRefused[n.ID] != "" && asked.Sub(l.usersAt[n.ID]) < usersRetry {
			continue
		}
		if missing, old := redisadmin.MatchUsers(seen.Users, s.Generation, users.want); len(missing) > 0 || surplus && len(old) > 0 {
			nodes = append(nodes, n)
		} else {
			l.usersAt[n.ID] = asked // not compared again until it is seen anew
		}
	}
	if len(nodes) == 0 {
		return false
	}
	l.start(s.ID, "users", true, func(ctx context.Context, x *failover.Executor) error { return l.matchUsers(ctx, x, nodes, surplus) })
	return true
}

// usersRetry is the pause before a node is asked again to take users that it refused.
const usersRetry = time.Minute

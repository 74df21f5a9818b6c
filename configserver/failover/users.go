package failover

import (
	"context"
	"fmt"
	"slices"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// usersAtOnce is how many users of applications a node gets in one write. Those
// beyond are given later (MatchUsers): nobody waits for them with a shard that has
// no master.
const usersAtOnce = 256

// letProxiesIn lets the proxies of one generation in, and what they need for the
// users of applications.
func letProxiesIn(ctx context.Context, c *redisadmin.Conn, sec secrets) error {
	return c.GrantProxies(ctx, &sec.proxies)
}

// MatchUsers gives a node the users of applications that it should have and does not.
// With surplus it also removes those that nobody needs any more, and closes their
// connections. A node that does not let the proxies in gets none: it is fenced, or is
// admitted by somebody else. refused are the server's words about users that it does
// not take.
func (x *Executor) MatchUsers(ctx context.Context, node string, surplus bool) (refused []string, err error) {
	s, n, err := x.find(node)
	if err != nil {
		return nil, err
	}
	if s.Operation != nil || n.Incarnation == "" {
		return nil, topology.Preconditionf("%s is not settled now", s.ID)
	}
	sec, err := x.secretsOf(s.ID, s.SecretID, s.Generation)
	if err != nil {
		return nil, err
	}
	c, err := x.dialAdmitted(ctx, n)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	has, err := c.Users(ctx)
	if err != nil {
		return nil, err
	}
	if letsIn, _ := sec.proxies.Match(has); !letsIn {
		return nil, fmt.Errorf("%s does not let proxies of generation %d in", node, sec.generation)
	}
	missing, old := redisadmin.MatchUsers(has, sec.generation, sec.users)
	for some := range slices.Chunk(missing, usersAtOnce) {
		// The shard may have begun to change since.
		if r := x.host.Record(); r.Shard(x.shard) == nil || r.Shard(x.shard).Generation != sec.generation || r.Shard(x.shard).Operation != nil {
			return nil, ErrSuperseded
		}
		no, err := c.GrantUsers(ctx, sec.generation, sec.proxies.Scripts, some)
		if err != nil {
			return nil, err
		}
		refused = append(refused, no...)
	}
	if surplus {
		err = c.RevokeUsers(ctx, old)
	}
	return refused, err
}

package failover

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/parameters"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

const (
	// minBacklog is the least repl-backlog-size in bytes: a replica that was cut
	// off for a moment, or whose master changed, goes on from there instead of
	// copying everything again.
	minBacklog = 16 << 20
	// busyMargin is how long before policy.HungAfter a server that runs a long
	// script begins to answer "BUSY", which is a sign of life.
	busyMargin = 500 * time.Millisecond
)

// BusyLimit is the longest busy-reply-threshold that nodes may have: after it
// a server answers BUSY, well before a silent one is taken for hung.
func BusyLimit(policy topology.Policy) time.Duration {
	return max(busyMargin, policy.HungAfter-busyMargin)
}

// configure says to a node which one it is, and gives it the settings that every node of a cluster has: those
// an admin set, and those that Basalt needs. A parameter that this server does
// not take is no reason to do without it; the loop tells of it (ApplySettings).
func configure(ctx context.Context, c *redisadmin.Conn, record topology.Cluster, node, replication string) error {
	s, n := record.Node(node)
	if n == nil {
		return ErrSuperseded
	}
	if err := c.SetMark(ctx, topology.Mark(&record, s.ID, node)); err != nil {
		return err
	}
	if _, err := applySettings(ctx, c, record.Settings); err != nil {
		return err
	}
	pairs := []string{
		"masteruser", credentials.ReplicationUser,
		"masterauth", replication,
		// Replicas notice a silent master within a second or two.
		"repl-ping-replica-period", "1",
		// Copies start at once and do not wait for a disk.
		"repl-diskless-sync", "yes",
		"repl-diskless-sync-delay", "0",
		"replica-read-only", "yes",
		"replica-serve-stale-data", "yes",
		parameters.MinReplicas, strconv.Itoa(minReplicasSet(&record)),
	}
	pairs = append(pairs, announce(n)...)
	backlog, err := number(ctx, c, "repl-backlog-size")
	if err != nil {
		return err
	}
	chosen := slices.ContainsFunc(record.Settings, func(s topology.Setting) bool { return s.Name == "repl-backlog-size" })
	if backlog < minBacklog && !chosen {
		pairs = append(pairs, "repl-backlog-size", strconv.Itoa(minBacklog))
	}
	busy, err := lowerBusy(ctx, c, record.Policy)
	if err != nil {
		return err
	}
	return c.Config(ctx, append(pairs, busy...)...)
}

// lowerBusy is what must be set for a node to answer BUSY in time: nothing, or the
// parameter and its value.
func lowerBusy(ctx context.Context, c *redisadmin.Conn, policy topology.Policy) ([]string, error) {
	limit := BusyLimit(policy).Milliseconds()
	busy, err := number(ctx, c, "lua-time-limit")
	if err != nil || busy > 0 && busy <= limit {
		return nil, err
	}
	return []string{"lua-time-limit", strconv.FormatInt(limit, 10)}, nil
}

func number(ctx context.Context, c *redisadmin.Conn, name string) (int64, error) {
	text, err := c.Parameter(ctx, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return -1, nil // a server that does not have the parameter
	}
	return n, nil
}

// join makes an admitted node of a shard follow its new master, and returns what it
// said before: proxies are shut out until it is no longer writable, then let in by the
// users of sec. A node that is a replica already keeps the connections of these. One
// that may have more than its master is only fenced: its admission comes next, and
// keeps what it has.
func join(ctx context.Context, c *redisadmin.Conn, record topology.Cluster, address string, master *redisadmin.Info, sec secrets) (before redisadmin.Info, err error) {
	if before, err = c.Replication(ctx); err != nil {
		return before, err
	}
	keep := &sec.proxies
	if before.Master {
		keep = nil
	}
	users, err := c.RevokeProxies(ctx, keep)
	if err != nil {
		return before, err
	}
	if why := CannotCopy(&before, master); why != "" && (before.Master || before.MasterAddress != address) {
		return before, fmt.Errorf("%s %s", c.Address, why)
	}
	if beyond(&before, master) {
		return before, fmt.Errorf("%s may have writes that its new master lacks", c.Address)
	}
	if err := c.Config(ctx, "masteruser", credentials.ReplicationUser, "masterauth", sec.replication,
		parameters.MinReplicas, strconv.Itoa(minReplicasSet(&record))); err != nil {
		return before, err
	}
	if before.Master || before.MasterAddress != address {
		if err := c.Follow(ctx, address); err != nil {
			return before, err
		}
	}
	if err := c.GrantReplication(ctx, sec.replication); err != nil {
		return before, err
	}
	return before, c.GrantMissing(ctx, &sec.proxies, users)
}

// beyond tells if a node may have something of the stream of writes that a master
// which was just promoted lacks.
func beyond(n, master *redisadmin.Info) bool {
	switch {
	case n.Offset <= 0 || n.ReplID == master.ReplID:
		return false
	case n.ReplID == master.ReplID2:
		return n.Offset > master.SecondOffset-1
	}
	return n.Master // a replica of another history copies everything anew, and is admitted for that
}

// grant lets replicas and the proxies of one generation in.
func grant(ctx context.Context, c *redisadmin.Conn, sec secrets) error {
	if err := c.GrantReplication(ctx, sec.replication); err != nil {
		return err
	}
	return letProxiesIn(ctx, c, sec)
}

// grantOnly is grant, and shuts all other proxies out.
func grantOnly(ctx context.Context, c *redisadmin.Conn, sec secrets) error {
	if err := c.GrantReplication(ctx, sec.replication); err != nil {
		return err
	}
	return c.OnlyProxies(ctx, &sec.proxies)
}

// without returns the admitted nodes of a shard except those named.
func without(s *topology.Shard, ids ...string) []topology.Node {
	return slices.DeleteFunc(slices.Clone(s.Nodes), func(n topology.Node) bool {
		return n.Incarnation == "" || slices.Contains(ids, n.ID)
	})
}

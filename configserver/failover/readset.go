package failover

import (
	"fmt"
	"strconv"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/parameters"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// linkPatience is for how long a replica whose link is down stays in the read
// set: a link that breaks is mostly back at once.
const linkPatience = 2 * time.Second

// ReadSet tells for each node of a shard, in its order, if it should be in the
// read set. While the shard has no master that works, nothing changes: stale
// reads are what the read set promises, and a failover is about to decide.
func ReadSet(c *topology.Cluster, s *topology.Shard, o *health.Observations, now time.Time) []bool {
	set := make([]bool, len(s.Nodes))
	for i := range s.Nodes {
		set[i] = s.Nodes[i].InReadSet && s.Nodes[i].Readable && s.Nodes[i].Incarnation != ""
	}
	m := s.MasterNode()
	if m == nil || s.Operation != nil && s.Operation.Kind != topology.Rotation || !o.Admitted(m, now) {
		return set
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		switch {
		case !n.Readable || n.Incarnation == "":
			set[i] = false
		case n.ID == m.ID:
			set[i] = true
		default:
			set[i] = mayRead(c, s, n, o, now, set[i])
		}
	}
	return set
}

// mayRead decides on one admitted replica; it leaves at policy.MaxReadLag and
// comes back at half of that, so that it does not flap around one value.
func mayRead(c *topology.Cluster, s *topology.Shard, n *topology.Node, o *health.Observations, now time.Time, is bool) bool {
	switch health.AssessNode(c, n, o, now).Verdict {
	case health.Dead, health.Hung, health.Restarted:
		return false
	}
	seen := o.Nodes[n.ID]
	inSync, lag := o.InSync(s, n, now)
	if !is {
		return inSync && lag <= c.Policy.MaxReadLag/2
	}
	if inSync {
		return lag <= c.Policy.MaxReadLag
	}
	if o.Live(n.ID, now) && seen.Info.Syncing {
		return false // its data is being replaced
	}
	return seen.Info.LinkUp || seen.Info.LinkDownFor < linkPatience
}

// InSync counts the nodes of a shard that have the data: the master, when it
// serves, and its replicas that follow closely and get the stream of writes.
func InSync(c *topology.Cluster, s *topology.Shard, o *health.Observations, now time.Time) int {
	m := s.MasterNode()
	if m == nil || !o.Admitted(m, now) {
		return 0
	}
	count := 0
	for i := range s.Nodes {
		if ok, lag := o.InSync(s, &s.Nodes[i], now); ok && lag <= c.Policy.MaxReadLag {
			count++
		}
	}
	return 1 + min(count, len(o.Nodes[m.ID].Info.Online))
}

// MinReplicas is the min-replicas-to-write that a shard's master should have:
// what an admin set with CONFIG SET, and the policy's. The policy's is never more
// than there are replicas in sync, so that losing one never stops the writes;
// CONFIG SET means what it means in Redis.
func MinReplicas(c *topology.Cluster, s *topology.Shard, o *health.Observations, now time.Time) int {
	return max(minReplicasSet(c), min(c.Policy.MinReplicasToWrite, InSync(c, s, o, now)-1))
}

// minReplicasSet is the min-replicas-to-write of the cluster's settings, or 0.
func minReplicasSet(c *topology.Cluster) int {
	for _, s := range c.Settings {
		if s.Name == parameters.MinReplicas {
			n, _ := strconv.Atoi(s.Value) // a server took it
			return max(0, n)
		}
	}
	return 0
}

// Progress says what a forming cluster waits for, one line for each thing;
// nothing when it may serve.
func Progress(c *topology.Cluster, o *health.Observations, now time.Time) []string {
	var lines []string
	if missing := c.WantShards - len(c.Shards); missing > 0 {
		lines = append(lines, fmt.Sprintf("%d of %d shards have nodes", len(c.Shards), c.WantShards))
	}
	for i := range c.Shards {
		s := &c.Shards[i]
		if len(s.Nodes) < c.WantNodes {
			lines = append(lines, fmt.Sprintf("%s: %d of %d nodes registered", s.ID, len(s.Nodes), c.WantNodes))
		}
		if s.Operation != nil {
			lines = append(lines, fmt.Sprintf("%s: %s in phase %s", s.ID, s.Operation.Kind, s.Operation.Phase))
		}
		waiting := len(lines)
		for j := range s.Nodes {
			if line := progressOf(s, &s.Nodes[j], o, now); line != "" {
				lines = append(lines, line)
			}
		}
		if waiting == len(lines) && len(s.Nodes) >= c.WantNodes && InSync(c, s, o, now) < c.WantNodes {
			lines = append(lines, fmt.Sprintf("%s: %d of %d nodes in sync", s.ID, InSync(c, s, o, now), c.WantNodes))
		}
	}
	return lines
}

func progressOf(s *topology.Shard, n *topology.Node, o *health.Observations, now time.Time) string {
	seen := o.Nodes[n.ID]
	inSync, _ := o.InSync(s, n, now)
	switch {
	case seen.Sight == topology.SightUnknown:
		return n.ID + " is being connected to"
	case !o.Live(n.ID, now):
		return n.ID + ": " + seen.Detail
	case seen.Info.Loading:
		return n.ID + " is loading its data"
	case isMisconfigured(&seen):
		return n.ID + " is misconfigured"
	case !o.Admitted(n, now):
		return n.ID + " is being admitted"
	case n.ID == s.Master || inSync:
		return ""
	case seen.Info.Syncing:
		return fmt.Sprintf("%s is syncing, %d %%", n.ID, seen.Info.SyncPercent)
	}
	return n.ID + " is waiting for its first copy of the data"
}

package grpcapi

import (
	"net"
	"regexp"
	"strconv"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// Bounds of what may be asked for.
const (
	maxShards   = 1024
	maxNodes    = 6
	maxPriority = 1_000_000
	// maxText bounds strings that others say of themselves: ids, addresses.
	maxText = 255
)

var (
	clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	shardID     = regexp.MustCompile(`^shard-(0|[1-9][0-9]{0,3})$`)
	nodeID      = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?$`)
)

func checkCluster(field, name string) error {
	if name == "" {
		return topology.Invalidf(field, "name the cluster")
	}
	if !clusterName.MatchString(name) {
		return topology.Invalidf(field, "%.80q is no cluster name; use lower case letters, digits and \"-\", at most 63, no \"-\" at the ends", name)
	}
	return nil
}

func checkShard(id string) error {
	if !shardID.MatchString(id) {
		return topology.Invalidf("shard", "%.80q is no shard id; write shard-N, as in shard-0", id)
	}
	if n, _ := strconv.Atoi(id[len("shard-"):]); n >= maxShards {
		return topology.Invalidf("shard", "%s is beyond the last possible shard, shard-%d", id, maxShards-1)
	}
	return nil
}

func checkNode(field, id string) error {
	if !nodeID.MatchString(id) {
		return topology.Invalidf(field, "%.80q is no node id; use lower case letters, digits, \".\" and \"-\", as in shard-0-1", id)
	}
	return nil
}

// checkCandidate lets the empty id pass: the best replica is meant.
func checkCandidate(id string) error {
	if id == "" {
		return nil
	}
	return checkNode("candidate", id)
}

func checkAddress(field, address string) error {
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || host == "" || n == 0 || len(address) > maxText {
		return topology.Invalidf(field, "%.80q is no address; write HOST:PORT", address)
	}
	return nil
}

func checkText(field, text string) error {
	if len(text) > maxText {
		return topology.Invalidf(field, "%d bytes, at most %d are allowed", len(text), maxText)
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f {
			return topology.Invalidf(field, "control characters are not allowed")
		}
	}
	return nil
}

func checkSize(shards, nodes uint32) error {
	if shards < 1 || shards > maxShards {
		return topology.Invalidf("shards", "%d, want 1 to %d", shards, maxShards)
	}
	if nodes < 1 || nodes > maxNodes {
		return topology.Invalidf("nodes_per_shard", "%d, want 1 to %d", nodes, maxNodes)
	}
	return nil
}

// checkPolicy holds the thresholds within what the loop can keep: below the
// lower bounds a cluster flaps, above the upper ones it never heals.
func checkPolicy(p topology.Policy, nodesPerShard int) error {
	for _, d := range []struct {
		field     string
		value     time.Duration
		low, high time.Duration
	}{
		{"probe_interval", p.ProbeInterval, 10 * time.Millisecond, 10 * time.Second},
		{"hung_after", p.HungAfter, 500 * time.Millisecond, 10 * time.Minute},
		{"max_busy", p.MaxBusy, 0, time.Hour},
		{"ack_timeout", p.AckTimeout, 10 * time.Millisecond, 30 * time.Second},
		{"failover_period", p.FailoverPeriod, time.Second, 7 * 24 * time.Hour},
		{"max_replica_age", p.MaxReplicaAge, time.Second, 24 * time.Hour},
		{"restart_grace", p.RestartGrace, 100 * time.Millisecond, time.Hour},
	} {
		if d.value < d.low || d.value > d.high {
			return topology.Invalidf("policy."+d.field, "%v, want %v to %v", d.value, d.low, d.high)
		}
	}
	if p.RefusedProbes < 1 || p.RefusedProbes > 100 {
		return topology.Invalidf("policy.refused_probes", "%d, want 1 to 100", p.RefusedProbes)
	}
	if p.MaxFailovers < 1 || p.MaxFailovers > 1000 {
		return topology.Invalidf("policy.max_failovers", "%d, want 1 to 1000", p.MaxFailovers)
	}
	if p.MinReplicasToWrite >= nodesPerShard {
		return topology.Invalidf("policy.min_replicas_to_write", "%d, but a shard has only %d replicas", p.MinReplicasToWrite, nodesPerShard-1)
	}
	if p.MaxReadLag < 1 {
		return topology.Invalidf("policy.max_read_lag", "%d, want at least 1 byte", p.MaxReadLag)
	}
	if p.HungAfter <= p.ProbeInterval {
		return topology.Invalidf("policy.hung_after", "%v is not longer than probe_interval, %v", p.HungAfter, p.ProbeInterval)
	}
	return nil
}

package etcdstore

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// TestACommitOfTheLargestClusterInTrouble: every shard fails over at the same time,
// seen by a thousand proxies none of which acks. A commit, with as many events as
// fit into one, is still one transaction that etcd takes.
func TestACommitOfTheLargestClusterInTrouble(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ nodes, limit int }{
		{2, 1 << 20},
		// etcd takes 1.5 MiB unless it is told otherwise.
		{topology.MaxNodes, 1500 << 10},
	} {
		c := largest(tc.nodes)
		well := commitBytes(t, c, nil)
		plain, events := trouble(t, &c)
		bytes := commitBytes(t, c, events)
		t.Logf("%d nodes of each shard: a commit has %d KiB when all is well, %d KiB with every shard failing over (the record has %d KiB as JSON)",
			tc.nodes, well>>10, bytes>>10, plain>>10)
		if bytes > tc.limit {
			t.Errorf("%d nodes of each shard: a commit has %d bytes, want at most %d", tc.nodes, bytes, tc.limit)
		}
	}
}

// largest is a cluster of as many shards as there may be, with random ids: they are
// what cannot be compressed.
func largest(nodes int) topology.Cluster {
	random := rand.New(rand.NewPCG(1, 2))
	id := func() string { return fmt.Sprintf("%016x%016x%08x", random.Uint64(), random.Uint64(), random.Uint32()) }
	now := time.Now()
	c := topology.Cluster{Name: "large", UID: id(), Epoch: 100000, CommittedAt: now, CreatedAt: now, Phase: topology.Serving,
		WantShards: topology.MaxShards, WantNodes: nodes, Policy: topology.DefaultPolicy()}
	for i := range topology.MaxShards {
		s := topology.Shard{ID: fmt.Sprintf("shard-%d", i), Generation: random.Uint64N(50) + 1, SecretID: "d41d8cd98f00b204"}
		for n := range nodes {
			address := fmt.Sprintf("10.%d.%d.%d:%d", random.IntN(256), random.IntN(256), random.IntN(256), 6379)
			s.Nodes = append(s.Nodes, topology.Node{ID: fmt.Sprintf("%s-%d", s.ID, n), Address: fmt.Sprintf("%s-%d.large.svc:6379", s.ID, n),
				Resolved: address, Incarnation: id(), Readable: true, InReadSet: true, InSync: true, Priority: 100})
		}
		for range topology.MaxHistories {
			s.Histories = append(s.Histories, topology.History{ReplID: id(), Start: random.Int64N(1 << 40)})
		}
		for n := range s.Nodes {
			s.Nodes[n].History = s.Histories[topology.MaxHistories-1].ReplID
		}
		s.Master = s.Nodes[0].ID
		c.Shards = append(c.Shards, s)
	}
	c.EvenSlots()
	return c
}

// trouble lets every shard of a cluster fail over, as package failover does it. It
// returns the size of a record as JSON, and what a commit may tell at once.
func trouble(t *testing.T, c *topology.Cluster) (plain int, events []topology.Event) {
	t.Helper()
	now := time.Now()
	o := health.Observations{ID: "configserver-0", Started: now.Add(-time.Hour), Nodes: map[string]health.Node{}}
	proxies, ids := map[string]health.ProxySight{}, []string(nil)
	for i := range 1000 {
		id := fmt.Sprintf("basalt-proxy-7d9f8b6c5-%04x", i)
		ids = append(ids, id)
		proxies[id] = health.ProxySight{Sight: []topology.Sight{topology.SightRefused, topology.SightTimeout}[i%2], At: now,
			Detail: fmt.Sprintf("read tcp 10.0.%d.7:%d: connection reset by peer", i%256, 30000+i)}
	}
	for i := range c.Shards {
		s := &c.Shards[i]
		o.Nodes[s.Master] = health.Node{Proxies: proxies, Probe: health.Probe{Sight: topology.SightRefused, Detail: "connection refused",
			Heard: now.Add(-time.Second), Refused: 3, RefusedSince: now.Add(-time.Second)}}
		a := health.AssessMaster(c, s, &o, now)
		change := failover.Begin(s.ID, fmt.Sprintf("%032x", i), "DeadMaster: "+a.Detail, nil, true, a.Evidence, &o, now)
		began, err := change(c)
		if err != nil {
			t.Fatal(err)
		}
		op := s.Operation
		op.Phase, op.Candidate = failover.Promoting, s.Nodes[1].ID
		op.Unacked, op.MoreUnacked = ids[:topology.MaxUnacked], len(ids)-topology.MaxUnacked
		for _, phase := range []string{failover.Fencing, failover.Electing, failover.Promoting, "repointing"} {
			op.Phases = append(op.Phases, topology.PhaseTime{Name: phase, StartedAt: now, Duration: time.Duration(1000003 * (i + 7))})
		}
		for _, n := range s.Nodes {
			op.Candidates = append(op.Candidates, topology.Candidate{Node: n.ID, Offset: int64(i) * 7919, Priority: 100, Refused: "it is the master that is replaced"})
		}
		if len(events) < store.MaxEvents {
			began[0].Report = &topology.Report{Operation: op.Clone(), Shard: s.ID, NewMaster: op.Candidate, EndEpoch: c.Epoch}
			events = append(events, began...)
		}
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return len(data), events
}

// commitBytes is what a commit writes: the record twice, and each event.
func commitBytes(t *testing.T, c topology.Cluster, events []topology.Event) (bytes int) {
	t.Helper()
	values := []any{c, c.WithoutUsers()}
	for _, e := range events {
		values = append(values, e)
	}
	for _, v := range values {
		text, err := encode(v)
		if err != nil {
			t.Fatal(err)
		}
		bytes += len(text)
	}
	return bytes
}

package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// API is a connection to one Configserver.
type API struct {
	Clusters pb.ClusterServiceClient
	Topology pb.TopologyServiceClient
	Events   pb.EventServiceClient

	conn *grpc.ClientConn
}

// DialAPI connects to a Configserver; calls fail at once while it is away. It is
// found again soon after a restart: tests measure what happens then.
func DialAPI(addr string) (*API, error) {
	patience := backoff.DefaultConfig
	patience.BaseDelay, patience.MaxDelay = 20*time.Millisecond, 100*time.Millisecond
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: patience, MinConnectTimeout: time.Second}))
	if err != nil {
		return nil, err
	}
	return &API{pb.NewClusterServiceClient(conn), pb.NewTopologyServiceClient(conn), pb.NewEventServiceClient(conn), conn}, nil
}

// Close closes the connection.
func (a *API) Close() { _ = a.conn.Close() }

// apiPatience bounds one call of a Configserver.
const apiPatience = 2 * time.Second

// ask calls every Configserver of the cluster in turn until one answers, for up
// to 10 s; an error of the last one asked is final.
func ask[T any](c *Cluster, call func(context.Context, *API) (T, error)) (T, error) {
	deadline := time.Now().Add(10 * time.Second)
	var zero T
	for i := 0; ; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), apiPatience)
		v, err := call(ctx, c.apis[i%len(c.apis)])
		cancel()
		if err == nil {
			return v, nil
		}
		if time.Now().After(deadline) {
			return zero, err
		}
		if i%len(c.apis) == len(c.apis)-1 {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// must is ask for tests that cannot go on without an answer.
func must[T any](t testing.TB, c *Cluster, what string, call func(context.Context, *API) (T, error)) T {
	t.Helper()
	v, err := ask(c, call)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return v
}

// Topology returns the newest epoch.
func (c *Cluster) Topology(t testing.TB) *pb.Topology {
	t.Helper()
	return must(t, c, "topology", func(ctx context.Context, a *API) (*pb.Topology, error) {
		return a.Topology.GetTopology(ctx, &pb.GetTopologyRequest{Cluster: c.Name})
	})
}

// TryStatus is Status for tests that expect nobody to answer yet.
func (c *Cluster) TryStatus() (*pb.ClusterStatus, error) {
	return ask(c, func(ctx context.Context, a *API) (*pb.ClusterStatus, error) {
		return a.Clusters.GetStatus(ctx, &pb.GetStatusRequest{Cluster: c.Name})
	})
}

// Status returns what the owner of the cluster sees.
func (c *Cluster) Status(t testing.TB) *pb.ClusterStatus {
	t.Helper()
	return must(t, c, "status", func(ctx context.Context, a *API) (*pb.ClusterStatus, error) {
		return a.Clusters.GetStatus(ctx, &pb.GetStatusRequest{Cluster: c.Name})
	})
}

// History returns every epoch, oldest first, and fails the test when the first
// ones were compacted already.
func (c *Cluster) History(t testing.TB) []*pb.Topology {
	t.Helper()
	list := must(t, c, "list epochs", func(ctx context.Context, a *API) (*pb.ListEpochsResponse, error) {
		return a.Topology.ListEpochs(ctx, &pb.ListEpochsRequest{Cluster: c.Name, Limit: 1000})
	})
	var epochs []*pb.Topology
	for _, e := range slices.Backward(list.GetEpochs()) {
		epochs = append(epochs, must(t, c, "epoch", func(ctx context.Context, a *API) (*pb.Topology, error) {
			return a.Topology.GetTopology(ctx, &pb.GetTopologyRequest{Cluster: c.Name, Epoch: e.GetEpoch()})
		}))
	}
	if len(epochs) == 0 || epochs[0].GetEpoch() != 1 {
		t.Fatalf("%d epochs are kept and the first is not epoch 1", len(epochs))
	}
	return epochs
}

// RequireInvariants fails the test for every invariant that an epoch broke.
func (c *Cluster) RequireInvariants(t testing.TB) {
	t.Helper()
	epochs := c.History(t)
	for _, wrong := range CheckHistory(epochs) {
		t.Error(wrong)
	}
	t.Logf("invariants hold at %d epochs", len(epochs))
}

// EventsAfter returns the kept events after a sequence number, oldest first.
func (c *Cluster) EventsAfter(t testing.TB, after uint64) []*pb.Event {
	t.Helper()
	return must(t, c, "list events", func(ctx context.Context, a *API) (*pb.ListEventsResponse, error) {
		return a.Events.ListEvents(ctx, &pb.ListEventsRequest{Cluster: c.Name, After: after, Limit: 1000})
	}).GetEvents()
}

// LastEvent is the sequence number of the newest event, 0 when there is none.
func (c *Cluster) LastEvent(t testing.TB) uint64 {
	t.Helper()
	events := c.EventsAfter(t, 0)
	if len(events) == 0 {
		return 0
	}
	return events[len(events)-1].GetSequence()
}

// Reports returns the reports of operations in events after a sequence number.
func (c *Cluster) Reports(t testing.TB, after uint64) []*pb.Report {
	t.Helper()
	var reports []*pb.Report
	for _, e := range c.EventsAfter(t, after) {
		if e.GetReport() != nil {
			reports = append(reports, e.GetReport())
		}
	}
	return reports
}

// ReportLine says in one line how an operation went.
func ReportLine(r *pb.Report) string {
	var phases []string
	for _, p := range r.GetPhases() {
		phases = append(phases, fmt.Sprintf("%s %s", p.GetName(), p.GetDuration().AsDuration().Round(time.Millisecond)))
	}
	line := fmt.Sprintf("%s %s: %s -> %s, cause %q, %s, offset gap %d, epochs %d-%d",
		r.GetShard(), strings.ToLower(strings.TrimPrefix(r.GetKind().String(), "OPERATION_KIND_")), r.GetOldMaster(), r.GetNewMaster(),
		r.GetCause(), strings.Join(phases, ", "), r.GetOffsetGap(), r.GetStartEpoch(), r.GetEndEpoch())
	if r.GetError() != "" {
		line += ", error " + r.GetError()
	}
	return line
}

// SetPolicy changes the policy in force.
func (c *Cluster) SetPolicy(t testing.TB, change func(*pb.Policy)) {
	t.Helper()
	now := must(t, c, "get cluster", func(ctx context.Context, a *API) (*pb.Cluster, error) {
		return a.Clusters.GetCluster(ctx, &pb.GetClusterRequest{Name: c.Name})
	})
	change(now.GetPolicy())
	must(t, c, "update policy", func(ctx context.Context, a *API) (*pb.Cluster, error) {
		return a.Clusters.UpdateCluster(ctx, &pb.UpdateClusterRequest{Name: c.Name, Policy: now.GetPolicy()})
	})
}

// UnlimitedFailovers is a change of policy for tests that take many masters away:
// it lifts the limit of failovers per period.
func UnlimitedFailovers(p *pb.Policy) {
	p.MaxFailovers = 1000
	p.FailoverPeriod = durationpb.New(time.Minute)
}

// Switchover moves the master role of a shard to its best replica. It asks the
// first Configserver, once: after an error nobody knows what became of it.
func (c *Cluster) Switchover(ctx context.Context, shard string) (*pb.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	r, err := c.apis[0].Clusters.Switchover(ctx, &pb.SwitchoverRequest{Cluster: c.Name, Shard: shard}, grpc.WaitForReady(true))
	return r.GetReport(), err
}

// Failover replaces the master of a shard without asking it, by a node that was in
// sync. It asks the first Configserver, once.
func (c *Cluster) Failover(ctx context.Context, shard string) (*pb.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	r, err := c.apis[0].Clusters.Failover(ctx, &pb.FailoverRequest{Cluster: c.Name, Shard: shard}, grpc.WaitForReady(true))
	return r.GetReport(), err
}

// Healthy is nil when every node is admitted, reachable and in sync, every shard
// has a master, every replica's link is up, and nothing is being done to any shard.
func (c *Cluster) Healthy() error {
	st, err := c.TryStatus()
	if err != nil {
		return err
	}
	if st.GetTopology().GetPhase() != pb.ClusterPhase_CLUSTER_PHASE_SERVING {
		return fmt.Errorf("the cluster is not serving: %s", st.GetProgress())
	}
	if len(st.GetNodes()) != c.options.Shards*(1+c.options.Replicas) {
		return fmt.Errorf("%d nodes", len(st.GetNodes()))
	}
	for _, sh := range st.GetTopology().GetShards() {
		switch {
		case sh.GetMaster() == "":
			return fmt.Errorf("%s has no master", sh.GetId())
		case sh.GetFrozen() || sh.GetOperation() != nil:
			return fmt.Errorf("%s is being worked on: %v", sh.GetId(), sh.GetOperation())
		}
		for _, n := range sh.GetNodes() {
			switch {
			case n.GetIncarnation() == "":
				return fmt.Errorf("%s is not admitted", n.GetId())
			case node(sh, sh.GetMaster()).GetInSync() && !n.GetInSync():
				return fmt.Errorf("%s is not in sync", n.GetId())
			}
		}
	}
	for _, n := range st.GetNodes() {
		admitted := ""
		for _, sh := range st.GetTopology().GetShards() {
			if tn := node(sh, n.GetNode()); tn != nil {
				admitted = tn.GetIncarnation()
			}
		}
		switch {
		case n.GetSight() != pb.Sight_SIGHT_OK || n.GetIncarnation() != admitted:
			return fmt.Errorf("%s: %s", n.GetNode(), n.GetHealth())
		case n.GetRole() == pb.NodeRole_NODE_ROLE_REPLICA && !n.GetLinkUp():
			return fmt.Errorf("%s: replication link is down", n.GetNode())
		case n.GetRole() != pb.NodeRole_NODE_ROLE_REPLICA && n.GetRole() != pb.NodeRole_NODE_ROLE_MASTER:
			return fmt.Errorf("%s is %s", n.GetNode(), n.GetRole())
		}
	}
	connected := 0
	for _, p := range st.GetProxies() {
		if p.GetConnected() && p.GetAckedEpoch() == st.GetTopology().GetEpoch() {
			connected++
		}
	}
	if connected < c.options.Proxies {
		return errors.New("not every proxy acknowledged the newest epoch")
	}
	return nil
}

// WaitConfigservers waits until every Configserver answers.
func (c *Cluster) WaitConfigservers(t testing.TB, limit time.Duration) {
	t.Helper()
	Eventually(t, limit, "every configserver answers", func() error {
		for i, a := range c.apis {
			ctx, cancel := context.WithTimeout(context.Background(), apiPatience)
			_, err := a.Topology.GetTopology(ctx, &pb.GetTopologyRequest{Cluster: c.Name})
			cancel()
			if err != nil {
				return fmt.Errorf("%s: %w", c.Configservers[i], err)
			}
		}
		return nil
	})
}

// WaitHealthy waits until the cluster is Healthy and returns how long it took.
func (c *Cluster) WaitHealthy(t testing.TB, limit time.Duration) time.Duration {
	t.Helper()
	return Eventually(t, limit, "the cluster is healthy", c.Healthy)
}

package grpcapi

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/basalt-redis/basalt/configserver/store/memstore"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func wantStatus(t *testing.T, err error, code codes.Code, contains ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want code %v", err, code)
	}
	for _, text := range contains {
		if !strings.Contains(status.Convert(err).Message(), text) {
			t.Fatalf("message %q does not say %q", status.Convert(err).Message(), text)
		}
	}
}

func TestCreateGetListCluster(t *testing.T) {
	st := memstore.New(memstore.Options{})
	defer st.Close()
	cs := startConfigserver(t, st, "cs-0")
	ctx := t.Context()
	cs.loops.set("green", newFakeLoop(topology.Cluster{Name: "green"}))
	made, err := cs.clusters().CreateCluster(ctx, &basaltv1.CreateClusterRequest{
		Name: "green", Shards: 3, NodesPerShard: 2,
		Policy: &basaltv1.Policy{HungAfter: durationpb.New(2 * time.Second), ReadPolicy: basaltv1.ReadPolicy_READ_POLICY_READ_SET},
	})
	if err != nil {
		t.Fatal(err)
	}
	if made.GetOwner() != "cs-0" || made.GetEpoch() != 1 || made.GetPhase() != basaltv1.ClusterPhase_CLUSTER_PHASE_FORMING {
		t.Fatalf("made %v", made)
	}
	if c, err := st.Cluster(ctx, "green"); err != nil || c.UID == "" {
		t.Errorf("the record has the uid %q, %v", c.UID, err)
	}
	p := made.GetPolicy()
	if p.GetHungAfter().AsDuration() != 2*time.Second || p.GetRefusedProbes() != 3 || p.GetReadPolicy() != basaltv1.ReadPolicy_READ_POLICY_READ_SET {
		t.Fatalf("the policy is not what was asked for with defaults: %v", p)
	}
	_, err = cs.clusters().CreateCluster(ctx, &basaltv1.CreateClusterRequest{Name: "green", Shards: 3, NodesPerShard: 2})
	wantStatus(t, err, codes.AlreadyExists, "green")
	got, err := cs.clusters().GetCluster(ctx, &basaltv1.GetClusterRequest{Name: "green"})
	if err != nil || got.GetShards() != 3 {
		t.Fatal(got, err)
	}
	list, err := cs.clusters().ListClusters(ctx, &basaltv1.ListClustersRequest{})
	if err != nil || len(list.GetClusters()) != 1 || list.GetClusters()[0].GetName() != "green" {
		t.Fatal(list, err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	st := newStore(t)
	cs := startConfigserver(t, st, "cs-0")
	loop := cs.own(t, st, "blue")
	ctx := t.Context()
	create := func(r *basaltv1.CreateClusterRequest) error {
		_, err := cs.clusters().CreateCluster(ctx, r)
		return err
	}
	register := func(r *basaltv1.RegisterNodeRequest) error {
		_, err := cs.clusters().RegisterNode(ctx, r)
		return err
	}
	wantStatus(t, create(&basaltv1.CreateClusterRequest{Name: "Green!", Shards: 1, NodesPerShard: 1}), codes.InvalidArgument, "name:", "lower case")
	wantStatus(t, create(&basaltv1.CreateClusterRequest{Name: "green", NodesPerShard: 1}), codes.InvalidArgument, "shards:")
	wantStatus(t, create(&basaltv1.CreateClusterRequest{Name: "green", Shards: 1, NodesPerShard: 7}), codes.InvalidArgument, "nodes_per_shard:")
	wantStatus(t, create(&basaltv1.CreateClusterRequest{Name: "green", Shards: 1, NodesPerShard: 1, Policy: &basaltv1.Policy{ProbeInterval: durationpb.New(time.Millisecond)}}),
		codes.InvalidArgument, "policy.probe_interval:")
	wantStatus(t, create(&basaltv1.CreateClusterRequest{Name: "bare", Shards: 1, NodesPerShard: 1}), codes.FailedPrecondition, "admin-password")
	wantStatus(t, register(&basaltv1.RegisterNodeRequest{Cluster: "blue", Shard: "shard-x", Node: "A", Address: "nowhere"}),
		codes.InvalidArgument, "shard:", "node:", "address:")
	wantStatus(t, register(&basaltv1.RegisterNodeRequest{Cluster: "red", Shard: "shard-0", Node: "shard-0-0", Address: "127.0.0.1:1"}),
		codes.NotFound, "red", "cluster list")
	loop.err = topology.Preconditionf("switch over first")
	wantStatus(t, register(&basaltv1.RegisterNodeRequest{Cluster: "blue", Shard: "shard-0", Node: "shard-0-0", Address: "127.0.0.1:1"}),
		codes.FailedPrecondition, "switch over first")
	_, err := cs.topologies().GetTopology(ctx, &basaltv1.GetTopologyRequest{Cluster: "blue", Epoch: 9})
	wantStatus(t, err, codes.NotFound, "not reached epoch 9")
	cs.loops.set("blue", nil)
	wantStatus(t, register(&basaltv1.RegisterNodeRequest{Cluster: "blue", Shard: "shard-0", Node: "shard-0-0", Address: "127.0.0.1:1"}),
		codes.Unavailable, `no configserver owns cluster "blue" right now; retry`)
}

func TestCallsReachTheOwner(t *testing.T) {
	st := newStore(t)
	owner, other := startConfigserver(t, st, "cs-0"), startConfigserver(t, st, "cs-1")
	loop := owner.own(t, st, "blue")
	ctx := t.Context()

	if _, err := other.clusters().RegisterNode(ctx, &basaltv1.RegisterNodeRequest{Cluster: "blue", Shard: "shard-0", Node: "shard-0-0", Address: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	n := loop.Topology().Shards[0].Nodes[0]
	if n.ID != "shard-0-0" || n.Priority != 100 || !n.Readable {
		t.Fatalf("the owner got %+v", n)
	}
	status, err := other.clusters().GetStatus(ctx, &basaltv1.GetStatusRequest{Cluster: "blue"})
	if err != nil || status.GetCluster().GetOwner() != "cs-0" || status.GetNodes()[0].GetLag() != -1 {
		t.Fatal(status, err)
	}
	result, err := other.clusters().Switchover(ctx, &basaltv1.SwitchoverRequest{Cluster: "blue", Shard: "shard-0", Candidate: "shard-0-1"})
	if err != nil || result.GetReport().GetNewMaster() != "shard-0-1" || result.GetEpoch() != 6 {
		t.Fatal(result, err)
	}
	// Errors of the owner arrive as they were given there.
	loop.err = topology.Preconditionf("no replica is in sync; wait")
	_, err = other.clusters().Switchover(ctx, &basaltv1.SwitchoverRequest{Cluster: "blue", Shard: "shard-0"})
	wantStatus(t, err, codes.FailedPrecondition, "no replica is in sync; wait")
	// The store still says cs-0, but its loop is gone: no call goes in circles.
	owner.loops.set("blue", nil)
	_, err = other.clusters().GetStatus(ctx, &basaltv1.GetStatusRequest{Cluster: "blue"})
	wantStatus(t, err, codes.Unavailable, "no configserver owns")
	// The owner's process is gone, its lease not yet.
	owner.grpc.Stop()
	// (The first call may still find the connection that is breaking.)
	eventually(t, "the owner found dead", func() bool {
		_, err = other.clusters().GetStatus(ctx, &basaltv1.GetStatusRequest{Cluster: "blue"})
		return !strings.Contains(err.Error(), "died while it worked on this")
	})
	wantStatus(t, err, codes.Unavailable, "no configserver owns", "cs-0 at "+owner.self.Address)
	// And then its lease.
	st.ExpireLease("cs-0")
	_, err = other.clusters().GetStatus(ctx, &basaltv1.GetStatusRequest{Cluster: "blue"})
	wantStatus(t, err, codes.Unavailable, "no configserver owns")
}

func TestBarrierNamesWhoIsMissing(t *testing.T) {
	st := newStore(t)
	cs := startConfigserver(t, st, "cs-0")
	loop := cs.own(t, st, "blue")
	reply, err := cs.topologies().Barrier(t.Context(), &basaltv1.BarrierRequest{Cluster: "blue"})
	if err != nil || reply.GetEpoch() != 1 {
		t.Fatal(reply, err)
	}
	loop.mu.Lock()
	loop.streams["p-2"] = &fakeStream{loop: loop, updates: make(chan controlView, 1)}
	loop.mu.Unlock()
	_, err = cs.topologies().Barrier(t.Context(), &basaltv1.BarrierRequest{Cluster: "blue", Timeout: durationpb.New(30 * time.Millisecond)})
	wantStatus(t, err, codes.DeadlineExceeded, "p-2 at 127.0.0.1:2 has been away for 3s")
	if strings.Contains(err.Error(), "context deadline exceeded") {
		t.Errorf("%v: reads as if nobody had answered", err) // see basaltctl's errors
	}
	_, err = cs.topologies().Barrier(t.Context(), &basaltv1.BarrierRequest{Cluster: "blue", Epoch: 5})
	wantStatus(t, err, codes.InvalidArgument, "epoch:", "future")
}

func TestSetMaintenance(t *testing.T) {
	st := newStore(t)
	owner, other := startConfigserver(t, st, "cs-0"), startConfigserver(t, st, "cs-1")
	loop := owner.own(t, st, "blue")
	request := &basaltv1.SetMaintenanceRequest{Cluster: "blue", Shard: "shard-0", Length: durationpb.New(time.Hour), Reason: "disks"}
	if reply, err := other.clusters().SetMaintenance(t.Context(), request); err != nil || reply.GetEpoch() != 2 {
		t.Errorf("%v, %v", reply, err)
	}
	c := loop.Topology()
	if m := c.MaintenanceOf("shard-0", time.Now()); m == nil || m.Reason != "disks" || c.MaintenanceOf("shard-1", time.Now()) != nil {
		t.Errorf("%+v", c.Maintenance)
	}
	request.Length = durationpb.New(48 * time.Hour)
	_, err := owner.clusters().SetMaintenance(t.Context(), request)
	wantStatus(t, err, codes.InvalidArgument, "length")
}

func planOf(failover *basaltv1.FailoverRequest) *basaltv1.PlanFailoverRequest {
	return &basaltv1.PlanFailoverRequest{Failover: failover}
}

func TestPlanFailover(t *testing.T) {
	st := newStore(t)
	owner, other := startConfigserver(t, st, "cs-0"), startConfigserver(t, st, "cs-1")
	owner.own(t, st, "blue")
	plan, err := other.clusters().PlanFailover(t.Context(), planOf(&basaltv1.FailoverRequest{Cluster: "blue", Shard: "shard-0", Candidate: "shard-0-1"}))
	if err != nil || plan.GetCandidate() != "shard-0-1" || !plan.GetMasterLives() || plan.GetBytes() != 17 {
		t.Errorf("%v, %v", plan, err)
	}
	_, err = owner.clusters().PlanFailover(t.Context(), planOf(&basaltv1.FailoverRequest{Cluster: "blue", Shard: "zero"}))
	wantStatus(t, err, codes.InvalidArgument, "shard")
}

func TestForgetProxy(t *testing.T) {
	st := newStore(t)
	owner, other := startConfigserver(t, st, "cs-0"), startConfigserver(t, st, "cs-1")
	owner.own(t, st, "blue")
	if _, err := other.clusters().ForgetProxy(t.Context(), &basaltv1.ForgetProxyRequest{Cluster: "blue", Proxy: "p-2"}); err != nil {
		t.Error(err)
	}
	_, err := owner.clusters().ForgetProxy(t.Context(), &basaltv1.ForgetProxyRequest{Cluster: "blue", Proxy: "p-3"})
	wantStatus(t, err, codes.NotFound, "p-3")
	_, err = owner.clusters().ForgetProxy(t.Context(), &basaltv1.ForgetProxyRequest{Cluster: "blue"})
	wantStatus(t, err, codes.InvalidArgument, "proxy")
}

func TestEpochsAndEventsFromAnyReplica(t *testing.T) {
	st := newStore(t)
	owner, other := startConfigserver(t, st, "cs-0"), startConfigserver(t, st, "cs-1")
	claim, err := owner.session.Claim(t.Context(), "blue")
	if err != nil {
		t.Fatal(err)
	}
	record, err := st.Cluster(t.Context(), "blue")
	if err != nil {
		t.Fatal(err)
	}
	record.Epoch, record.Reason = 2, "policy changed"
	event := topology.Event{Cluster: "blue", Kind: "PolicyChanged", Severity: topology.Info, Message: "hung_after is 2s", Epoch: 2,
		Report: &topology.Report{Operation: topology.Operation{Kind: topology.Failover}, OffsetGap: -1}}
	if err := claim.Commit(t.Context(), record, event); err != nil {
		t.Fatal(err)
	}
	epochs, err := other.topologies().ListEpochs(t.Context(), &basaltv1.ListEpochsRequest{Cluster: "blue"})
	if err != nil || len(epochs.GetEpochs()) != 2 || epochs.GetEpochs()[0].GetReason() != "policy changed" {
		t.Fatal(epochs, err)
	}
	past, err := other.topologies().GetTopology(t.Context(), &basaltv1.GetTopologyRequest{Cluster: "blue", Epoch: 1})
	if err != nil || past.GetReason() != "cluster created" {
		t.Fatal(past, err)
	}
	events := basaltv1.NewEventServiceClient(other.conn)
	list, err := events.ListEvents(t.Context(), &basaltv1.ListEventsRequest{Cluster: "blue"})
	if err != nil || len(list.GetEvents()) != 1 || list.GetEvents()[0].GetReport().GetOffsetGap() != -1 {
		t.Fatal(list, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	watch, err := events.WatchEvents(ctx, &basaltv1.WatchEventsRequest{Cluster: "blue"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := watch.Recv()
	if err != nil || first.GetSequence() != 1 {
		t.Fatal(first, err)
	}
	event.Kind = "NodeAdmitted"
	if err := claim.Append(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	second, err := watch.Recv()
	if err != nil || second.GetSequence() != 2 || second.GetKind() != "NodeAdmitted" {
		t.Fatal(second, err)
	}
	diverged := event
	diverged.Severity, diverged.Shard, diverged.Kind = topology.Warning, "shard-7", "DivergedData"
	if err := claim.Append(t.Context(), diverged); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name    string
		request *basaltv1.ListEventsRequest
		want    []uint64
	}{
		{"of a shard", &basaltv1.ListEventsRequest{Shard: "shard-7"}, []uint64{3}},
		{"at least as severe", &basaltv1.ListEventsRequest{Severity: basaltv1.Severity_SEVERITY_WARNING, Shard: "shard-7"}, []uint64{3}},
		{"more severe than all", &basaltv1.ListEventsRequest{Severity: basaltv1.Severity_SEVERITY_CRITICAL, Shard: "shard-7"}, nil},
		{"the newest one of those that are wanted", &basaltv1.ListEventsRequest{Until: timestamppb.New(time.Now().Add(time.Hour)), Limit: 1}, []uint64{3}},
		{"none so new", &basaltv1.ListEventsRequest{Since: timestamppb.New(time.Now().Add(time.Hour))}, nil},
	} {
		row.request.Cluster = "blue"
		list, err := events.ListEvents(t.Context(), row.request)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, e := range list.GetEvents() {
			got = append(got, e.GetSequence())
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
	some, err := events.WatchEvents(ctx, &basaltv1.WatchEventsRequest{Cluster: "blue", Shard: "shard-7"})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := some.Recv(); err != nil || e.GetSequence() != 3 {
		t.Errorf("%v, %v, want the one of shard-7", e, err)
	}
	other.api.Close()
	for err == nil {
		_, err = watch.Recv()
	}
	wantStatus(t, err, codes.Unavailable)
}

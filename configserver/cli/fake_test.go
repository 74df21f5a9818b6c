package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/internal/redistest"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// noon is when the tests run.
var noon = time.Date(2024, 5, 6, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(-d)) }

// fakeConfigserver answers with one cluster as it never changes.
type fakeConfigserver struct {
	basaltv1.UnimplementedClusterServiceServer
	basaltv1.UnimplementedTopologyServiceServer
	basaltv1.UnimplementedEventServiceServer
	basaltv1.UnimplementedUserServiceServer

	clusters []*basaltv1.Cluster
	// ownerless is how many calls are answered with "no configserver owns".
	ownerless int
	// asked are the last requests, as text.
	asked []string
}

func startFake(t *testing.T) (*fakeConfigserver, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:"+portString(redistest.FreePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeConfigserver{clusters: []*basaltv1.Cluster{blue()}}
	server := grpc.NewServer()
	basaltv1.RegisterClusterServiceServer(server, f)
	basaltv1.RegisterTopologyServiceServer(server, f)
	basaltv1.RegisterEventServiceServer(server, f)
	basaltv1.RegisterUserServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return f, listener.Addr().String()
}

func portString(port int) string {
	_, text, _ := strings.Cut((&net.TCPAddr{Port: port}).String(), ":")
	return text
}

func blue() *basaltv1.Cluster {
	return &basaltv1.Cluster{
		Name: "blue", Uid: "5eed00000000", Shards: 2, NodesPerShard: 2, Epoch: 17, Owner: "configserver-0", CreatedAt: ago(3 * time.Hour),
		Phase: basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING, ServingKnown: true, NotServing: blueOutage(),
		Policy: &basaltv1.Policy{
			ReadPolicy: basaltv1.ReadPolicy_READ_POLICY_MASTER, ProbeInterval: durationpb.New(100 * time.Millisecond),
			RefusedProbes: 3, HungAfter: durationpb.New(4 * time.Second), MaxBusy: durationpb.New(30 * time.Second), AckTimeout: durationpb.New(500 * time.Millisecond),
			MaxFailovers: 3, FailoverPeriod: durationpb.New(10 * time.Minute), MaxReplicaAge: durationpb.New(time.Minute),
			MaxReadLag: 16 << 20, RestartGrace: durationpb.New(10 * time.Second),
		},
	}
}

// blueOutage: shard-1 has no master.
func blueOutage() []*basaltv1.ShardOutage {
	return []*basaltv1.ShardOutage{{
		Shard: "shard-1", Slots: []*basaltv1.SlotRange{{Start: 8192, End: 16383}}, Since: ago(850 * time.Millisecond),
		Message: "shard-1 has no master: waiting for shard-1-1; start what is missing",
	}}
}

func blueTopology() *basaltv1.Topology {
	return &basaltv1.Topology{
		Cluster: "blue", Epoch: 17, CommittedAt: ago(850 * time.Millisecond), Reason: "failover shard-1: no master",
		Phase: basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING, ReadPolicy: basaltv1.ReadPolicy_READ_POLICY_MASTER,
		NotServing: blueOutage(),
		Shards: []*basaltv1.Shard{
			{
				Id: "shard-0", Slots: []*basaltv1.SlotRange{{Start: 0, End: 8191}}, Master: "shard-0-0", Generation: 1,
				Nodes: []*basaltv1.Node{
					{Id: "shard-0-0", Address: "127.0.0.1:7001", Incarnation: "5f0c2d6f1a", InReadSet: true, Readable: true, Priority: 100},
					{Id: "shard-0-1", Address: "127.0.0.1:7002", Incarnation: "90ab12cd34", InReadSet: true, Readable: true, Priority: 100},
				},
			},
			{
				Id: "shard-1", Slots: []*basaltv1.SlotRange{{Start: 8192, End: 16382}, {Start: 16383, End: 16383}}, Generation: 2,
				Nodes: []*basaltv1.Node{
					{Id: "shard-1-0", Address: "127.0.0.1:7003", Incarnation: "77aa", Readable: true, Priority: 100},
					{Id: "shard-1-1", Address: "127.0.0.1:7004", Incarnation: "88bb", InReadSet: true, Readable: true, Priority: 100},
				},
				Operation: &basaltv1.Operation{
					Id: "op-3", Kind: basaltv1.OperationKind_OPERATION_KIND_FAILOVER, Phase: "electing", Cause: "DeadMaster",
					StartedAt: ago(850 * time.Millisecond), OldMaster: "shard-1-0",
				},
			},
		},
	}
}

func blueStatus() *basaltv1.ClusterStatus {
	return &basaltv1.ClusterStatus{
		Cluster: blue(), Topology: blueTopology(),
		Nodes: []*basaltv1.NodeStatus{
			{
				Node: "shard-0-0", Shard: "shard-0", Address: "127.0.0.1:7001", Role: basaltv1.NodeRole_NODE_ROLE_MASTER,
				Incarnation: "5f0c2d6f1a", Offset: 123456, Lag: -1, Sight: basaltv1.Sight_SIGHT_OK, Health: "ok",
				InReadSet: true, InSync: true, Version: "7.0.15", Keys: 1000, UsedMemory: 1572864, LastOkAt: ago(time.Second),
			},
			{
				Node: "shard-0-1", Shard: "shard-0", Address: "127.0.0.1:7002", Role: basaltv1.NodeRole_NODE_ROLE_REPLICA,
				Incarnation: "90ab12cd34", Offset: 123400, Lag: 56, Sight: basaltv1.Sight_SIGHT_OK, Health: "ok",
				InReadSet: true, InSync: true, Version: "7.0.15", Keys: 1000, UsedMemory: 1048576, LinkUp: true, LastOkAt: ago(time.Second),
			},
			{
				Node: "shard-1-0", Shard: "shard-1", Address: "127.0.0.1:7003", Role: basaltv1.NodeRole_NODE_ROLE_FENCED,
				Offset: -1, Lag: -1, Keys: -1, UsedMemory: -1, Sight: basaltv1.Sight_SIGHT_REFUSED, Health: "nobody can reach the master; a replica takes over",
			},
		},
		Proxies: []*basaltv1.ProxyStatus{
			{Id: "c0ffee0000000000", Address: "127.0.0.1:6380", AckedEpoch: 17, Connected: true, Clients: 12, Version: "v1"},
			{Id: "deadbeef00000000", Address: "127.0.0.1:6381", AckedEpoch: 12, AwaySince: ago(3 * time.Minute), ShutOut: true,
				OpenShards: []string{"shard-0", "shard-1", "shard-2", "shard-3"}},
			{Id: "deadbee000000000", Address: "127.0.0.1:6382", AckedEpoch: 16, AwaySince: ago(12 * time.Second), Serving: true, Version: "v1"},
		},
		Diverged: []*basaltv1.Diverged{
			{Shard: "shard-0", Node: "shard-0-1", FoundAt: ago(time.Minute), Bytes: 4096, File: "basalt-diverged.rdb", Until: ago(-9 * time.Minute)},
			{Shard: "shard-1", Node: "shard-1-0", FoundAt: ago(time.Hour), Bytes: -1, Error: "the server keeps nothing on disk (no save points and no append-only file)"},
			{Shard: "shard-1", Node: "shard-1-1", FoundAt: ago(time.Second), Bytes: 12},
		},
		CrossSlot: []*basaltv1.CrossSlotRequests{
			{Command: "multi", ClientName: "worker", Requests: 40211, PerSecond: 12.34},
			{Command: "rename", Requests: 2, PerSecond: 0.01},
		},
		Problems: []*basaltv1.Problem{{Code: failover.NotServing, Shard: "shard-1", Message: "not printed twice", Since: ago(time.Second)}, {Since: ago(850 * time.Millisecond), Code: "DeadMaster", Shard: "shard-1", Node: "shard-1-0", Message: "nobody can reach the master; a replica takes over"}},
	}
}

func failoverReport() *basaltv1.Report {
	return &basaltv1.Report{
		Id: "op-2", Kind: basaltv1.OperationKind_OPERATION_KIND_FAILOVER, Shard: "shard-0", Cause: "DeadMaster: refused 3 times",
		Evidence: []*basaltv1.Evidence{
			{VantagePoint: "configserver cs-0", Sight: basaltv1.Sight_SIGHT_REFUSED, Detail: "connection refused"},
			{VantagePoint: "replica shard-0-1", Sight: basaltv1.Sight_SIGHT_TIMEOUT},
			{VantagePoint: "replica shard-0-2", Detail: "has not answered in time"},
		},
		Phases: []*basaltv1.ReportPhase{
			{Name: "fencing", Duration: durationpb.New(4200 * time.Microsecond)},
			{Name: "electing", Duration: durationpb.New(12 * time.Millisecond)},
			{Name: "promoting", Duration: durationpb.New(231 * time.Millisecond)},
		},
		Candidates: []*basaltv1.Candidate{
			{Node: "shard-0-1", Offset: 123400, Priority: 100, Chosen: true},
			{Node: "shard-0-2", Offset: -1, Priority: 100, Refused: "not reachable"},
		},
		OldMaster: "shard-0-0", NewMaster: "shard-0-1", OffsetGap: 7700433, StartEpoch: 12, EndEpoch: 15,
		UnackedProxies: []string{"deadbeef"}, MoreUnacked: 984, Fenced: true, Succeeded: true,
	}
}

func (f *fakeConfigserver) note(request string) { f.asked = append(f.asked, request) }

func (f *fakeConfigserver) ListClusters(context.Context, *basaltv1.ListClustersRequest) (*basaltv1.ListClustersResponse, error) {
	return &basaltv1.ListClustersResponse{Clusters: f.clusters}, nil
}

func (f *fakeConfigserver) GetCluster(context.Context, *basaltv1.GetClusterRequest) (*basaltv1.Cluster, error) {
	return blue(), nil
}

func (f *fakeConfigserver) CreateCluster(_ context.Context, r *basaltv1.CreateClusterRequest) (*basaltv1.Cluster, error) {
	if r.GetName() == "blue" {
		return nil, status.Error(codes.AlreadyExists, `cluster "blue": already exists; delete it first or choose another name`)
	}
	return &basaltv1.Cluster{Name: r.GetName(), Shards: r.GetShards(), NodesPerShard: r.GetNodesPerShard(), Policy: r.GetPolicy()}, nil
}

func (f *fakeConfigserver) UpdateCluster(_ context.Context, r *basaltv1.UpdateClusterRequest) (*basaltv1.Cluster, error) {
	c := blue()
	c.Policy, c.Epoch = r.GetPolicy(), 18
	return c, nil
}

func (f *fakeConfigserver) SetConfig(_ context.Context, r *basaltv1.SetConfigRequest) (*basaltv1.Cluster, error) {
	if r.GetParameters()[0].GetName() == "port" {
		return nil, status.Error(codes.InvalidArgument, "ERR CONFIG SET failed (possibly related to argument 'port') - no")
	}
	text := "set " + r.GetCluster()
	for _, p := range r.GetParameters() {
		text += " " + p.GetName() + "=" + p.GetValue()
	}
	f.note(text)
	c := blue()
	c.Config = r.GetParameters()
	return c, nil
}

func (f *fakeConfigserver) UnsetConfig(_ context.Context, r *basaltv1.UnsetConfigRequest) (*basaltv1.Cluster, error) {
	f.note("unset " + r.GetCluster() + " " + strings.Join(r.GetNames(), " "))
	return blue(), nil
}

func (f *fakeConfigserver) DeleteCluster(_ context.Context, r *basaltv1.DeleteClusterRequest) (*basaltv1.DeleteClusterResponse, error) {
	f.note("delete " + r.GetName())
	return &basaltv1.DeleteClusterResponse{}, nil
}

func (f *fakeConfigserver) RegisterNode(_ context.Context, r *basaltv1.RegisterNodeRequest) (*basaltv1.Topology, error) {
	f.note(strings.Join([]string{"register", r.GetCluster(), r.GetShard(), r.GetNode(), r.GetAddress()}, " "))
	return blueTopology(), nil
}

func (f *fakeConfigserver) DeregisterNode(context.Context, *basaltv1.DeregisterNodeRequest) (*basaltv1.Topology, error) {
	return nil, status.Error(codes.FailedPrecondition, "shard-0-0 is the master of shard-0; switch over first")
}

func (f *fakeConfigserver) SetNodeReadable(context.Context, *basaltv1.SetNodeReadableRequest) (*basaltv1.Topology, error) {
	return blueTopology(), nil
}

func (f *fakeConfigserver) GetStatus(context.Context, *basaltv1.GetStatusRequest) (*basaltv1.ClusterStatus, error) {
	if f.ownerless > 0 {
		f.ownerless--
		return nil, status.Error(codes.Unavailable, `no configserver owns cluster "blue" right now; retry in a few seconds`)
	}
	return blueStatus(), nil
}

func (f *fakeConfigserver) Switchover(_ context.Context, r *basaltv1.SwitchoverRequest) (*basaltv1.OperationResult, error) {
	report := failoverReport()
	report.Kind, report.Succeeded, report.NewMaster = basaltv1.OperationKind_OPERATION_KIND_SWITCHOVER, false, report.OldMaster
	report.Error, report.OffsetGap, report.UnackedProxies, report.Evidence = "shard-0-1 did not catch up within 2s", -1, nil, nil
	f.note("switchover " + r.GetCluster() + " " + r.GetShard() + " to " + r.GetCandidate())
	return &basaltv1.OperationResult{Report: report, Epoch: report.EndEpoch}, nil
}

func (f *fakeConfigserver) Failover(context.Context, *basaltv1.FailoverRequest) (*basaltv1.OperationResult, error) {
	return &basaltv1.OperationResult{Report: failoverReport(), Epoch: 15}, nil
}

func (f *fakeConfigserver) RotateCredentials(context.Context, *basaltv1.RotateCredentialsRequest) (*basaltv1.RotateCredentialsResponse, error) {
	return &basaltv1.RotateCredentialsResponse{Generations: map[string]uint64{"shard-10": 2, "shard-2": 3, "shard-0": 2}}, nil
}

func (f *fakeConfigserver) GetTopology(_ context.Context, r *basaltv1.GetTopologyRequest) (*basaltv1.Topology, error) {
	t := blueTopology()
	if r.GetEpoch() != 0 {
		t.Epoch = r.GetEpoch()
	}
	return t, nil
}

func (f *fakeConfigserver) ListEpochs(context.Context, *basaltv1.ListEpochsRequest) (*basaltv1.ListEpochsResponse, error) {
	head := blueTopology()
	head.Shards = nil
	return &basaltv1.ListEpochsResponse{Epochs: []*basaltv1.Topology{head, {
		Cluster: "blue", Epoch: 9, CommittedAt: ago(26 * time.Hour), Reason: "cluster serves", Phase: basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING,
	}}}, nil
}

func (f *fakeConfigserver) AdoptTopology(_ context.Context, r *basaltv1.AdoptTopologyRequest) (*basaltv1.AdoptTopologyResponse, error) {
	if r.GetCluster() == "red" {
		return nil, status.Error(codes.FailedPrecondition, "shard-0: shard-0-0 and shard-0-1 are masters, and let proxies of generation 2 in: find out which one has the data, and end the others")
	}
	return &basaltv1.AdoptTopologyResponse{Epoch: 157, Why: "c0ffee obeys epoch 57, the record is at epoch 42", Shards: []*basaltv1.AdoptedShard{
		{Shard: "shard-0", Master: "shard-0-1", RecordedMaster: "shard-0-0", Generation: 2, Followers: []string{"shard-0-0"}},
		{Shard: "shard-1", Master: "shard-1-0", RecordedMaster: "shard-1-0", Generation: 1,
			Notes: []string{"shard-1-1 could not be asked (connection refused): see that it was not the master"}},
	}}, nil
}

func (f *fakeConfigserver) SetMaintenance(context.Context, *basaltv1.SetMaintenanceRequest) (*basaltv1.SetMaintenanceResponse, error) {
	return &basaltv1.SetMaintenanceResponse{Epoch: 18}, nil
}

func (f *fakeConfigserver) PlanFailover(_ context.Context, plan *basaltv1.PlanFailoverRequest) (*basaltv1.FailoverPlan, error) {
	r := plan.GetFailover()
	switch {
	case r.GetAcceptLoss():
		return &basaltv1.FailoverPlan{Master: "shard-0-0", Candidate: r.GetCandidate(), Lost: "the last 4096 bytes that its master wrote", Bytes: 4096}, nil
	case r.GetShard() == "shard-1":
		return &basaltv1.FailoverPlan{Master: "shard-1-0", Candidate: "shard-1-1", Bytes: 0}, nil
	}
	return &basaltv1.FailoverPlan{Master: "shard-0-0", MasterLives: true, Candidate: "shard-0-1", Bytes: 56}, nil
}

func (f *fakeConfigserver) ForgetProxy(_ context.Context, r *basaltv1.ForgetProxyRequest) (*basaltv1.ForgetProxyResponse, error) {
	if r.GetProxy() == "c0ffee0000000000" {
		return nil, status.Error(codes.FailedPrecondition, "c0ffee0000000000 at 127.0.0.1:6380 is connected, and would come back at once: stop it first")
	}
	return &basaltv1.ForgetProxyResponse{}, nil
}

func (f *fakeConfigserver) Barrier(_ context.Context, r *basaltv1.BarrierRequest) (*basaltv1.BarrierResponse, error) {
	if r.GetEpoch() == 99 {
		return nil, status.Error(codes.DeadlineExceeded, "epoch 99 is not obeyed by everybody: deadbeef00000000 at 127.0.0.1:6381 has been away for 3m0s")
	}
	return &basaltv1.BarrierResponse{Epoch: 17, Proxies: []string{"c0ffee"}}, nil
}

func (f *fakeConfigserver) events() []*basaltv1.Event {
	return []*basaltv1.Event{
		{Sequence: 41, Time: ago(90 * time.Second), Cluster: "blue", Kind: "NodeAdmitted", Severity: basaltv1.Severity_SEVERITY_INFO, Shard: "shard-0", Node: "shard-0-1", Message: "admitted as a replica", Epoch: 11, AskedBy: "10.0.0.7:41200"},
		{Sequence: 42, Time: ago(30 * time.Second), Cluster: "blue", Kind: "FailoverFinished", Severity: basaltv1.Severity_SEVERITY_WARNING, Shard: "shard-0", Message: "shard-0-1 replaced shard-0-0", Epoch: 15, Report: failoverReport()},
	}
}

func (f *fakeConfigserver) ListEvents(_ context.Context, r *basaltv1.ListEventsRequest) (*basaltv1.ListEventsResponse, error) {
	if r.GetSince() != nil {
		f.note(fmt.Sprintf("list %s %s %s %s", r.GetCluster(), enum(r.GetSeverity(), "SEVERITY_"),
			r.GetSince().AsTime().Format(time.TimeOnly), r.GetUntil().AsTime().Format(time.TimeOnly)))
	}
	out := &basaltv1.ListEventsResponse{}
	for _, e := range f.events() {
		if e.GetSequence() > r.GetAfter() {
			out.Events = append(out.Events, e)
		}
	}
	return out, nil
}

func (f *fakeConfigserver) ListUsers(context.Context, *basaltv1.ListUsersRequest) (*basaltv1.ListUsersResponse, error) {
	return &basaltv1.ListUsersResponse{Epoch: 12, DefaultPasswordFromFile: true, Users: []*basaltv1.User{
		{Rules: "user app on #2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b ~app:* resetchannels -@all +@read", Created: 9},
		{Rules: "user default on #2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b ~* &* +@all"},
		{Rules: "user guest off nopass resetchannels -@all", Created: 11},
		{Rules: "user later on resetchannels -@all +nosuch", Created: 11},
	}}, nil
}

func (f *fakeConfigserver) SetUser(_ context.Context, r *basaltv1.SetUserRequest) (*basaltv1.SetUserResponse, error) {
	words := make([]string, 0, len(r.GetModifiers()))
	for _, m := range r.GetModifiers() {
		words = append(words, string(m))
	}
	f.asked = append(f.asked, r.GetCluster()+" "+string(r.GetUser())+" "+strings.Join(words, "|"))
	if strings.Contains(f.asked[len(f.asked)-1], "nosuch") {
		return nil, status.Error(codes.InvalidArgument, "Error in ACL SETUSER modifier '+nosuch': Unknown command or category name in ACL")
	}
	return &basaltv1.SetUserResponse{Epoch: 13}, nil
}

func (f *fakeConfigserver) DeleteUsers(_ context.Context, r *basaltv1.DeleteUsersRequest) (*basaltv1.DeleteUsersResponse, error) {
	if !r.GetResetDefault() {
		return nil, status.Error(codes.InvalidArgument, "reset_default is not set")
	}
	f.note("delete users " + string(bytes.Join(r.GetUsers(), []byte(" "))) + " of " + r.GetCluster())
	return &basaltv1.DeleteUsersResponse{Deleted: 1, Epoch: 14}, nil
}

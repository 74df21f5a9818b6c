package grpcapi

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (l *fakeLoop) AdoptTopology(_ context.Context, planOnly bool) (control.Adoption, error) {
	if l.err != nil {
		return control.Adoption{}, l.err
	}
	if !planOnly {
		l.commit(func(c *topology.Cluster) { c.Epoch += 99 })
	}
	return control.Adoption{Epoch: l.Topology().Epoch, Why: "p1 obeys epoch 57", Shards: []failover.Adopted{
		{Shard: "shard-0", Master: "shard-0-1", Recorded: "shard-0-0", Generation: 2, Followers: []string{"shard-0-0"}, Notes: []string{"look"}}}}, nil
}

func TestAdoptTopology(t *testing.T) {
	st := newStore(t)
	owner, other := startConfigserver(t, st, "cs-0"), startConfigserver(t, st, "cs-1")
	loop := owner.own(t, st, "blue")
	epoch := loop.Topology().Epoch
	plan, err := other.topologies().AdoptTopology(t.Context(), &basaltv1.AdoptTopologyRequest{Cluster: "blue", PlanOnly: true})
	if err != nil || plan.GetEpoch() != epoch || plan.GetWhy() == "" || len(plan.GetShards()) != 1 {
		t.Fatal(plan, err)
	}
	if s := plan.GetShards()[0]; s.GetMaster() != "shard-0-1" || s.GetRecordedMaster() != "shard-0-0" || s.GetGeneration() != 2 ||
		len(s.GetFollowers()) != 1 || len(s.GetNotes()) != 1 {
		t.Errorf("shard %v", s)
	}
	done, err := other.topologies().AdoptTopology(t.Context(), &basaltv1.AdoptTopologyRequest{Cluster: "blue"})
	if err != nil || done.GetEpoch() != epoch+100 {
		t.Error(done, err)
	}
	loop.err = topology.Preconditionf("shard-0: two are masters")
	_, err = other.topologies().AdoptTopology(t.Context(), &basaltv1.AdoptTopologyRequest{Cluster: "blue"})
	wantStatus(t, err, codes.FailedPrecondition, "shard-0: two are masters")
	_, err = other.topologies().AdoptTopology(t.Context(), &basaltv1.AdoptTopologyRequest{Cluster: "B/"})
	wantStatus(t, err, codes.InvalidArgument, "cluster")
}

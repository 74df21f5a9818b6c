package grpcapi

import (
	"context"

	"google.golang.org/grpc"

	"github.com/basalt-redis/basalt/configserver/control"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (s topologyService) AdoptTopology(ctx context.Context, req *basaltv1.AdoptTopologyRequest) (*basaltv1.AdoptTopologyResponse, error) {
	if err := checkCluster("cluster", req.GetCluster()); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.AdoptTopologyResponse, error) {
			adopted, err := loop.AdoptTopology(ctx, req.GetPlanOnly())
			if err != nil {
				return nil, err
			}
			out := &basaltv1.AdoptTopologyResponse{Epoch: adopted.Epoch, Why: adopted.Why}
			for _, a := range adopted.Shards {
				out.Shards = append(out.Shards, &basaltv1.AdoptedShard{Shard: a.Shard, Master: a.Master, RecordedMaster: a.Recorded,
					Generation: a.Generation, Followers: a.Followers, Notes: a.Notes})
			}
			return out, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.AdoptTopologyResponse, error) {
			return basaltv1.NewTopologyServiceClient(conn).AdoptTopology(ctx, req)
		})
}

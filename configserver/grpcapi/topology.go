package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (s topologyService) GetTopology(ctx context.Context, req *basaltv1.GetTopologyRequest) (*basaltv1.Topology, error) {
	name := req.GetCluster()
	if err := checkCluster("cluster", name); err != nil {
		return nil, toStatus(err)
	}
	c, err := s.cfg.Store.Cluster(ctx, name)
	if err != nil {
		return nil, toStatus(aboutCluster(name, err))
	}
	if epoch := req.GetEpoch(); epoch != 0 && epoch != c.Epoch {
		newest := c.Epoch
		c, err = s.cfg.Store.Epoch(ctx, name, epoch)
		switch {
		case errors.Is(err, store.ErrNotFound) && epoch > newest:
			return nil, status.Errorf(codes.NotFound, "cluster %q has not reached epoch %d; it is at %d", name, epoch, newest)
		case errors.Is(err, store.ErrNotFound):
			return nil, status.Errorf(codes.NotFound, "epoch %d of cluster %q is not kept any more; `basaltctl topology epochs %s` lists those that are", epoch, name, name)
		case err != nil:
			return nil, toStatus(fmt.Errorf("epoch %d of cluster %q: %w", epoch, name, err))
		}
	}
	t := topologyToProto(&c)
	if req.GetEpoch() == 0 {
		t.NotServing = s.withOutages(ctx, &basaltv1.Cluster{Name: name}).GetNotServing()
	}
	return t, nil
}

func (s topologyService) ListEpochs(ctx context.Context, req *basaltv1.ListEpochsRequest) (*basaltv1.ListEpochsResponse, error) {
	name := req.GetCluster()
	if err := checkCluster("cluster", name); err != nil {
		return nil, toStatus(err)
	}
	limit := int(req.GetLimit())
	if limit == 0 {
		limit = 50
	}
	epochs, err := s.cfg.Store.Epochs(ctx, name, min(limit, store.KeepEpochs))
	if err != nil {
		return nil, toStatus(aboutCluster(name, err))
	}
	out := &basaltv1.ListEpochsResponse{}
	for i := range epochs {
		out.Epochs = append(out.Epochs, topologyHead(&epochs[i]))
	}
	return out, nil
}

// Barriers wait for 10 s when nothing else is asked, and never for longer than
// maxBarrier.
const (
	defaultBarrier = 10 * time.Second
	maxBarrier     = 10 * time.Minute
)

func (s topologyService) Barrier(ctx context.Context, req *basaltv1.BarrierRequest) (*basaltv1.BarrierResponse, error) {
	if err := checkCluster("cluster", req.GetCluster()); err != nil {
		return nil, toStatus(err)
	}
	wait := defaultBarrier
	if req.GetTimeout() != nil {
		wait = req.GetTimeout().AsDuration()
	}
	if wait <= 0 || wait > maxBarrier {
		return nil, toStatus(topology.Invalidf("timeout", "%v, want more than 0 and at most %v", wait, maxBarrier))
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.BarrierResponse, error) {
			newest := loop.Topology().Epoch
			if req.GetEpoch() > newest {
				return nil, topology.Invalidf("epoch", "%d is in the future; cluster %q is at %d", req.GetEpoch(), req.GetCluster(), newest)
			}
			waiting, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			epoch, proxies, err := loop.Barrier(waiting, req.GetEpoch())
			var unacked *control.UnackedError
			if errors.As(err, &unacked) {
				return nil, status.Error(codes.DeadlineExceeded, unacked.Error())
			}
			if err != nil {
				return nil, err
			}
			return &basaltv1.BarrierResponse{Epoch: epoch, Proxies: proxies}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.BarrierResponse, error) {
			return basaltv1.NewTopologyServiceClient(conn).Barrier(ctx, req)
		})
}

package grpcapi

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// ownerWait is how long CreateCluster waits until a loop took the cluster, so
// that the first RegisterNode after it finds one.
const ownerWait = 2 * time.Second

func (s clusterService) CreateCluster(ctx context.Context, req *basaltv1.CreateClusterRequest) (*basaltv1.Cluster, error) {
	name := req.GetName()
	if err := checkCluster("name", name); err != nil {
		return nil, toStatus(err)
	}
	if err := checkSize(req.GetShards(), req.GetNodesPerShard()); err != nil {
		return nil, toStatus(err)
	}
	policy, err := policyFromProto(req.GetPolicy())
	if err == nil {
		err = checkPolicy(policy, int(req.GetNodesPerShard()))
	}
	if err == nil {
		err = s.cfg.Credentials(name)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	now := s.now()
	c := topology.Cluster{
		Name:        name,
		UID:         rand.Text(),
		Epoch:       1,
		CommittedAt: now,
		CreatedAt:   now,
		Reason:      "cluster created",
		Phase:       topology.Forming,
		WantShards:  int(req.GetShards()),
		WantNodes:   int(req.GetNodesPerShard()),
		Policy:      policy,
	}
	c.MoreSeats()
	if err := s.cfg.Store.Create(ctx, c); err != nil {
		return nil, toStatus(aboutCluster(name, err))
	}
	s.log.Info("cluster created", "cluster", name, "shards", c.WantShards, "nodes_per_shard", c.WantNodes)
	return clusterToProto(&c, s.awaitOwner(ctx, name)), nil
}

// awaitOwner returns the owner of a new cluster, or "" when it took too long.
func (s *Server) awaitOwner(ctx context.Context, cluster string) string {
	ctx, cancel := context.WithTimeout(ctx, ownerWait)
	defer cancel()
	for {
		if _, ok := s.cfg.Loops.Local(cluster); ok {
			return s.cfg.Self.ID
		}
		owner, err := s.cfg.Store.Owner(ctx, cluster)
		if err == nil && owner.ID != s.cfg.Self.ID {
			return owner.ID
		}
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// owner returns the id of the owner, or "" when there is none or it cannot be
// told now: it decorates answers and must not fail them.
func (s *Server) owner(ctx context.Context, cluster string) string {
	if _, ok := s.cfg.Loops.Local(cluster); ok {
		return s.cfg.Self.ID
	}
	owner, err := s.cfg.Store.Owner(ctx, cluster)
	if err != nil {
		if !errors.Is(err, store.ErrNotFound) {
			s.log.Warn("owner of cluster not known", "cluster", cluster, "error", err)
		}
		return ""
	}
	return owner.ID
}

func (s clusterService) GetCluster(ctx context.Context, req *basaltv1.GetClusterRequest) (*basaltv1.Cluster, error) {
	if err := checkCluster("name", req.GetName()); err != nil {
		return nil, toStatus(err)
	}
	c, err := s.cfg.Store.Cluster(ctx, req.GetName())
	if err != nil {
		return nil, toStatus(aboutCluster(req.GetName(), err))
	}
	return s.withOutages(ctx, clusterToProto(&c, s.owner(ctx, c.Name))), nil
}

// outagesWithin bounds how long the owner of a cluster may take to say which of its
// shards serve.
const outagesWithin = time.Second

// withOutages adds what only the owner knows, if it answers.
func (s *Server) withOutages(ctx context.Context, c *basaltv1.Cluster) *basaltv1.Cluster {
	ctx, cancel := context.WithTimeout(ctx, outagesWithin)
	defer cancel()
	seen, err := onOwner(ctx, s, c.GetName(),
		func(loop control.API) (*basaltv1.Cluster, error) {
			outages, err := loop.Outages(ctx)
			if err != nil {
				return nil, err
			}
			return &basaltv1.Cluster{NotServing: outagesToProto(outages), ServingKnown: true}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.Cluster, error) {
			return basaltv1.NewClusterServiceClient(conn).GetCluster(ctx, &basaltv1.GetClusterRequest{Name: c.GetName()})
		})
	if err == nil {
		c.NotServing, c.ServingKnown = seen.GetNotServing(), seen.GetServingKnown()
	}
	return c
}

func (s clusterService) ListClusters(ctx context.Context, _ *basaltv1.ListClustersRequest) (*basaltv1.ListClustersResponse, error) {
	clusters, err := s.cfg.Store.Clusters(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	out := &basaltv1.ListClustersResponse{Clusters: make([]*basaltv1.Cluster, len(clusters))}
	var owners sync.WaitGroup
	for i := range clusters {
		owners.Go(func() {
			out.Clusters[i] = s.withOutages(ctx, clusterToProto(&clusters[i], s.owner(ctx, clusters[i].Name)))
		})
	}
	owners.Wait()
	return out, nil
}

func (s clusterService) UpdateCluster(ctx context.Context, req *basaltv1.UpdateClusterRequest) (*basaltv1.Cluster, error) {
	if err := checkCluster("name", req.GetName()); err != nil {
		return nil, toStatus(err)
	}
	policy, err := policyFromProto(req.GetPolicy())
	if err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetName(),
		func(loop control.API) (*basaltv1.Cluster, error) {
			if err := checkPolicy(policy, loop.Topology().WantNodes); err != nil {
				return nil, err
			}
			c, err := loop.UpdatePolicy(ctx, policy)
			if err != nil {
				return nil, err
			}
			s.log.Info("policy updated", "cluster", c.Name, "epoch", c.Epoch)
			return clusterToProto(&c, s.cfg.Self.ID), nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.Cluster, error) {
			return basaltv1.NewClusterServiceClient(conn).UpdateCluster(ctx, req)
		})
}

func (s clusterService) DeleteCluster(ctx context.Context, req *basaltv1.DeleteClusterRequest) (*basaltv1.DeleteClusterResponse, error) {
	if err := checkCluster("name", req.GetName()); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetName(),
		func(loop control.API) (*basaltv1.DeleteClusterResponse, error) {
			if err := loop.Delete(ctx); err != nil {
				// The loop loses its cluster by deleting it, and may notice that first.
				if _, gone := s.cfg.Store.Cluster(ctx, req.GetName()); !errors.Is(gone, store.ErrNotFound) {
					return nil, err
				}
			}
			s.log.Info("cluster deleted", "cluster", req.GetName())
			return &basaltv1.DeleteClusterResponse{}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.DeleteClusterResponse, error) {
			return basaltv1.NewClusterServiceClient(conn).DeleteCluster(ctx, req)
		})
}

func (s clusterService) RegisterNode(ctx context.Context, req *basaltv1.RegisterNodeRequest) (*basaltv1.Topology, error) {
	err := errors.Join(
		checkCluster("cluster", req.GetCluster()),
		checkShard(req.GetShard()),
		checkNode("node", req.GetNode()),
		checkAddress("address", req.GetAddress()),
	)
	if err == nil && req.GetPriority() > maxPriority {
		err = topology.Invalidf("priority", "%d, want 0 to %d", req.GetPriority(), maxPriority)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	node := topology.Node{
		ID:       req.GetNode(),
		Address:  req.GetAddress(),
		Readable: true,
		Priority: int(req.GetPriority()),
	}
	if node.Priority == 0 {
		node.Priority = 100
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.Topology, error) {
			c, err := loop.RegisterNode(ctx, req.GetShard(), node, req.GetDiscardData())
			return s.changed(c, err, "node registered", "shard", req.GetShard(), "node", node.ID, "address", node.Address)
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.Topology, error) {
			return basaltv1.NewClusterServiceClient(conn).RegisterNode(ctx, req)
		})
}

func (s clusterService) DeregisterNode(ctx context.Context, req *basaltv1.DeregisterNodeRequest) (*basaltv1.Topology, error) {
	if err := errors.Join(checkCluster("cluster", req.GetCluster()), checkNode("node", req.GetNode())); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.Topology, error) {
			c, err := loop.DeregisterNode(ctx, req.GetNode())
			return s.changed(c, err, "node deregistered", "node", req.GetNode())
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.Topology, error) {
			return basaltv1.NewClusterServiceClient(conn).DeregisterNode(ctx, req)
		})
}

func (s clusterService) SetNodeReadable(ctx context.Context, req *basaltv1.SetNodeReadableRequest) (*basaltv1.Topology, error) {
	if err := errors.Join(checkCluster("cluster", req.GetCluster()), checkNode("node", req.GetNode())); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.Topology, error) {
			c, err := loop.SetReadable(ctx, req.GetNode(), req.GetReadable())
			return s.changed(c, err, "node readable set", "node", req.GetNode(), "readable", req.GetReadable())
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.Topology, error) {
			return basaltv1.NewClusterServiceClient(conn).SetNodeReadable(ctx, req)
		})
}

// changed logs what an admin changed and answers with the new topology.
func (s *Server) changed(c topology.Cluster, err error, what string, attrs ...any) (*basaltv1.Topology, error) {
	if err != nil {
		return nil, err
	}
	s.log.With("cluster", c.Name, "epoch", c.Epoch).Info(what, attrs...)
	return topologyToProto(&c), nil
}

func (s clusterService) Switchover(ctx context.Context, req *basaltv1.SwitchoverRequest) (*basaltv1.OperationResult, error) {
	if err := errors.Join(checkCluster("cluster", req.GetCluster()), checkShard(req.GetShard()), checkCandidate(req.GetCandidate())); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.OperationResult, error) {
			report, err := loop.Switchover(ctx, req.GetShard(), req.GetCandidate())
			return operationResult(report, err)
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.OperationResult, error) {
			return basaltv1.NewClusterServiceClient(conn).Switchover(ctx, req)
		})
}

func (s clusterService) Failover(ctx context.Context, req *basaltv1.FailoverRequest) (*basaltv1.OperationResult, error) {
	if err := errors.Join(checkCluster("cluster", req.GetCluster()), checkShard(req.GetShard()), checkCandidate(req.GetCandidate())); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.OperationResult, error) {
			report, err := loop.Failover(ctx, req.GetShard(), failover.Wish{Node: req.GetCandidate(), AcceptLoss: req.GetAcceptLoss()})
			return operationResult(report, err)
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.OperationResult, error) {
			return basaltv1.NewClusterServiceClient(conn).Failover(ctx, req)
		})
}

func (s clusterService) PlanFailover(ctx context.Context, plan *basaltv1.PlanFailoverRequest) (*basaltv1.FailoverPlan, error) {
	req := plan.GetFailover()
	if err := errors.Join(checkCluster("cluster", req.GetCluster()), checkShard(req.GetShard()), checkCandidate(req.GetCandidate())); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.FailoverPlan, error) {
			p, err := loop.PlanFailover(ctx, req.GetShard(), failover.Wish{Node: req.GetCandidate(), AcceptLoss: req.GetAcceptLoss()})
			if err != nil {
				return nil, err
			}
			return &basaltv1.FailoverPlan{Master: p.Master, MasterLives: p.MasterLives, Candidate: p.Candidate, Lost: p.Lost, Bytes: p.Bytes}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.FailoverPlan, error) {
			return basaltv1.NewClusterServiceClient(conn).PlanFailover(ctx, plan)
		})
}

func operationResult(r topology.Report, err error) (*basaltv1.OperationResult, error) {
	if err != nil {
		return nil, err
	}
	return &basaltv1.OperationResult{Report: reportToProto(&r), Epoch: r.EndEpoch}, nil
}

func (s clusterService) RotateCredentials(ctx context.Context, req *basaltv1.RotateCredentialsRequest) (*basaltv1.RotateCredentialsResponse, error) {
	if err := checkCluster("cluster", req.GetCluster()); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.RotateCredentialsResponse, error) {
			generations, err := loop.Rotate(ctx)
			if err != nil {
				return nil, err
			}
			s.log.Info("credentials rotated", "cluster", req.GetCluster())
			return &basaltv1.RotateCredentialsResponse{Generations: generations}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.RotateCredentialsResponse, error) {
			return basaltv1.NewClusterServiceClient(conn).RotateCredentials(ctx, req)
		})
}

func (s clusterService) GetStatus(ctx context.Context, req *basaltv1.GetStatusRequest) (*basaltv1.ClusterStatus, error) {
	if err := checkCluster("cluster", req.GetCluster()); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.ClusterStatus, error) {
			status := loop.Status()
			return statusToProto(&status, s.cfg.Self.ID), nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.ClusterStatus, error) {
			return basaltv1.NewClusterServiceClient(conn).GetStatus(ctx, req)
		})
}

func (s clusterService) ForgetProxy(ctx context.Context, req *basaltv1.ForgetProxyRequest) (*basaltv1.ForgetProxyResponse, error) {
	err := checkCluster("cluster", req.GetCluster())
	if err == nil && req.GetProxy() == "" {
		err = topology.Invalidf("proxy", "name the proxy, by its id")
	}
	if err == nil {
		err = checkText("proxy", req.GetProxy())
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.ForgetProxyResponse, error) {
			if err := loop.ForgetProxy(ctx, req.GetProxy()); err != nil {
				return nil, err
			}
			s.log.Info("proxy forgotten", "cluster", req.GetCluster(), "proxy", req.GetProxy())
			return &basaltv1.ForgetProxyResponse{}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.ForgetProxyResponse, error) {
			return basaltv1.NewClusterServiceClient(conn).ForgetProxy(ctx, req)
		})
}

func (s clusterService) SetMaintenance(ctx context.Context, req *basaltv1.SetMaintenanceRequest) (*basaltv1.SetMaintenanceResponse, error) {
	err := errors.Join(checkCluster("cluster", req.GetCluster()), checkText("reason", req.GetReason()))
	if req.GetShard() != "" {
		err = errors.Join(err, checkShard(req.GetShard()))
	}
	length := req.GetLength().AsDuration()
	if length < 0 || length > topology.MaxMaintenance {
		err = errors.Join(err, topology.Invalidf("length", "%v, want at most %v, or 0 to end it", length, topology.MaxMaintenance))
	}
	if len(req.GetReason()) > topology.MaxReason {
		err = errors.Join(err, topology.Invalidf("reason", "%d bytes, at most %d are kept", len(req.GetReason()), topology.MaxReason))
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.SetMaintenanceResponse, error) {
			c, err := loop.SetMaintenance(ctx, req.GetShard(), length, req.GetReason())
			if err != nil {
				return nil, err
			}
			s.log.Info("maintenance", "cluster", c.Name, "shard", req.GetShard(), "length", length, "reason", req.GetReason())
			return &basaltv1.SetMaintenanceResponse{Epoch: c.Epoch}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.SetMaintenanceResponse, error) {
			return basaltv1.NewClusterServiceClient(conn).SetMaintenance(ctx, req)
		})
}

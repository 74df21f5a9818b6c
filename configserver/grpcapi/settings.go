package grpcapi

import (
	"context"
	"unicode/utf8"

	"google.golang.org/grpc"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (s clusterService) SetConfig(ctx context.Context, req *basaltv1.SetConfigRequest) (*basaltv1.Cluster, error) {
	if err := checkCluster("cluster", req.GetCluster()); err != nil {
		return nil, toStatus(err)
	}
	settings, err := settingsFromProto(req.GetParameters())
	if err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.Cluster, error) {
			c, err := loop.SetConfig(ctx, settings)
			if err != nil {
				return nil, err
			}
			return clusterToProto(&c, s.cfg.Self.ID), nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.Cluster, error) {
			return basaltv1.NewClusterServiceClient(conn).SetConfig(ctx, req)
		})
}

func (s clusterService) UnsetConfig(ctx context.Context, req *basaltv1.UnsetConfigRequest) (*basaltv1.Cluster, error) {
	err := checkCluster("cluster", req.GetCluster())
	if n := len(req.GetNames()); err == nil && (n == 0 || n > topology.MaxSettings) {
		err = topology.Invalidf("names", "%d, want 1 to %d", n, topology.MaxSettings)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.Cluster, error) {
			c, err := loop.UnsetConfig(ctx, req.GetNames())
			if err != nil {
				return nil, err
			}
			s.log.Info("configuration unset", "cluster", c.Name, "epoch", c.Epoch, "parameters", req.GetNames())
			return clusterToProto(&c, s.cfg.Self.ID), nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.Cluster, error) {
			return basaltv1.NewClusterServiceClient(conn).UnsetConfig(ctx, req)
		})
}

// settingsFromProto checks sizes. No error repeats a value: it may be a secret
// that belongs elsewhere.
func settingsFromProto(list []*basaltv1.ConfigParameter) ([]topology.Setting, error) {
	if len(list) == 0 || len(list) > topology.MaxSettings {
		return nil, topology.Invalidf("parameters", "%d, want 1 to %d", len(list), topology.MaxSettings)
	}
	settings := make([]topology.Setting, len(list))
	for i, p := range list {
		switch {
		case p.GetName() == "" || len(p.GetName()) > topology.MaxSettingName:
			return nil, topology.Invalidf("parameters", "a name has %d bytes, want 1 to %d", len(p.GetName()), topology.MaxSettingName)
		case len(p.GetValue()) > topology.MaxSettingValue:
			return nil, topology.Invalidf("parameters", "the value of %s has %d bytes, at most %d are kept", p.GetName(), len(p.GetValue()), topology.MaxSettingValue)
		case !utf8.ValidString(p.GetName()) || !utf8.ValidString(p.GetValue()):
			return nil, topology.Invalidf("parameters", "number %d is not UTF-8", i+1)
		}
		settings[i] = topology.Setting{Name: p.GetName(), Value: p.GetValue()}
	}
	return settings, nil
}

func settingsToProto(settings []topology.Setting) (list []*basaltv1.ConfigParameter) {
	for _, s := range settings {
		list = append(list, &basaltv1.ConfigParameter{Name: s.Name, Value: s.Value})
	}
	return list
}

package grpcapi

import (
	"context"

	"google.golang.org/grpc"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/acl"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (s userService) ListUsers(ctx context.Context, req *basaltv1.ListUsersRequest) (*basaltv1.ListUsersResponse, error) {
	if err := checkCluster("cluster", req.GetCluster()); err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.ListUsersResponse, error) {
			c := loop.Topology()
			return &basaltv1.ListUsersResponse{Users: usersToProto(loop.Users()), DefaultPasswordFromFile: !c.OwnPasswords, Epoch: c.Epoch}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.ListUsersResponse, error) {
			return basaltv1.NewUserServiceClient(conn).ListUsers(ctx, req)
		})
}

func (s userService) SetUser(ctx context.Context, req *basaltv1.SetUserRequest) (*basaltv1.SetUserResponse, error) {
	err := checkCluster("cluster", req.GetCluster())
	if err == nil {
		err = checkWords("modifiers", req.GetModifiers())
	}
	if err == nil {
		err = checkWords("user", [][]byte{req.GetUser()})
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.SetUserResponse, error) {
			c, err := loop.SetUser(ctx, string(req.GetUser()), words(req.GetModifiers()))
			if err != nil {
				return nil, err
			}
			s.log.Info("user changed", "cluster", c.Name, "epoch", c.Epoch, "user", string(req.GetUser()))
			return &basaltv1.SetUserResponse{Epoch: c.Epoch}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.SetUserResponse, error) {
			return basaltv1.NewUserServiceClient(conn).SetUser(ctx, req)
		})
}

func (s userService) DeleteUsers(ctx context.Context, req *basaltv1.DeleteUsersRequest) (*basaltv1.DeleteUsersResponse, error) {
	err := checkCluster("cluster", req.GetCluster())
	if err == nil {
		err = checkWords("users", req.GetUsers())
	}
	for _, name := range req.GetUsers() {
		if err == nil && string(name) == acl.DefaultUser && !req.GetResetDefault() {
			err = topology.Invalidf("users", "the 'default' user cannot be removed; with reset_default it becomes what it is at first")
		}
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return onOwner(ctx, s.Server, req.GetCluster(),
		func(loop control.API) (*basaltv1.DeleteUsersResponse, error) {
			deleted, c, err := loop.DeleteUsers(ctx, words(req.GetUsers()))
			if err != nil {
				return nil, err
			}
			s.log.Info("users deleted", "cluster", c.Name, "epoch", c.Epoch, "users", words(req.GetUsers()), "deleted", deleted)
			return &basaltv1.DeleteUsersResponse{Deleted: uint32(deleted), Epoch: c.Epoch}, nil
		},
		func(ctx context.Context, conn grpc.ClientConnInterface) (*basaltv1.DeleteUsersResponse, error) {
			return basaltv1.NewUserServiceClient(conn).DeleteUsers(ctx, req)
		})
}

func checkWords(field string, list [][]byte) error {
	if reason := acl.TooMany(words(list)); reason != "" {
		return topology.Invalidf(field, "%s", reason)
	}
	return nil
}

func words(list [][]byte) []string {
	texts := make([]string, len(list))
	for i, word := range list {
		texts[i] = string(word)
	}
	return texts
}

func usersToProto(users []topology.User) []*basaltv1.User {
	list := make([]*basaltv1.User, len(users))
	for i, u := range users {
		list[i] = &basaltv1.User{Rules: u.Rules, Created: u.Created}
	}
	return list
}

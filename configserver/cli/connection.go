package cli

import (
	"context"
	"os"
	"strings"

	"google.golang.org/grpc"

	"github.com/basalt-redis/basalt/configserver/client"
	"github.com/basalt-redis/basalt/configserver/local"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// The app is the connection of its clients to the Configservers. It connects
// with the first call, so that no command has a step for that: addresses that
// cannot be right are the error of the call, a usageError.

func (a *app) clusters() basaltv1.ClusterServiceClient { return basaltv1.NewClusterServiceClient(a) }

func (a *app) topologies() basaltv1.TopologyServiceClient {
	return basaltv1.NewTopologyServiceClient(a)
}

func (a *app) events() basaltv1.EventServiceClient { return basaltv1.NewEventServiceClient(a) }

func (a *app) users() basaltv1.UserServiceClient { return basaltv1.NewUserServiceClient(a) }

// Invoke implements grpc.ClientConnInterface.
func (a *app) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	conn, err := a.dial()
	if err != nil {
		return err
	}
	return conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (a *app) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := a.dial()
	if err != nil {
		return nil, err
	}
	return conn.NewStream(ctx, desc, method, opts...)
}

// dial connects on first use.
func (a *app) dial() (*grpc.ClientConn, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	a.dialled = a.addresses()
	conn, err := client.Dial(a.dialled)
	if err != nil {
		return nil, usageError{err}
	}
	a.conn = conn
	return conn, nil
}

// addresses returns the Configservers to speak to.
func (a *app) addresses() []string {
	list := a.configserver
	if list == "" {
		list = os.Getenv("BASALT_CONFIGSERVER")
	}
	if list != "" {
		return strings.Split(list, ",")
	}
	if state, err := local.ReadState(a.statePath()); err == nil && len(state.Configservers) > 0 {
		return state.Configservers
	}
	return []string{"127.0.0.1:7400"}
}

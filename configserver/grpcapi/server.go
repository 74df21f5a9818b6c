// Package grpcapi is the Configserver's face: it answers admins and proxies in
// the words of proto/basalt/v1.
//
// Any Configserver may be asked anything. What is committed (clusters,
// topologies, epochs, events) is read from the store by whoever was asked.
// What only the cluster's loop knows or may change is answered by the replica
// that runs the loop: calls are sent on to it, and the stream of a proxy is
// piped to it (forward.go).
package grpcapi

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/store"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// Loops tells which clusters' loops run in this process.
type Loops interface {
	// Local returns the loop of a cluster, when it runs here now.
	Local(cluster string) (control.API, bool)
}

// Config is what a Server needs; Store, Loops, Self and Credentials must be set.
type Config struct {
	Store store.Store
	Loops Loops
	// Self is this Configserver as the others see it.
	Self store.Replica
	// Credentials says whether the credentials files of a cluster are here; its
	// error, a *topology.PreconditionError, names the files to make.
	Credentials func(cluster string) error
	// DialOptions are used for connections to other Configservers; none means
	// plain text.
	DialOptions []grpc.DialOption
	Logger      *slog.Logger
}

// Server implements ClusterService, TopologyService, EventService and
// ScriptService.
type Server struct {
	cfg    Config
	log    *slog.Logger
	peers  *peers
	owners owners
	now    func() time.Time

	// stopping ends when Close is called: streams end with UNAVAILABLE.
	stopping context.Context
	stop     context.CancelFunc
	closed   sync.Once
}

// New makes a Server; Register it, and Close it before the grpc.Server is
// stopped gracefully, as streams do not end by themselves.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		cfg:      cfg,
		log:      cfg.Logger,
		peers:    newPeers(cfg.DialOptions),
		now:      time.Now,
		stopping: ctx,
		stop:     cancel,
	}
	go s.owners.follow(ctx, cfg.Store)
	return s
}

// Register adds the services to a server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	basaltv1.RegisterClusterServiceServer(r, clusterService{Server: s})
	basaltv1.RegisterTopologyServiceServer(r, topologyService{Server: s})
	basaltv1.RegisterEventServiceServer(r, eventService{Server: s})
	basaltv1.RegisterUserServiceServer(r, userService{Server: s})
	basaltv1.RegisterScriptServiceServer(r, scriptService{Server: s})
}

// Close ends every stream with UNAVAILABLE, so that proxies go to another
// Configserver at once, and closes the connections to the others.
func (s *Server) Close() {
	s.closed.Do(func() {
		s.stop()
		s.peers.close()
	})
}

// ServerOptions are the options a grpc.Server for this API needs: proxies ping
// every second or two to notice a dead Configserver, which gRPC would punish
// by default, and a proxy that vanished without a FIN is noticed likewise.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             500 * time.Millisecond,
			PermitWithoutStream: true,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    5 * time.Second,
			Timeout: 5 * time.Second,
		}),
		grpc.ChainUnaryInterceptor(nameAsker),
	}
}

type clusterService struct {
	basaltv1.UnimplementedClusterServiceServer
	*Server
}

type topologyService struct {
	basaltv1.UnimplementedTopologyServiceServer
	*Server
}

type userService struct {
	basaltv1.UnimplementedUserServiceServer
	*Server
}

type eventService struct {
	basaltv1.UnimplementedEventServiceServer
	*Server
}

type scriptService struct {
	basaltv1.UnimplementedScriptServiceServer
	*Server
}

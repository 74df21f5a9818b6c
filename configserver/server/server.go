// Package server wires a Configserver together. It is the one place that knows
// all parts: store, ownership, control loops, gRPC, HTTP.
//
// Parts start in this order and stop in the opposite one:
//
//  1. HTTP, so that health can be asked from the first moment to the last.
//  2. The embedded etcd, if there is one, and the client of the store.
//  3. Ownership: the session, and the loops of the clusters claimed under it.
//     Stopping releases each cluster, so that another replica takes it at once.
//  4. gRPC. It stops first: streams end, and proxies go to another replica.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/basalt-redis/basalt/configserver/config"
	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/grpcapi"
	"github.com/basalt-redis/basalt/configserver/ownership"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/internal/lifecycle"
	"github.com/basalt-redis/basalt/internal/observe"
	"github.com/basalt-redis/basalt/internal/version"
)

// Server is one Configserver.
type Server struct {
	cfg      config.Serve
	log      *slog.Logger
	registry *prometheus.Registry
	rpc      net.Listener
	http     *observe.HTTP
	health   *health.Server
	self     store.Replica
	store    store.Store
	manager  *ownership.Manager
}

// stopTimeout bounds how long each part may take to stop.
const stopTimeout = 10 * time.Second

// New makes a server of checked settings and opens its ports.
func New(cfg config.Serve) (*Server, error) {
	log, err := observe.NewLogger(os.Stderr, cfg.LogLevel, cfg.LogFormat)
	if err != nil {
		return nil, fmt.Errorf("--%w", err)
	}
	s := &Server{cfg: cfg, log: log, registry: observe.NewRegistry(), health: health.NewServer()}
	if s.rpc, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	s.http = &observe.HTTP{
		Address: cfg.HTTPListen, Ready: s.ready, Lacking: s.notServing, Metrics: s.registry, Pprof: cfg.Pprof, Log: log,
	}
	if err := s.http.Listen(); err != nil {
		return nil, errors.Join(fmt.Errorf("--%w", err), s.rpc.Close())
	}
	s.self = store.Replica{ID: cfg.ID, Address: cfg.Advertise}
	if s.self.Address == "" {
		s.self.Address = s.rpc.Addr().String()
	}
	return s, nil
}

// Run serves until ctx ends, and then stops in order.
func (s *Server) Run(ctx context.Context) error {
	defer s.rpc.Close() // again when gRPC was started; harmless
	opened, err := s.open(ctx)
	if err != nil {
		return err
	}
	s.store = opened.store
	metrics := control.NewMetrics(s.registry)
	s.manager = ownership.New(ownership.Config{
		Store:   s.store,
		Self:    s.self,
		Logger:  s.log,
		Metrics: ownership.NewMetrics(s.registry),
		Changed: s.changed,
		NewLoop: func(cluster string, own store.Ownership) (ownership.Loop, error) {
			return s.newLoop(cluster, own, metrics)
		},
	})

	g := lifecycle.Group{Log: s.log, StopTimeout: stopTimeout}
	g.Add("http", s.http.Run)
	g.Add("store", opened.run)
	g.Add("ownership", s.manager.Run)
	g.Add("grpc", s.serveGRPC)
	http := "off"
	if a := s.http.Addr(); a != nil {
		http = a.String()
	}
	s.log.Info("configserver started", "version", version.String(), "id", s.self.ID, "grpc", s.rpc.Addr().String(),
		"advertise", s.self.Address, "http", http, "store", opened.kind, "lease_ttl", s.cfg.LeaseTTL)
	if s.cfg.CredentialsDir == "" {
		s.log.Warn("no --credentials-dir: clusters cannot be created or run until there is one")
	}
	err = g.Run(ctx)
	s.log.Info("configserver stopped", "error", err)
	return err
}

// newLoop makes the loop of a claimed cluster.
func (s *Server) newLoop(cluster string, own store.Ownership, metrics *control.Metrics) (ownership.Loop, error) {
	return control.New(control.Config{
		Cluster:     cluster,
		ID:          s.self.ID,
		Store:       s.store,
		Ownership:   own,
		Credentials: func() (*credentials.Set, error) { return credentials.Open(s.cfg.CredentialsDir, cluster) },
		Logger:      s.log,
		Metrics:     metrics,
	})
}

// ready says why nobody should be sent here.
func (s *Server) ready() error {
	if s.manager == nil {
		return errors.New("starting")
	}
	return s.manager.Ready()
}

// notServingWithin bounds how long the loops may take to say which shards serve nobody.
const notServingWithin = time.Second

// notServing says of the clusters that run here which shards serve nobody. That does
// not make this replica unready: it is the one that can do something about it.
func (s *Server) notServing() (lines []string) {
	ctx, cancel := context.WithTimeout(context.Background(), notServingWithin)
	defer cancel()
	loops := s.manager.Loops()
	for _, name := range slices.Sorted(maps.Keys(loops)) {
		outages, err := loops[name].Outages(ctx)
		if err != nil {
			lines = append(lines, fmt.Sprintf("cluster %s: %v", name, err))
		}
		for _, o := range outages {
			lines = append(lines, fmt.Sprintf("NOT SERVING: %s of cluster %s (slots %s) since %s: %s", o.Shard, name, o.Slots, o.Since.UTC().Format(time.RFC3339), o.Why))
		}
	}
	return lines
}

// HealthService is the name under which the gRPC health service tells if this
// replica runs a cluster's loop.
func HealthService(cluster string) string { return "cluster/" + cluster }

// changed publishes where loops run through the health service.
func (s *Server) changed(cluster string, running bool) {
	status := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if running {
		status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(HealthService(cluster), status)
}

// healthInterval is how often the overall gRPC health is brought up to date.
const healthInterval = 250 * time.Millisecond

// serveGRPC serves the API until ctx ends.
func (s *Server) serveGRPC(ctx context.Context) error {
	api := grpcapi.New(grpcapi.Config{
		Store: s.store,
		Loops: s.manager,
		Self:  s.self,
		Credentials: func(cluster string) error {
			set, err := credentials.OpenNew(s.cfg.CredentialsDir, cluster)
			if err != nil {
				return err
			}
			for _, warning := range set.Warnings() {
				s.log.Warn("credentials are readable to others", "cluster", cluster, "problem", warning)
			}
			return nil
		},
		Logger: s.log,
	})
	calls := newCalls(s.registry, s.log)
	server := grpc.NewServer(append(grpcapi.ServerOptions(),
		grpc.ChainUnaryInterceptor(calls.unary), grpc.ChainStreamInterceptor(calls.stream))...)
	api.Register(server)
	grpc_health_v1.RegisterHealthServer(server, s.health)
	reflection.Register(server)

	go func() {
		ticker := time.NewTicker(healthInterval)
		defer ticker.Stop()
		for {
			status := grpc_health_v1.HealthCheckResponse_SERVING
			if s.manager.Ready() != nil {
				status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
			}
			s.health.SetServingStatus("", status)
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		s.health.Shutdown()
		api.Close()
		// Calls in flight that wait for something (a switchover, a barrier) get
		// little time: handing the clusters over is worth more to everybody.
		hard := time.AfterFunc(time.Second, server.Stop)
		defer hard.Stop()
		server.GracefulStop()
	}()
	if err := server.Serve(s.rpc); err != nil {
		return err
	}
	<-stopped
	return nil
}

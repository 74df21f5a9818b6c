// Package server wires a proxy: settings, log, HTTP, the event loops and the
// connection to the Configserver.
//
// Start: both ports are bound at once, so that a busy one is an error before
// anything else happens. The loops start, and the Configserver is asked for the
// topology, for as long as it takes. Clients are accepted when the first one is
// there; until then their connections wait in the kernel's queue. Accepting
// earlier would mean to serve clients before it is known which password they
// must give.
//
// Stop: /readyz says no, the listener closes, clients finish what they sent
// within the drain timeout; then the Configserver is told goodbye, which is only
// true now that nothing more is sent to any node; last the HTTP server closes.
package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/basalt-redis/basalt/internal/lifecycle"
	"github.com/basalt-redis/basalt/internal/observe"
	"github.com/basalt-redis/basalt/internal/version"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/config"
	"github.com/basalt-redis/basalt/proxy/configclient"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// Server is one proxy. Run it once.
type Server struct {
	cfg     config.Config
	log     *slog.Logger
	started time.Time
	runID   string

	listener net.Listener
	http     *observe.HTTP
	engine   *reactor.Engine
	client   *configclient.Client
	scripts  *scripts.Library
	load     loadMeter

	// topology closes with the first table.
	topology     chan struct{}
	topologyOnce sync.Once
	accepting    atomic.Bool
	draining     atomic.Bool
}

// New makes a proxy of settings that are valid. Its log goes to logs.
func New(cfg config.Config, logs io.Writer) (*Server, error) {
	log, err := observe.NewLogger(logs, cfg.LogLevel, cfg.LogFormat)
	if err != nil {
		return nil, err
	}
	run := make([]byte, 20)
	_, _ = rand.Read(run) // never fails, see crypto/rand
	return &Server{
		cfg: cfg, log: log.With("cluster", cfg.Cluster), started: time.Now(), runID: hex.EncodeToString(run),
		topology: make(chan struct{}),
	}, nil
}

// Run serves until ctx ends and everything is stopped in order. The error says
// what could not be started, or what failed.
func (s *Server) Run(ctx context.Context) error {
	if err := s.open(); err != nil {
		return err
	}
	s.log.Info("proxy starts", "version", version.String(), "listen", s.listener.Addr().String(),
		"http", fmt.Sprint(s.http.Addr()), "configserver", s.cfg.ConfigServers, "proxy", s.client.ID())
	s.checkFiles()
	group := lifecycle.Group{Log: s.log}
	group.Add("http", s.http.Run)
	group.Add("configclient", s.client.Run)
	group.Add("scripts", s.scripts.Run)
	group.Add("clients", s.serveClients)
	err := group.Run(ctx)
	if err == nil {
		s.log.Info("proxy stopped")
	}
	return err
}

// spareFiles are descriptors for everything but clients: nodes, HTTP, logs.
const spareFiles = 512

// checkFiles warns when the system allows fewer clients than the settings do;
// the Go runtime has raised the soft limit to the hard one already.
func (s *Server) checkFiles() {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(s.cfg.MaxClients)+spareFiles {
		s.log.Warn("the limit of open files allows fewer clients than max-clients; raise it (ulimit -n)",
			"open-files", limit.Cur, "max-clients", s.cfg.MaxClients)
	}
}

// open makes everything that can fail at the start.
func (s *Server) open() (err error) {
	s.listener, err = net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	registry := observe.NewRegistry()
	s.http = &observe.HTTP{
		Address: s.cfg.HTTPListen, Alive: s.alive, Ready: s.ready, Lacking: s.notServing, Metrics: registry, Pprof: s.cfg.Pprof, Log: s.log,
	}
	s.http.Handle("GET /slowlog", slowLogHandler(func() []reactor.SlowEntry { return s.engine.SlowLog() }))
	if err = s.http.Listen(); err != nil {
		return errors.Join(err, s.listener.Close())
	}
	s.client = configclient.New(configclient.Config{
		Addresses: s.cfg.ConfigServers, Cluster: s.cfg.Cluster, Address: s.advertised(), Version: version.String(),
		Alone: !s.cfg.ClusterMode, Apply: s.apply, Load: func() configclient.Load { return s.load.measure(s.engine.Stats()) }, Logger: s.log,
	})
	s.scripts = scripts.New(s.client, s.log)
	s.engine, err = reactor.New(s.engineConfig())
	if err != nil {
		return errors.Join(err, s.listener.Close())
	}
	s.load.at = time.Now()
	registry.MustRegister(newCollector(s.cfg.Cluster, s.engine.Stats, s.client.Status))
	return nil
}

func (s *Server) engineConfig() reactor.Config {
	c := s.cfg
	// For the engine 0 means its default; here it means every command.
	slowest := max(c.SlowLogThreshold, 1)
	if c.SlowLogThreshold < 0 {
		slowest = -1
	}
	return reactor.Config{
		Loops: c.Loops, MaxClients: c.MaxClients, MaxPinned: c.MaxPinned, FailBlocked: c.BlockedOnFailover == "fail",
		Limits:                 resp.Limits{RequestBytes: int(c.MaxRequestBytes), Args: c.MaxArgs, InlineBytes: int(c.MaxInlineBytes)},
		ClientReplyBufferBytes: c.ClientReplyBufferBytes, ClientPubSubBufferBytes: c.ClientPubSubBufferBytes, MemoryBudgetBytes: c.MemoryBudgetBytes,
		HoldTimeout: c.HoldTimeout, HoldMaxBytes: c.HoldMaxBytes, NodeTimeout: c.NodeTimeout,
		SlowLogThreshold: slowest, SlowLogLength: c.SlowLogLength, Scripts: s.scripts, Logger: s.log,
		OnAck: s.client.Ack,
		OnSight: func(node string, sight reactor.Sight, sinceReply time.Duration, behind reactor.Behind, err error) {
			s.client.Report(node, configclient.Seen{Sight: basaltv1.Sight(sight), // both in the order of the proto
				SinceReply: sinceReply, Behind: behind.Command, SinceBehind: behind.Since, Err: err})
		},
		Users:       s.client,
		ClusterMode: c.ClusterMode, Command: s.command, Cluster: s.cluster, ConfigGet: s.configGet, ConfigSet: s.configSet, EnableDebug: c.EnableDebugCommand, Info: s.info,
	}
}

// apply hands a table to the loops.
func (s *Server) apply(t *routing.Table) {
	s.engine.Apply(t)
	s.topologyOnce.Do(func() { close(s.topology) })
}

// serveClients is the component that accepts clients, and drains them.
func (s *Server) serveClients(ctx context.Context) error {
	served := make(chan error, 1)
	select {
	case <-s.topology:
		s.accepting.Store(true)
		s.log.Info("serving clients", "listen", s.listener.Addr().String(), "epoch", s.client.Status().Epoch)
		go func() { served <- s.engine.Serve(s.listener) }()
	case <-ctx.Done():
		served <- s.listener.Close()
	}
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-served:
		served <- nil
	}
	s.draining.Store(true)
	left := s.engine.Stats().Clients
	began := time.Now()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	if err := s.engine.Shutdown(drain); err != nil {
		s.log.Warn("clients were cut off: they did not finish in time", "drain-timeout", s.cfg.DrainTimeout)
	}
	s.log.Info("clients drained", "clients", left, "took", time.Since(began).Round(time.Millisecond))
	return errors.Join(failed, <-served)
}

// advertised is the address people know the proxy by. One that listens on all
// addresses is known by the name of its machine, which is its pod's.
func (s *Server) advertised() string {
	if s.cfg.Advertise != "" {
		return s.cfg.Advertise
	}
	if host, err := os.Hostname(); err == nil && s.address().Addr().IsUnspecified() {
		return net.JoinHostPort(host, strconv.Itoa(s.port()))
	}
	return s.listener.Addr().String()
}

// port and host clients connect to.
func (s *Server) port() int {
	return int(s.address().Port())
}

func (s *Server) host() string { return s.address().Addr().String() }

func (s *Server) address() netip.AddrPort {
	if a, ok := s.listener.Addr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

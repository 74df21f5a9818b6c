// Package embedded runs an etcd server inside this process, for laptops, tests
// and small installations: one member, on loopback only, without auth. What it
// acknowledges is on disk (fsync is on). Production uses an etcd of its own.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// Config says where the server keeps its data and listens.
type Config struct {
	// Dir is made when it is not there. One process at a time may use it.
	Dir string
	// ListenClient and ListenPeer are "host:port" with a loopback host; port 0
	// takes a free one, and an empty address means 127.0.0.1:0.
	ListenClient, ListenPeer string
	// Fatal is called with the reason when etcd cannot go on, as with a full disk. The
	// process must end then: etcd may not run a step further. nil writes a line to
	// stderr. When it returns, the process ends with code 1.
	Fatal func(error)
}

// Server is a running etcd.
type Server struct {
	etcd *embed.Etcd
	lock *os.File
}

const (
	// Ticks this short let a lease of one second be granted (the minimum is one
	// and a half election timeouts) and the only member elect itself at once.
	heartbeatMs, electionMs = 50, 500
	// maxRequestBytes allows a commit of the largest cluster (MaxShards of
	// MaxNodes) uncompressed, with its reports.
	maxRequestBytes = 8 << 20
	quotaBytes      = 2 << 30
	// keepRevisions is how long etcd keeps overwritten values, which only
	// interrupted watches read.
	keepRevisions = 10 * time.Minute
)

// Start starts etcd and returns when it serves. It logs errors to etcd.log in
// its directory.
func Start(ctx context.Context, c Config) (*Server, error) {
	client, err := loopbackURL("client", c.ListenClient)
	if err != nil {
		return nil, err
	}
	peer, err := loopbackURL("peer", c.ListenPeer)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd data directory: %w", err)
	}
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, err
	}

	cfg := embed.NewConfig()
	cfg.Name = "basalt"
	cfg.Dir = filepath.Join(c.Dir, "etcd")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = heartbeatMs, electionMs
	cfg.MaxRequestBytes = maxRequestBytes
	cfg.QuotaBackendBytes = quotaBytes
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = keepRevisions.String()
	cfg.BootstrapDefragThresholdMegabytes = 64
	cfg.EnableGRPCGateway = false
	cfg.LogLevel = "error"
	cfg.WarningUnaryRequestDuration = time.Second
	cfg.LogOutputs = []string{filepath.Join(c.Dir, logFile)}
	log, err := newLog(&c)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)

	if err := removeUnborn(cfg.Dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd in %s (its log: %s): %w", c.Dir, cfg.LogOutputs[0], err), lock.Close())
	}
	s := &Server{etcd: etcd, lock: lock}
	select {
	case <-etcd.Server.ReadyNotify():
		return s, nil
	case err = <-etcd.Err():
	case <-etcd.Server.StopNotify():
		err = errors.New("stopped while starting")
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(fmt.Errorf("start etcd in %s (its log: %s): %w", c.Dir, cfg.LogOutputs[0], err), s.Close())
}

// Endpoint is where clients reach the server: "127.0.0.1:2379".
func (s *Server) Endpoint() string { return s.etcd.Clients[0].Addr().String() }

// Failed delivers an error when the server stopped by itself.
func (s *Server) Failed() <-chan error { return s.etcd.Err() }

// Close stops the server.
func (s *Server) Close() error {
	s.etcd.Close()
	return s.lock.Close()
}

// loopbackURL makes a URL of a listen address that nobody else can reach.
func loopbackURL(what, address string) (url.URL, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return url.URL{}, fmt.Errorf("etcd %s address %q is not host:port: %w", what, address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return url.URL{}, fmt.Errorf("etcd %s address %q: the embedded etcd has no authentication and listens on loopback only, "+
			"like 127.0.0.1:2379; for more than one machine run an etcd cluster and name it with --etcd-endpoints", what, address)
	}
	return url.URL{Scheme: "http", Host: address}, nil
}

// lockDir keeps a second process out of a directory; etcd itself would wait
// for ever without a word.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("etcd data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("etcd data directory %s is in use by another process: choose another --data-dir or stop it (%w)", dir, err), f.Close())
	}
	return f, nil
}

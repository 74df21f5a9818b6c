package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/embedded"
	"github.com/basalt-redis/basalt/configserver/store/etcdstore"
)

// opened is the store and the etcd below it.
type opened struct {
	store store.Store
	// kind says for people what it is.
	kind string
	etcd *embedded.Server // nil for an external etcd
}

// open starts the embedded etcd, unless there is another, and connects to it.
func (s *Server) open(ctx context.Context) (opened, error) {
	o := opened{kind: "etcd " + strings.Join(s.cfg.EtcdEndpoints, ",")}
	cfg := etcdstore.Config{
		Endpoints: s.cfg.EtcdEndpoints,
		LeaseTTL:  s.cfg.LeaseTTL,
		Logger:    s.log,
		Observe:   storeLatency(s.registry),

		KeepScripts: s.cfg.KeepScripts, KeepScriptBytes: s.cfg.KeepScriptBytes,
	}
	var err error
	if cfg.TLS, err = s.cfg.EtcdTLS(); err != nil {
		return o, err
	}
	if cfg.Username, cfg.Password, err = s.cfg.EtcdLogin(); err != nil {
		return o, err
	}
	if len(s.cfg.EtcdEndpoints) == 0 {
		o.etcd, err = embedded.Start(ctx, embedded.Config{Dir: s.cfg.DataDir, ListenClient: s.cfg.EtcdEmbeddedListen, Fatal: s.fatal})
		if err != nil {
			return o, err
		}
		cfg.Endpoints = []string{o.etcd.Endpoint()}
		o.kind = "embedded etcd " + o.etcd.Endpoint() + " in " + s.cfg.DataDir
	}
	opened, err := s.connect(ctx, cfg)
	if err != nil {
		if o.etcd != nil {
			err = errors.Join(err, o.etcd.Close())
		}
		return o, err
	}
	o.store = opened
	return o, nil
}

// fatal says on stderr, as main does, and in the log why the process ends at once.
func (s *Server) fatal(err error) {
	s.log.Error("configserver ends", "error", err)
	fmt.Fprintln(os.Stderr, "configserver:", err)
}

// connect opens the client, and waits for etcd when it must log in there first.
func (s *Server) connect(ctx context.Context, cfg etcdstore.Config) (*etcdstore.Store, error) {
	for warned := false; ; {
		opened, err := etcdstore.Open(ctx, cfg)
		if err == nil {
			return opened, nil
		}
		if errors.Is(err, rpctypes.ErrAuthFailed) {
			return nil, fmt.Errorf("--etcd-credentials-file %s: etcd refuses this user and password", s.cfg.EtcdCredentialsFile)
		}
		if !warned {
			s.log.Warn("cannot log in to etcd; will try again until it works", "error", err)
			warned = true
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// run keeps the store open until ctx ends, then closes it, and etcd last.
func (o opened) run(ctx context.Context) error {
	var failed <-chan error
	if o.etcd != nil {
		failed = o.etcd.Failed()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("embedded etcd: %w", err)
	}
	err = errors.Join(err, o.store.Close())
	if o.etcd != nil {
		err = errors.Join(err, o.etcd.Close())
	}
	return err
}

// storeLatency makes the series of the store's requests.
func storeLatency(reg prometheus.Registerer) func(string, time.Duration, error) {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "basalt", Subsystem: "configserver", Name: "store_request_seconds",
		Help:    "Duration of requests to etcd, by what they do and how they ended.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	}, []string{"operation", "result"})
	reg.MustRegister(seconds)
	return func(operation string, took time.Duration, err error) {
		result := "ok"
		if err != nil {
			result = "error"
		}
		seconds.WithLabelValues(operation, result).Observe(took.Seconds())
	}
}

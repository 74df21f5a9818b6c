// Package etcdstore keeps a store in etcd.
//
// Goal: several Configservers work on one etcd, any of them may die or be late
// at any instant, and still every cluster has one line of epochs, each written
// by whoever owned the cluster at that instant. Layout, below a prefix:
//
//	replicas/<id>                       lease   a live Configserver (JSON)
//	owners/<cluster>                    lease   who runs its loop (JSON)
//	names/<cluster>                             exists while the cluster does
//	clusters/<cluster>/record                   the newest record (JSON)
//	clusters/<cluster>/epochs/<20 digits>       each record as it was committed
//	clusters/<cluster>/sequence                 number of the last event
//	clusters/<cluster>/events/<20 digits>       events (JSON)
//	clusters/<cluster>/members/<proxy>          proxies with credentials (JSON)
//	clusters/<cluster>/scripts/flushes          how often scripts were flushed
//	clusters/<cluster>/scripts/index            which are kept (JSON)
//	clusters/<cluster>/scripts/sources/<sha>    each source, as it is
//
// How a change is made:
//
//  1. A Configserver has one lease. It claims a cluster by creating
//     owners/<cluster> under that lease, if it is not there. The revision at
//     which the key was created names this ownership for ever.
//  2. Every write compares that revision in its own transaction. etcd deletes
//     the key when the lease ends, so a write that arrives later finds no key,
//     or another one, and does nothing. No clock takes part in this.
//  3. A commit of epoch n also compares that epochs/<n-1> exists and epochs/<n>
//     does not: no gap, no epoch twice, even when an earlier attempt whose
//     answer was lost lands later.
//  4. Events are numbered by comparing and replacing sequence in the same
//     transaction, so they have no gap either, and none is overwritten.
//  5. What is too old is removed by the same transaction, as one range each.
//
// When a transaction was sent and not answered, nobody knows if it landed: that
// is store.ErrUncertain, and the caller reads before it acts again. Refusals
// that etcd makes before it proposes anything are plain errors.
//
// Clocks are used only to stop early: the lease counts as lost, here, one TTL
// after the last keep-alive that was answered was sent, by this machine's
// monotonic clock. The server cannot have started its own count before that.
package etcdstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/configserver/store"
)

// Config says which etcd, and how it is used. Zero fields take the defaults
// named here.
type Config struct {
	// Endpoints are "host:port" or URLs; required.
	Endpoints []string
	// TLS is nil for plain text.
	TLS *tls.Config
	// Username and Password log in when etcd's auth is on.
	Username, Password string
	// LeaseTTL is how long a silent Configserver keeps its clusters; 3 s. etcd
	// counts whole seconds and may impose a higher minimum.
	LeaseTTL time.Duration
	// Timeout bounds every single request; 2 s.
	Timeout time.Duration
	// Prefix of all keys; "/basalt/".
	Prefix string
	// KeepEpochs and KeepEvents limit the history of each cluster; the limits
	// of package store.
	KeepEpochs, KeepEvents int
	// KeepScripts and KeepScriptBytes limit the scripts of each cluster; the
	// limits of package store.
	KeepScripts     int
	KeepScriptBytes int64
	Logger          *slog.Logger
	// Observe is told of every request: its name, how long it took, how it
	// ended. It may be nil.
	Observe func(operation string, took time.Duration, err error)
}

// Store is a store.Store in etcd.
type Store struct {
	cfg    Config
	client *clientv3.Client
	keys   keys
	log    *slog.Logger
}

var _ store.Store = (*Store)(nil)

// Open makes a client. It does not wait for etcd to be there, except to log in
// when there is a Username.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("etcd: no endpoint")
	}
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = 3 * time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "/basalt/"
	}
	if !strings.HasSuffix(cfg.Prefix, "/") {
		cfg.Prefix += "/"
	}
	if cfg.KeepEpochs == 0 {
		cfg.KeepEpochs = store.KeepEpochs
	}
	if cfg.KeepEvents == 0 {
		cfg.KeepEvents = store.KeepEvents
	}
	if cfg.KeepScripts == 0 {
		cfg.KeepScripts = store.KeepScripts
	}
	if cfg.KeepScriptBytes == 0 {
		cfg.KeepScriptBytes = store.KeepScriptBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   cfg.Endpoints,
		TLS:         cfg.TLS,
		Username:    cfg.Username,
		Password:    cfg.Password,
		DialTimeout: cfg.Timeout,
		// gRPC allows no shorter interval than 10 s.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		PermitWithoutStream:  true,
		Context:              context.WithoutCancel(ctx),
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// etcd that comes back is to be found in well under a lease's TTL.
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("etcd %s: %w", strings.Join(cfg.Endpoints, ","), err)
	}
	return &Store{cfg: cfg, client: client, keys: keys{cfg.Prefix}, log: cfg.Logger}, nil
}

// Close ends the client, and with it every watch. Leases are left to expire;
// close sessions first.
func (s *Store) Close() error { return s.client.Close() }

// Ping fails when etcd does not answer a linearizable read.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.get(ctx, "ping", s.keys.names(), clientv3.WithCountOnly(), clientv3.WithPrefix())
	return err
}

// observe reports one request.
func (s *Store) observe(operation string, began time.Time, err error) {
	if s.cfg.Observe != nil {
		s.cfg.Observe(operation, time.Since(began), err)
	}
}

// get is one linearizable read.
func (s *Store) get(ctx context.Context, operation, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	began := time.Now()
	r, err := s.client.Get(clientv3.WithRequireLeader(ctx), key, opts...)
	s.observe(operation, began, err)
	if err != nil {
		return nil, readError(operation, err)
	}
	return r, nil
}

// getAll is several linearizable reads of one revision, guarded by comparisons.
func (s *Store) getAll(ctx context.Context, operation string, compare []clientv3.Cmp, reads []clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	began := time.Now()
	r, err := s.client.Txn(clientv3.WithRequireLeader(ctx)).If(compare...).Then(reads...).Commit()
	s.observe(operation, began, err)
	if err != nil {
		return nil, readError(operation, err)
	}
	return r, nil
}

// readError says why nothing was read. The causes' gRPC codes are left behind:
// they are etcd's, not the Configserver's.
func readError(operation string, err error) error {
	if refused(err) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcd %s: %w", operation, err)
	}
	return fmt.Errorf("etcd %s: %w: %v", operation, store.ErrUnavailable, err)
}

// txn is one transaction. Its error is store.ErrUncertain unless etcd said for
// sure that nothing was changed.
func (s *Store) txn(ctx context.Context, operation string, compare []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	began := time.Now()
	r, err := s.client.Txn(clientv3.WithRequireLeader(ctx)).If(compare...).Then(then...).Else(otherwise...).Commit()
	s.observe(operation, began, err)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return nil, fmt.Errorf("etcd %s: %w", operation, store.ErrLeaseLost)
	case tooLarge(err):
		return nil, fmt.Errorf("etcd %s: %w: %v", operation, store.ErrTooLarge, err)
	case refused(err):
		return nil, fmt.Errorf("etcd %s: %w", operation, err)
	default:
		return nil, fmt.Errorf("etcd %s: %w: %v", operation, store.ErrUncertain, err)
	}
}

// tooLarge tells if the request was longer than etcd, or its client, sends at once.
func tooLarge(err error) bool {
	return errors.Is(err, rpctypes.ErrRequestTooLarge) ||
		status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max")
}

// refused tells if etcd answered that it changed nothing: the request was
// malformed, too large, not permitted, or beyond its quota.
func refused(err error) bool {
	var e rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &e) {
		code = e.Code()
	}
	switch code {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated,
		codes.ResourceExhausted, codes.FailedPrecondition, codes.OutOfRange, codes.NotFound:
		return true
	}
	return false
}

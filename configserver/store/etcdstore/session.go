package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/basalt-redis/basalt/configserver/store"
)

// session is one lease and what is held under it.
type session struct {
	store *Store
	self  store.Replica
	value string // of the owner keys
	lease clientv3.LeaseID
	ttl   time.Duration
	// ctx ends when the lease is lost.
	ctx  context.Context
	lose context.CancelFunc

	// until is when the lease counts as lost unless another keep-alive is
	// answered.
	until atomic.Pointer[time.Time]

	mu    sync.Mutex
	owned map[string]*ownership
	// closed by the caller, before it was lost.
	closed bool
}

// Join implements store.Store.
func (s *Store) Join(ctx context.Context, self store.Replica) (store.Session, error) {
	if self.ID == "" {
		return nil, errors.New("join: a Configserver needs an id")
	}
	value, err := encode(self)
	if err != nil {
		return nil, err
	}
	request, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), s.cfg.Timeout)
	defer cancel()
	began := time.Now()
	lease, err := s.client.Grant(request, int64((s.cfg.LeaseTTL+time.Second-1)/time.Second))
	s.observe("grant", began, err)
	if err != nil {
		return nil, fmt.Errorf("join: etcd grant: %w", err)
	}
	_, err = s.txn(ctx, "join", nil, []clientv3.Op{
		clientv3.OpPut(s.keys.replica(self.ID), value, clientv3.WithLease(lease.ID)),
	}, nil)
	if err != nil {
		go s.revoke(lease.ID, time.Duration(lease.TTL)*time.Second)
		return nil, fmt.Errorf("join: %w", err)
	}
	one := &session{
		store: s, self: self, value: value,
		lease: lease.ID, ttl: time.Duration(lease.TTL) * time.Second,
		owned: map[string]*ownership{},
	}
	one.ctx, one.lose = context.WithCancel(context.WithoutCancel(ctx))
	go one.keepAlive(began)
	return one, nil
}

// TTL is the lease's time to live as etcd granted it, which may be more than
// was asked for.
func (s *session) TTL() time.Duration { return s.ttl }

// Lost implements store.Session.
func (s *session) Lost() <-chan struct{} { return s.ctx.Done() }

// keepAlive refreshes the lease three times per TTL until it is lost. sent is
// when the last request was sent that is known to have been granted.
func (s *session) keepAlive(sent time.Time) {
	defer s.lose()
	// A tenth of the TTL is left for goroutines to notice.
	patience := s.ttl - s.ttl/10
	until := sent.Add(patience)
	s.until.Store(&until)
	deadline := time.AfterFunc(time.Until(until), s.lose)
	defer deadline.Stop()
	var stream keepAliveStream
	defer func() {
		if stream.cancel != nil {
			stream.cancel()
		}
	}()
	var failure error
	for pause(s.ctx, s.ttl/3) {
		for {
			began := time.Now()
			alive, err := s.refresh(&stream)
			s.store.observe("keepalive", began, err)
			if err == nil && !alive || errors.Is(err, rpctypes.ErrLeaseNotFound) {
				s.store.log.Warn("lease expired at etcd", "lease", int64(s.lease))
				return
			}
			if err == nil && deadline.Stop() {
				until := began.Add(patience)
				s.until.Store(&until)
				deadline.Reset(time.Until(until))
				break
			}
			failure = err
			if !pause(s.ctx, 50*time.Millisecond) {
				break
			}
		}
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if !closed {
		s.store.log.Warn("lease lost: no keep-alive was answered in time", "lease", int64(s.lease), "error", failure)
		// The lease may live on at etcd; give it up, so that nobody waits for it.
		go s.store.revoke(s.lease, s.ttl)
	}
}

// keepAliveStream is an open stream of keep-alives. It is kept between them,
// since opening one means to log in again when etcd's auth is on.
type keepAliveStream struct {
	etcdserverpb.Lease_LeaseKeepAliveClient
	cancel context.CancelFunc
}

// refresh sends one keep-alive and waits for its answer. After an error the
// stream is gone, and with it an answer that is late. (The library's own
// KeepAliveOnce spins while etcd refuses connections, and opens a stream each
// time.)
func (s *session) refresh(stream *keepAliveStream) (alive bool, err error) {
	if stream.cancel == nil {
		var ctx context.Context
		ctx, stream.cancel = context.WithCancel(clientv3.WithRequireLeader(s.ctx))
		defer time.AfterFunc(s.ttl/3, stream.cancel).Stop()
		lease := etcdserverpb.NewLeaseClient(s.store.client.ActiveConnection())
		stream.Lease_LeaseKeepAliveClient, err = lease.LeaseKeepAlive(ctx)
	} else {
		defer time.AfterFunc(s.ttl/3, stream.cancel).Stop()
	}
	if err == nil {
		err = stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(s.lease)})
	}
	var r *etcdserverpb.LeaseKeepAliveResponse
	if err == nil {
		r, err = stream.Recv()
	}
	if err != nil {
		stream.cancel()
		stream.cancel = nil
		return false, rpctypes.Error(err)
	}
	return r.GetTTL() > 0, nil
}

// revoke gives a lease up, as far as etcd can be reached in time.
func (s *Store) revoke(lease clientv3.LeaseID, patience time.Duration) {
	ctx, cancel := context.WithTimeout(s.client.Ctx(), patience)
	defer cancel()
	for {
		_, err := s.client.Revoke(ctx, lease)
		if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) || !pause(ctx, rewatchAfter) {
			return
		}
	}
}

// Close implements store.Session.
func (s *session) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		return nil // closed already, or lost: then keepAlive gives the lease back
	}
	s.closed = true
	s.lose()
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.store.cfg.Timeout)
	defer cancel()
	began := time.Now()
	_, err := s.store.client.Revoke(ctx, s.lease)
	s.store.observe("revoke", began, err)
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("give the lease back to etcd: %w", err)
	}
	return nil
}

// Claim implements store.Session.
func (s *session) Claim(ctx context.Context, cluster string) (store.Ownership, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("claim %s: %w", cluster, store.ErrLeaseLost)
	}
	if o := s.owned[cluster]; o != nil && o.ctx.Err() == nil {
		return nil, fmt.Errorf("cluster %s belongs to %s: %w", cluster, s.self.ID, store.ErrOwned)
	}
	k := s.store.keys
	r, err := s.store.txn(ctx, "claim",
		[]clientv3.Cmp{absent(k.owner(cluster)), present(k.record(cluster))},
		[]clientv3.Op{
			clientv3.OpPut(k.owner(cluster), s.value, clientv3.WithLease(s.lease)),
			clientv3.OpGet(k.sequence(cluster)),
		},
		[]clientv3.Op{clientv3.OpGet(k.owner(cluster)), clientv3.OpGet(k.sequence(cluster))})
	if err != nil {
		if errors.Is(err, store.ErrLeaseLost) {
			s.lose()
		}
		return nil, fmt.Errorf("claim %s: %w", cluster, err)
	}
	created := r.Header.Revision
	sequence := r.Responses[1].GetResponseRange().Kvs
	if len(sequence) == 0 {
		return nil, fmt.Errorf("cluster %s: %w", cluster, store.ErrNotFound)
	}
	if !r.Succeeded {
		owners := r.Responses[0].GetResponseRange().Kvs
		if len(owners) == 0 {
			return nil, fmt.Errorf("cluster %s: %w", cluster, store.ErrNotFound)
		}
		if clientv3.LeaseID(owners[0].Lease) != s.lease {
			var owner store.Replica
			if err := decode(string(owners[0].Key), owners[0].Value, &owner); err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("cluster %s belongs to %s: %w", cluster, owner.ID, store.ErrOwned)
		}
		// An earlier claim of this session landed, only its answer was lost.
		created = owners[0].CreateRevision
	}
	o := &ownership{session: s, cluster: cluster, created: created}
	if o.last, err = decodeSequence(sequence[0]); err != nil {
		return nil, err
	}
	o.ctx, o.lose = context.WithCancel(s.ctx)
	s.owned[cluster] = o
	return o, nil
}

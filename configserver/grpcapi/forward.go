package grpcapi

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/store"
)

// forwardedKey marks calls that one Configserver sent to another. They are
// answered or refused, never sent on, so a stale owner cannot make a loop.
const forwardedKey = "basalt-forwarded"

// askedKey names who asked for a call that is sent on.
const askedKey = "basalt-asked-by"

// whereabouts of a cluster's loop: here, or at another Configserver.
type whereabouts struct {
	loop control.API
	// owner and conn are set when loop is not.
	owner store.Replica
	conn  grpc.ClientConnInterface
}

// findOwner tells where a cluster's loop runs now.
func (s *Server) findOwner(ctx context.Context, cluster string) (whereabouts, error) {
	var none whereabouts
	if loop, ok := s.cfg.Loops.Local(cluster); ok {
		return whereabouts{loop: loop}, nil
	}
	if _, err := s.cfg.Store.Cluster(ctx, cluster); err != nil {
		return none, toStatus(aboutCluster(cluster, err))
	}
	if wasForwarded(ctx) {
		return none, noOwner(cluster)
	}
	owner, err := s.cfg.Store.Owner(ctx, cluster)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return none, noOwner(cluster)
	case err != nil:
		return none, toStatus(aboutCluster(cluster, err))
	case owner.ID == s.cfg.Self.ID || owner.Address == s.cfg.Self.Address:
		// It is ours, and its loop is about to begin, or has just ended.
		return none, noOwner(cluster)
	}
	conn, err := s.peers.conn(owner.Address)
	if err != nil {
		return none, status.Errorf(codes.Unavailable, "configserver %s at %s, which owns cluster %q: %v; retry in a few seconds", owner.ID, owner.Address, cluster, err)
	}
	return whereabouts{owner: owner, conn: conn}, nil
}

// onOwner answers a call where the cluster's loop runs: by local when that is
// here, else by the same call to the owner. A call that failed on the way is
// not repeated, for it may have been executed.
func onOwner[R any](
	ctx context.Context, s *Server, cluster string,
	local func(loop control.API) (*R, error),
	remote func(ctx context.Context, conn grpc.ClientConnInterface) (*R, error),
) (*R, error) {
	at, err := s.findOwner(ctx, cluster)
	if err != nil {
		return nil, err
	}
	if at.loop == nil {
		reply, err := remote(forwardContext(ctx), at.conn)
		if err != nil {
			return nil, ownerAway(ctx, cluster, at.owner, err)
		}
		return reply, nil
	}
	reply, err := local(at.loop)
	if err != nil {
		return nil, toStatus(err)
	}
	return reply, nil
}

// ownerAway says what it means for the caller when the owner did not answer;
// what the owner did answer stays as it is.
func ownerAway(ctx context.Context, cluster string, owner store.Replica, err error) error {
	message := status.Convert(err).Message()
	switch {
	case status.Code(err) != codes.Unavailable || ctx.Err() != nil:
		return err
	case strings.Contains(message, "Error while dialing"):
		// Nothing was sent: the same as no owner, which it will be when its lease ends.
		return status.Errorf(codes.Unavailable, "no configserver owns cluster %q right now (%s at %s does not answer); retry in a few seconds", cluster, owner.ID, owner.Address)
	case strings.HasPrefix(message, "error reading from server"), strings.HasPrefix(message, "transport is closing"),
		strings.HasPrefix(message, "connection error"), strings.HasPrefix(message, "keepalive ping failed"):
		return status.Errorf(codes.Unavailable, "configserver %s, which owns cluster %q, died while it worked on this, and it may or may not be done; look before you retry in a few seconds", owner.ID, cluster)
	}
	return err
}

func wasForwarded(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	return len(md.Get(forwardedKey)) > 0
}

func forwardContext(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, forwardedKey, "1", askedKey, control.Asker(ctx))
}

// nameAsker puts into the context of a call who asked for it.
func nameAsker(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	who := ""
	if p, ok := peer.FromContext(ctx); ok {
		who = p.Addr.String()
	}
	if md, _ := metadata.FromIncomingContext(ctx); wasForwarded(ctx) && len(md.Get(askedKey)) > 0 {
		who = md.Get(askedKey)[0]
	}
	return handle(control.AskedBy(ctx, who), request)
}

// peers are the connections to the other Configservers, one each, made when
// first needed and kept.
type peers struct {
	options []grpc.DialOption
	mu      sync.Mutex
	conns   map[string]*grpc.ClientConn
	closed  bool
}

func newPeers(options []grpc.DialOption) *peers {
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	options = append(options[:len(options):len(options)],
		// gRPC pings every 10 s at most; untilMoved notices a hung owner sooner.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second}),
		// An owner that came back is reached again soon.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
	)
	return &peers{options: options, conns: map[string]*grpc.ClientConn{}}
}

func (p *peers) conn(address string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("this configserver is stopping")
	}
	if conn, ok := p.conns[address]; ok {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+address, p.options...)
	if err != nil {
		return nil, err
	}
	p.conns[address] = conn
	return conn, nil
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
}

package configclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/routing"
)

const (
	// reportDelay lets reports of one moment go together.
	reportDelay = 5 * time.Millisecond
	// connectTimeout bounds connecting and the wait for the first snapshot of a
	// stream that is otherwise healthy.
	connectTimeout = 3 * time.Second
	// goodbyeTimeout bounds the wait for a goodbye to be taken note of.
	goodbyeTimeout = 2 * time.Second
	// maxMessage bounds a snapshot: 1024 shards of 6 nodes stay far below.
	maxMessage = 64 << 20
)

// errRefused: what a Configserver says must not be obeyed.
var errRefused = errors.New("topology refused")

type watch = grpc.BidiStreamingClient[basaltv1.WatchTopologyRequest, basaltv1.WatchTopologyResponse]

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second, PermitWithoutStream: true}),
	)
}

// stream serves one stream to one address until it ends or ctx does. connected
// tells if a snapshot was obeyed.
func (c *Client) stream(ctx context.Context, address string) (connected bool, err error) {
	conn, err := dial(address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	// The stream outlives ctx by the goodbye.
	own, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	slow := time.AfterFunc(connectTimeout, func() { cut(fmt.Errorf("no snapshot within %v", connectTimeout)) })
	defer slow.Stop()
	give := context.AfterFunc(ctx, func() {
		if c.Status().Server == "" {
			cut(ctx.Err()) // nothing to say goodbye on
		}
	})
	defer give()

	stream, err := basaltv1.NewTopologyServiceClient(conn).WatchTopology(own)
	if err != nil {
		return false, causeOf(own, err)
	}
	c.greeted = true
	if err := stream.Send(c.hello()); err != nil {
		_, err = stream.Recv() // which tells why
		return false, causeOf(own, err)
	}

	received := make(chan error, 1)
	first := make(chan struct{})
	go func() { received <- c.receive(stream, first) }()
	select {
	case err := <-received:
		return false, causeOf(own, err)
	case <-first:
	}
	slow.Stop()
	c.setPeer(conn)
	defer c.setPeer(nil)
	c.connected(address)
	go checkHealth(own, conn, c.cfg.HealthInterval, cut)
	sent := make(chan error, 1)
	go func() { sent <- c.send(ctx, own, stream) }()
	// Receiving ends when the server ends the stream or it breaks; sending ends
	// after a goodbye, and then the server ends the stream.
	select {
	case err = <-received:
		cut(nil)
		// It may have ended because of the goodbye that was just sent.
		c.left = <-sent == nil && ctx.Err() != nil && errors.Is(err, io.EOF)
		return true, causeOf(own, err)
	case <-sent:
	}
	select {
	case err = <-received:
		c.left = ctx.Err() != nil && errors.Is(err, io.EOF)
	case <-time.After(goodbyeTimeout):
		cut(errors.New("goodbye was not answered"))
		err = <-received
	}
	return true, causeOf(own, err)
}

// hello is the first message of a stream. Once the cluster is being deleted the
// proxy claims no epoch: a cluster of that name may be a new one.
func (c *Client) hello() *basaltv1.WatchTopologyRequest {
	epoch, uid := c.Status().AckedEpoch, c.state.topology.GetUid()
	if c.state.deleting() {
		epoch, uid = 0, ""
	}
	return &basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_Hello{Hello: &basaltv1.ProxyHello{
		Cluster: c.cfg.Cluster, ProxyId: c.id, Address: c.cfg.Address, Epoch: epoch, Version: c.cfg.Version, Uid: uid, Alone: c.cfg.Alone,
	}}}
}

// causeOf prefers why we cut the stream to what gRPC made of it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return fmt.Errorf("%s: %s", s.Code(), s.Message())
	}
	return err
}

// connected makes the new stream learn everything it cannot know yet.
func (c *Client) connected(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Server, c.status.Problem = address, ""
	c.status.Connects++
	c.ackUnsent = c.status.AckedEpoch != 0
	for node := range c.sights {
		c.unsent[node] = true
	}
	c.nudge()
	c.log.Info("connected to configserver", "configserver", address, "epoch", c.status.Epoch)
}

// receive obeys what the server says. It closes first after the first snapshot.
func (c *Client) receive(stream watch, first chan struct{}) error {
	got := false
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		var next state
		snapshot, delta := m.GetSnapshot(), m.GetDelta()
		switch {
		case snapshot != nil:
			next, err = fromSnapshot(snapshot, c.cfg.Cluster)
			if err == nil {
				err = c.checkAge(next)
			}
		case delta != nil && got:
			next, err = c.state.apply(delta)
		case delta != nil:
			err = errors.New("delta before the snapshot")
		default:
			continue // a newer Configserver may say what is not known here yet
		}
		if err == nil {
			c.meet(next)
			err = c.obey(next)
		}
		if err != nil {
			c.refused()
			return fmt.Errorf("%w: %w", errRefused, err)
		}
		if !got {
			got = true
			close(first)
		}
	}
}

// checkAge refuses a snapshot from the past; see the package's essay.
func (c *Client) checkAge(next state) error {
	if next.epoch() >= c.state.epoch() || c.state.deleting() {
		return nil
	}
	const known = "snapshot of epoch %d, but this proxy already knows epoch %d, by which it serves on: "
	if uid := c.state.topology.GetUid(); uid != "" && next.topology.GetUid() != "" && uid != next.topology.GetUid() {
		return fmt.Errorf(known+"the cluster was deleted and created again while this proxy was not connected; start the proxy again",
			next.epoch(), c.state.epoch())
	}
	return fmt.Errorf(known+"this configserver is behind, or its etcd was restored from an older backup (then see basaltctl topology adopt)",
		next.epoch(), c.state.epoch())
}

func (c *Client) refused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Refused++
}

// obey hands a state to the engine, unless it is one that the engine has.
func (c *Client) obey(next state) error {
	if c.state.same(next) {
		return nil
	}
	number := max(next.epoch(), c.revision+1)
	users := c.compileUsers(next)
	table, err := next.table(number, users, c.log)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if next.epoch() < c.state.epoch() { // a new cluster: the old one's acks mean nothing to it
		c.status.AckedEpoch, c.ackUnsent, c.applied = 0, false, nil
	}
	c.state, c.revision, c.users = next, number, users
	c.status.Epoch = next.epoch()
	c.status.Phase = phaseName(next.topology.GetPhase())
	c.applied = append(c.applied, revision{number, next.epoch()})
	c.forgetNodes(table)
	c.mu.Unlock()
	c.log.Info("new epoch", "epoch", next.epoch(), "reason", next.topology.GetReason())
	c.cfg.Apply(table)
	return nil
}

// forgetNodes drops what is known of nodes that are no more; the caller holds
// the lock.
func (c *Client) forgetNodes(t *routing.Table) {
	nodes := map[string]bool{}
	for i := range t.Shards {
		for _, n := range t.Shards[i].Nodes {
			nodes[n.ID] = true
		}
	}
	for node := range c.sights {
		if !nodes[node] {
			delete(c.sights, node)
			delete(c.seenAt, node)
			delete(c.behindAt, node)
			delete(c.unsent, node)
		}
	}
}

// send is the only one to send on the stream after the hello. It ends with own,
// or after the goodbye when ctx ends.
func (c *Client) send(ctx, own context.Context, stream watch) error {
	load := time.NewTicker(c.cfg.LoadInterval)
	defer load.Stop()
	// reports is set while some wait for their company.
	var reports <-chan time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			c.flush(stream) // the last acks and sights, if they still can be sent
			err = stream.Send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_Goodbye{Goodbye: &basaltv1.Goodbye{}}})
			return errors.Join(err, stream.CloseSend())
		case <-own.Done():
			return own.Err()
		case <-c.wake:
			err = c.sendAck(stream)
			if reports == nil && c.hasReports() {
				reports = time.After(reportDelay)
			}
		case <-reports:
			reports = nil
			err = c.sendReports(stream)
		case <-load.C:
			l := c.cfg.Load()
			err = stream.Send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_LoadReport{
				LoadReport: &basaltv1.LoadReport{Clients: l.Clients, Commands: l.Commands, Busy: l.Busy, CrossSlot: l.CrossSlot},
			}})
		}
		if err != nil {
			return err // receive tells why
		}
	}
}

func (c *Client) flush(stream watch) {
	if c.sendAck(stream) == nil {
		_ = c.sendReports(stream)
	}
}

// sendAck sends the newest ack, if it was not sent yet.
func (c *Client) sendAck(stream watch) error {
	c.mu.Lock()
	epoch, due := c.status.AckedEpoch, c.ackUnsent
	c.ackUnsent = false
	c.mu.Unlock()
	if !due {
		return nil
	}
	return stream.Send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_Ack{Ack: &basaltv1.Ack{Epoch: epoch}}})
}

func (c *Client) hasReports() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.unsent) > 0
}

func (c *Client) sendReports(stream watch) error {
	report := &basaltv1.NodeReport{}
	c.mu.Lock()
	for _, node := range slices.Sorted(maps.Keys(c.unsent)) {
		s := &basaltv1.NodeSight{Node: node, Sight: c.sights[node].GetSight(), Error: c.sights[node].GetError(), Behind: c.sights[node].GetBehind()}
		if at, ok := c.seenAt[node]; ok {
			s.SinceReply = durationpb.New(time.Since(at))
		}
		if at, ok := c.behindAt[node]; ok {
			s.SinceBehind = durationpb.New(time.Since(at))
		}
		report.Nodes = append(report.Nodes, s)
	}
	clear(c.unsent)
	c.mu.Unlock()
	if len(report.Nodes) == 0 {
		return nil
	}
	return stream.Send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_NodeReport{NodeReport: report}})
}

// checkHealth cuts the stream when the server does not answer; any answer, even
// that it knows no health service, is life.
func checkHealth(ctx context.Context, conn *grpc.ClientConn, interval time.Duration, cut context.CancelCauseFunc) {
	client := grpc_health_v1.NewHealthClient(conn)
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asking, cancel := context.WithTimeout(ctx, interval+interval/2)
		_, err := client.Check(asking, &grpc_health_v1.HealthCheckRequest{})
		timedOut := asking.Err() != nil && ctx.Err() == nil
		cancel()
		if timedOut && status.Code(err) == codes.DeadlineExceeded {
			cut(fmt.Errorf("no answer to a health check within %v", interval+interval/2))
			return
		}
	}
}

// goodbyeTo opens a stream only to leave the cluster.
func (c *Client) goodbyeTo(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	conn, err := dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := basaltv1.NewTopologyServiceClient(conn).WatchTopology(ctx)
	if err != nil {
		return err
	}
	for _, m := range []*basaltv1.WatchTopologyRequest{
		c.hello(),
		{Message: &basaltv1.WatchTopologyRequest_Goodbye{Goodbye: &basaltv1.Goodbye{}}},
	} {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	_ = stream.CloseSend()
	for {
		if _, err := stream.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

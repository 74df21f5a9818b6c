package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// The stream of one proxy.
//
// Two goroutines serve it at the owner. One receives: acks, reports and load go
// to the loop, which never blocks on them. The handler itself sends: it takes
// the newest view the loop has for this proxy, compares it with what it sent
// last, and sends the difference. Send blocks while the proxy does not read
// (HTTP/2 flow control); then views pile up nowhere, since the loop keeps only
// the newest one per proxy. So a stuck proxy costs one blocked goroutine, and
// sees one delta over all the epochs it missed once it reads again. It still
// acks nothing meanwhile, and the loop fences it where that matters.

// helloWait bounds how long a stream may stay silent before its Hello.
const helloWait = 10 * time.Second

type watchServer = grpc.BidiStreamingServer[basaltv1.WatchTopologyRequest, basaltv1.WatchTopologyResponse]

func (s topologyService) WatchTopology(stream watchServer) error {
	in := receive(stream)
	var first *basaltv1.WatchTopologyRequest
	select {
	case m := <-in:
		if m.err != nil {
			return endOfReceive(m.err)
		}
		first = m.request
	case <-time.After(helloWait):
		return status.Errorf(codes.DeadlineExceeded, "no hello within %v; send one first", helloWait)
	case <-s.stopping.Done():
		return status.Error(codes.Unavailable, "this configserver is stopping; connect to another")
	}
	hello := first.GetHello()
	if hello == nil {
		return toStatus(topology.Invalidf("hello", "the first message of a stream must be a hello"))
	}
	err := errors.Join(checkCluster("hello.cluster", hello.GetCluster()), checkText("hello.proxy_id", hello.GetProxyId()),
		checkText("hello.address", hello.GetAddress()), checkText("hello.version", hello.GetVersion()),
		checkText("hello.uid", hello.GetUid()))
	if err == nil && hello.GetProxyId() == "" {
		err = topology.Invalidf("hello.proxy_id", "set a random id, the same on every reconnect")
	}
	if err != nil {
		return toStatus(err)
	}
	at, err := s.findOwner(stream.Context(), hello.GetCluster())
	if err != nil {
		return err
	}
	if at.loop == nil {
		return s.pipe(stream, in, first, at)
	}
	return s.serveProxy(stream, in, hello, at.loop)
}

// received is one message of a proxy, or why there will be no more.
type received struct {
	request *basaltv1.WatchTopologyRequest
	err     error
}

// receive reads a stream in its own goroutine until it ends; the last message
// carries the error.
func receive(stream watchServer) <-chan received {
	in := make(chan received)
	go func() {
		for {
			request, err := stream.Recv()
			select {
			case in <- received{request, err}:
			case <-stream.Context().Done(): // also when the handler returned
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return in
}

// endOfReceive turns the end of a proxy's side into the end of the stream.
func endOfReceive(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return toStatus(err)
}

func (s *Server) serveProxy(stream watchServer, in <-chan received, hello *basaltv1.ProxyHello, loop control.API) error {
	cluster := hello.GetCluster()
	log := s.log.With("cluster", cluster, "proxy", hello.GetProxyId())
	proxy, err := loop.Connect(stream.Context(), control.Hello{
		ID:      hello.GetProxyId(),
		Address: hello.GetAddress(),
		Version: hello.GetVersion(),
		Epoch:   hello.GetEpoch(),
		UID:     hello.GetUid(),
		Alone:   hello.GetAlone(),
	})
	if err != nil {
		return toStatus(err)
	}
	defer proxy.Close()
	log.Info("proxy connected", "address", hello.GetAddress(), "epoch", hello.GetEpoch())
	defer log.Info("proxy's stream ended")

	ended := make(chan error, 1)
	go func() { ended <- s.listen(stream.Context(), in, proxy) }()

	var sent *control.View
	for {
		select {
		case view, open := <-proxy.Updates():
			if !open {
				return moved(cluster)
			}
			message, err := difference(sent, &view)
			if err != nil {
				return fmt.Errorf("encode the topology for %s: %w", hello.GetProxyId(), err)
			}
			if message != nil {
				if err := stream.Send(message); err != nil {
					return err
				}
			}
			sent = &view
		case err := <-ended:
			return err
		case <-s.stopping.Done():
			return moved(cluster)
		}
	}
}

// listen hands what the proxy says to the loop until it stops speaking.
func (s *Server) listen(ctx context.Context, in <-chan received, proxy control.ProxyStream) error {
	for {
		var m received
		select {
		case m = <-in:
		case <-ctx.Done():
			return toStatus(ctx.Err())
		}
		if m.err != nil {
			return endOfReceive(m.err)
		}
		switch message := m.request.GetMessage().(type) {
		case *basaltv1.WatchTopologyRequest_Ack:
			proxy.Ack(message.Ack.GetEpoch())
		case *basaltv1.WatchTopologyRequest_NodeReport:
			proxy.Report(sightsFromProto(message.NodeReport))
		case *basaltv1.WatchTopologyRequest_LoadReport:
			proxy.Load(loadFromProto(message.LoadReport))
		case *basaltv1.WatchTopologyRequest_Goodbye:
			return toStatus(proxy.Goodbye(ctx))
		case *basaltv1.WatchTopologyRequest_Hello:
			return toStatus(topology.Invalidf("hello", "only the first message of a stream may be a hello"))
		default:
			// A newer proxy may say things that are not known here yet.
			s.log.Debug("message of a proxy not understood")
		}
	}
}

// pipe joins a proxy that connected here to the owner of its cluster. The
// owner's end decides how the stream ends; when the owner dies it ends with
// UNAVAILABLE and the proxy connects again, and likewise when it hangs and
// another one took the cluster.
func (s *Server) pipe(stream watchServer, in <-chan received, first *basaltv1.WatchTopologyRequest, at whereabouts) error {
	cluster := first.GetHello().GetCluster()
	ctx, cancel := context.WithCancel(forwardContext(stream.Context()))
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	owner, err := basaltv1.NewTopologyServiceClient(at.conn).WatchTopology(ctx)
	if err != nil {
		return err
	}
	go func() {
		s.untilMoved(ctx, cluster, at.owner)
		cancel()
	}()
	go func() {
		for message := first; ; {
			if owner.Send(message) != nil {
				return // Recv below tells why
			}
			select {
			case m := <-in:
				if m.err != nil {
					_ = owner.CloseSend()
					return
				}
				message = m.request
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		response, err := owner.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil && stream.Context().Err() == nil:
			return moved(cluster) // or this one stops, which is the same to a proxy
		case err != nil:
			return err
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

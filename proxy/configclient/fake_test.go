package configclient

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/internal/capture"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// fake is a Configserver that sends what a test tells it to, over a real
// socket, and keeps what it hears.
type fake struct {
	basaltv1.UnimplementedTopologyServiceServer
	grpc_health_v1.UnimplementedHealthServer
	t       *testing.T
	address string
	server  *grpc.Server

	mu      sync.Mutex
	hung    bool
	refuse  error
	streams []*fakeStream
	// userErrors are the answers to changes of users, in turn; then OK.
	userErrors []error
	// scripts are kept as a Configserver keeps them; scriptError is the answer to
	// every call about them, if there is one, and scriptCalls are the requests.
	scripts     map[string]*basaltv1.Script
	flushes     uint64
	scriptError error
	scriptCalls []any
	changed     chan struct{} // closed and replaced at every change
}

// fakeStream is one stream.
type fakeStream struct {
	f     *fake
	hello *basaltv1.ProxyHello
	heard []*basaltv1.WatchTopologyRequest
	out   chan *basaltv1.WatchTopologyResponse
	cut   chan struct{}
	ended bool
}

func startFake(t *testing.T) *fake {
	f := &fake{t: t, changed: make(chan struct{})}
	f.listen("127.0.0.1:0")
	t.Cleanup(func() { f.server.Stop() })
	return f
}

func (f *fake) listen(address string) {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.address = l.Addr().String()
	f.server = grpc.NewServer()
	basaltv1.RegisterTopologyServiceServer(f.server, f)
	basaltv1.RegisterUserServiceServer(f.server, fakeUsers{fake: f})
	basaltv1.RegisterScriptServiceServer(f.server, fakeScripts{fake: f})
	grpc_health_v1.RegisterHealthServer(f.server, f)
	server := f.server
	go func() { _ = server.Serve(l) }()
}

func (f *fake) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	f.mu.Lock()
	hung := f.hung
	f.mu.Unlock()
	if hung {
		<-ctx.Done()
	}
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

// do changes the fake under its lock and wakes those who wait.
func (f *fake) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) WatchTopology(stream basaltv1.TopologyService_WatchTopologyServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	s := &fakeStream{f: f, hello: first.GetHello(), out: make(chan *basaltv1.WatchTopologyResponse, 100), cut: make(chan struct{})}
	var refuse error
	f.do(func() {
		f.streams = append(f.streams, s)
		refuse = f.refuse
	})
	defer f.do(func() { s.ended = true })
	if refuse != nil {
		return refuse
	}
	heard := make(chan error, 1)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				heard <- err
				return
			}
			f.do(func() { s.heard = append(s.heard, m) })
			if m.GetGoodbye() != nil {
				heard <- nil
				return
			}
		}
	}()
	for {
		select {
		case m := <-s.out:
			if err := stream.Send(m); err != nil {
				return err
			}
		case err := <-heard:
			return err
		case <-s.cut:
			return status.Error(codes.Unavailable, "the owner moved")
		}
	}
}

// until waits for a condition, which is called under the lock.
func (f *fake) until(what string, condition func() bool) {
	f.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		f.mu.Lock()
		ok, changed := condition(), f.changed
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			f.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// stream waits for the n-th stream, from 0.
func (f *fake) stream(n int) (s *fakeStream) {
	f.t.Helper()
	f.until(fmt.Sprintf("stream %d", n), func() bool { return len(f.streams) > n })
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams[n]
}

func (s *fakeStream) snapshot(t *basaltv1.Topology) {
	s.out <- &basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Snapshot{Snapshot: &basaltv1.Snapshot{
		Topology: t, Credentials: []*basaltv1.ShardCredential{{Shard: "shard-0", Generation: 1, Username: "basalt-proxy-1", Password: secret}},
	}}}
}

func (s *fakeStream) delta(from uint64, t *basaltv1.Topology) {
	s.out <- &basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Delta{Delta: &basaltv1.Delta{FromEpoch: from, Topology: t}}}
}

// acked waits until the last ack is of epoch and returns all of them.
func (s *fakeStream) acked(epoch uint64) (acks []uint64) {
	s.f.t.Helper()
	s.f.until(fmt.Sprintf("ack of epoch %d", epoch), func() bool {
		acks = acks[:0]
		for _, m := range s.heard {
			if a := m.GetAck(); a != nil {
				acks = append(acks, a.GetEpoch())
			}
		}
		return len(acks) > 0 && acks[len(acks)-1] == epoch
	})
	return acks
}

const secret = "hunter2-the-secret"

func topologyAt(epoch uint64, master string) *basaltv1.Topology {
	return &basaltv1.Topology{
		Cluster: "local", Epoch: epoch, Phase: basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING,
		Shards: []*basaltv1.Shard{{
			Id: "shard-0", Slots: []*basaltv1.SlotRange{{Start: 0, End: 16383}}, Master: master, Generation: 1,
			Nodes: []*basaltv1.Node{{Id: "a", Address: "127.0.0.1:1", Incarnation: "x"}, {Id: "b", Address: "127.0.0.1:2", Incarnation: "y"}},
		}},
	}
}

// proxy is a client under test and the engine it believes to have.
type proxy struct {
	*Client
	mu     sync.Mutex
	tables []*routing.Table
	log    *capture.Buffer
	stop   context.CancelFunc
	done   chan error
}

func startProxy(t *testing.T, change func(*Config), fakes ...*fake) *proxy {
	p := &proxy{log: &capture.Buffer{}, done: make(chan error, 1)}
	cfg := Config{
		Cluster: "local", Address: "127.0.0.1:6380", Version: "test", LoadInterval: 50 * time.Millisecond,
		Load: func() Load {
			return Load{Clients: 3, Commands: 4, Busy: 0.5, CrossSlot: []*CrossSlotRequests{{Command: "rename", Requests: 7}}}
		},
		Logger: slog.New(slog.NewTextHandler(p.log, nil)),
		Apply: func(table *routing.Table) { // an engine that obeys at once
			p.mu.Lock()
			p.tables = append(p.tables, table)
			p.mu.Unlock()
			p.Ack(table.Epoch)
		},
	}
	for _, f := range fakes {
		cfg.Addresses = append(cfg.Addresses, f.address)
	}
	if change != nil {
		change(&cfg)
	}
	p.Client = New(cfg)
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	go func() { p.done <- p.Run(ctx) }()
	t.Cleanup(func() {
		p.stop()
		if err := <-p.done; err != nil {
			t.Error(err)
		}
		if strings.Contains(p.log.String(), secret) {
			t.Error("the log has a password in it")
		}
	})
	return p
}

// epochs of the tables that were applied, and the masters they name.
func (p *proxy) applied() (epochs []uint64, masters []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tables {
		epochs = append(epochs, t.Epoch)
		masters = append(masters, t.Shards[0].Master)
	}
	return epochs, masters
}

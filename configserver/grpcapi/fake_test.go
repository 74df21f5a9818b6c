package grpcapi

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/basalt-redis/basalt/configserver/client"
	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/memstore"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// fakeLoop is a loop without servers: it keeps a record, hands it to streams,
// and remembers what proxies said. Methods it does not need panic.
type fakeLoop struct {
	control.API

	mu       sync.Mutex
	cluster  topology.Cluster
	streams  map[string]*fakeStream
	acks     map[string]uint64
	sights   []control.NodeSight
	load     control.Load
	goodbyes []string
	outages  []control.Outage
	closed   []string
	err      error
}

func newFakeLoop(c topology.Cluster) *fakeLoop {
	return &fakeLoop{cluster: c, streams: map[string]*fakeStream{}, acks: map[string]uint64{}}
}

type fakeStream struct {
	loop    *fakeLoop
	id      string
	updates chan control.View
	seat    credentials.Seat
}

func (s *fakeStream) view() control.View {
	v := s.loop.view()
	v.Seat = s.seat
	return v
}

func (l *fakeLoop) Topology() topology.Cluster {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cluster
}

func (l *fakeLoop) view() control.View {
	v := control.View{Common: &control.Common{Cluster: l.cluster, ClientPasswordSHA256: [][]byte{{1, 2, 3}}}}
	for _, s := range l.cluster.Shards {
		v.Credentials = append(v.Credentials, control.ShardCredential{
			Shard: s.ID, Generation: s.Generation, Key: fmt.Sprintf("key of %s %d", s.ID, s.Generation),
			ScriptUsername: credentials.ScriptUser(s.Generation), ScriptPassword: fmt.Sprintf("secret of %s %d", s.ID, s.Generation),
		})
	}
	return v
}

// commit changes the record and gives it to every stream; the newest view
// replaces one that was not taken yet.
func (l *fakeLoop) commit(change func(*topology.Cluster)) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.cluster
	next.Shards, next.Seats = slices.Clone(l.cluster.Shards), slices.Clone(l.cluster.Seats)
	next.Epoch++
	change(&next)
	l.cluster = next
	for _, s := range l.streams {
		s.offer(s.view())
	}
	return next.Epoch
}

func (s *fakeStream) offer(v control.View) {
	select {
	case <-s.updates:
	default:
	}
	s.updates <- v
}

func (l *fakeLoop) Connect(_ context.Context, h control.Hello) (control.ProxyStream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	s := &fakeStream{loop: l, id: h.ID, updates: make(chan control.View, 1), seat: credentials.Seat{Number: len(l.streams), Version: 1}}
	s.offer(s.view())
	l.streams[h.ID] = s
	return s, nil
}

// reseat gives a proxy its seat in the present version, without a new epoch.
func (l *fakeLoop) reseat(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[id]
	s.seat.Version = l.cluster.Seats[s.seat.Number]
	s.offer(s.view())
}

// stop ends every stream, as a loop does that lost its cluster.
func (l *fakeLoop) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, s := range l.streams {
		close(s.updates)
		delete(l.streams, id)
	}
}

func (s *fakeStream) Updates() <-chan control.View { return s.updates }

func (s *fakeStream) note(f func()) {
	s.loop.mu.Lock()
	defer s.loop.mu.Unlock()
	f()
}

func (s *fakeStream) Ack(epoch uint64)             { s.note(func() { s.loop.acks[s.id] = epoch }) }
func (s *fakeStream) Report(n []control.NodeSight) { s.note(func() { s.loop.sights = n }) }
func (s *fakeStream) Load(l control.Load)          { s.note(func() { s.loop.load = l }) }
func (s *fakeStream) Close() {
	s.note(func() { s.loop.closed = append(s.loop.closed, s.id); delete(s.loop.streams, s.id) })
}
func (s *fakeStream) Goodbye(context.Context) error {
	s.note(func() { s.loop.goodbyes = append(s.loop.goodbyes, s.id) })
	return nil
}

func (l *fakeLoop) RegisterNode(_ context.Context, shard string, n topology.Node, discard bool) (topology.Cluster, error) {
	if l.err != nil {
		return topology.Cluster{}, l.err
	}
	l.commit(func(c *topology.Cluster) {
		c.Shards = append(c.Shards, topology.Shard{ID: shard, Generation: 1, Nodes: []topology.Node{n}})
	})
	return l.Topology(), nil
}

func (l *fakeLoop) UpdatePolicy(_ context.Context, p topology.Policy) (topology.Cluster, error) {
	l.commit(func(c *topology.Cluster) { c.Policy = p })
	return l.Topology(), nil
}

func (l *fakeLoop) SetConfig(_ context.Context, settings []topology.Setting) (topology.Cluster, error) {
	if l.err != nil {
		return topology.Cluster{}, l.err
	}
	l.commit(func(c *topology.Cluster) { c.Settings = topology.WithSettings(c.Settings, settings) })
	return l.Topology(), nil
}

func (l *fakeLoop) Switchover(_ context.Context, shard, candidate string) (topology.Report, error) {
	if l.err != nil {
		return topology.Report{}, l.err
	}
	return topology.Report{
		Operation: topology.Operation{
			ID: "op-1", Kind: topology.Switchover, OldMaster: "shard-0-0", StartEpoch: 4,
			Phases: []topology.PhaseTime{{Name: "freezing", Duration: time.Millisecond}},
		},
		Shard: shard, NewMaster: candidate, EndEpoch: 6, Succeeded: true,
	}, nil
}

func (l *fakeLoop) Outages(context.Context) ([]control.Outage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outages, nil
}

func (l *fakeLoop) Status() control.Status {
	return control.Status{
		Cluster: l.Topology(),
		Nodes: []control.NodeStatus{{
			Shard: "shard-0", Node: topology.Node{ID: "shard-0-0", Address: "127.0.0.1:1"}, Role: "master",
			Offset: 7, Lag: -1, Keys: 3, UsedMemory: -1, Sight: topology.SightOK, Health: "ok",
		}},
	}
}

func (l *fakeLoop) ForgetProxy(_ context.Context, id string) error {
	if id != "p-2" {
		return fmt.Errorf("proxy %s: %w", id, store.ErrNotFound)
	}
	return nil
}

func (l *fakeLoop) SetMaintenance(_ context.Context, shard string, length time.Duration, reason string) (topology.Cluster, error) {
	l.commit(func(c *topology.Cluster) {
		now := time.Now()
		c.SetMaintenance(topology.Maintenance{Shard: shard, Since: now, Until: now.Add(length), Reason: reason}, now)
	})
	return l.Topology(), nil
}

func (l *fakeLoop) PlanFailover(_ context.Context, _ string, wish failover.Wish) (control.FailoverPlan, error) {
	return control.FailoverPlan{Master: "shard-0-0", MasterLives: true, Candidate: wish.Node, Bytes: 17}, nil
}

func (l *fakeLoop) Barrier(ctx context.Context, epoch uint64) (uint64, []string, error) {
	if epoch == 0 {
		epoch = l.Topology().Epoch
	}
	for {
		l.mu.Lock()
		var done []string
		for id, acked := range l.acks {
			if acked >= epoch {
				done = append(done, id)
			}
		}
		complete := len(done) == len(l.streams)
		l.mu.Unlock()
		if complete {
			return epoch, done, nil
		}
		select {
		case <-ctx.Done():
			return epoch, done, &control.UnackedError{Epoch: epoch, Proxies: []string{"p-2 at 127.0.0.1:2 has been away for 3s"}}
		case <-time.After(time.Millisecond):
		}
	}
}

// fakeLoops is what runs in one process.
type fakeLoops struct {
	mu    sync.Mutex
	loops map[string]*fakeLoop
}

func (l *fakeLoops) Local(cluster string) (control.API, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	loop, ok := l.loops[cluster]
	if !ok {
		return nil, false
	}
	return loop, true
}

func (l *fakeLoops) set(cluster string, loop *fakeLoop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if loop == nil {
		delete(l.loops, cluster)
	} else {
		l.loops[cluster] = loop
	}
}

// configserver is one gRPC server with its API.
type configserver struct {
	api     *Server
	grpc    *grpc.Server
	loops   *fakeLoops
	self    store.Replica
	session store.Session
	conn    *grpc.ClientConn
}

func startConfigserver(t *testing.T, st *memstore.Store, id string) *configserver {
	t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := &configserver{loops: &fakeLoops{loops: map[string]*fakeLoop{}}, self: store.Replica{ID: id, Address: listener.Addr().String()}}
	if c.session, err = st.Join(t.Context(), c.self); err != nil {
		t.Fatal(err)
	}
	c.api = New(Config{
		Store: st, Loops: c.loops, Self: c.self,
		Credentials: func(cluster string) error {
			if cluster == "bare" {
				return topology.Preconditionf("make credentials/bare/admin-password first")
			}
			return nil
		},
	})
	c.grpc = grpc.NewServer(ServerOptions()...)
	c.api.Register(c.grpc)
	go func() { _ = c.grpc.Serve(listener) }()
	if c.conn, err = client.Dial([]string{c.self.Address}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.conn.Close()
		c.api.Close()
		c.grpc.Stop()
	})
	return c
}

// own makes this Configserver the owner of a cluster that is in the store.
func (c *configserver) own(t *testing.T, st *memstore.Store, cluster string) *fakeLoop {
	t.Helper()
	if _, err := c.session.Claim(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	record, err := st.Cluster(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	record.MoreSeats()
	loop := newFakeLoop(record)
	c.loops.set(cluster, loop)
	return loop
}

func (c *configserver) clusters() basaltv1.ClusterServiceClient {
	return basaltv1.NewClusterServiceClient(c.conn)
}

func (c *configserver) topologies() basaltv1.TopologyServiceClient {
	return basaltv1.NewTopologyServiceClient(c.conn)
}

// newStore holds one cluster, "blue".
func newStore(t *testing.T) *memstore.Store {
	t.Helper()
	st := memstore.New(memstore.Options{})
	t.Cleanup(func() { _ = st.Close() })
	err := st.Create(t.Context(), topology.Cluster{
		Name: "blue", Epoch: 1, Phase: topology.Forming, Reason: "cluster created",
		WantShards: 2, WantNodes: 2, Policy: topology.DefaultPolicy(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// eventually waits for what another goroutine does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

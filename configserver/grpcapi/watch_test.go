package grpcapi

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

type controlView = control.View

type proxy struct {
	t      *testing.T
	stream basaltv1.TopologyService_WatchTopologyClient
}

// connect opens the stream of a proxy and says hello.
func connect(t *testing.T, to *configserver, id string) *proxy {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := to.topologies().WatchTopology(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t, stream}
	p.send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_Hello{Hello: &basaltv1.ProxyHello{
		Cluster: "blue", ProxyId: id, Address: "127.0.0.1:6380", Version: "test",
	}}})
	return p
}

func (p *proxy) send(m *basaltv1.WatchTopologyRequest) {
	p.t.Helper()
	if err := p.stream.Send(m); err != nil {
		p.t.Fatal(err)
	}
}

func (p *proxy) ack(epoch uint64) {
	p.t.Helper()
	p.send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_Ack{Ack: &basaltv1.Ack{Epoch: epoch}}})
}

func (p *proxy) snapshot() *basaltv1.Snapshot {
	p.t.Helper()
	m, err := p.stream.Recv()
	if err != nil || m.GetSnapshot() == nil {
		p.t.Fatalf("want a snapshot, got %v %v", m, err)
	}
	return m.GetSnapshot()
}

func (p *proxy) delta() *basaltv1.Delta {
	p.t.Helper()
	m, err := p.stream.Recv()
	if err != nil || m.GetDelta() == nil {
		p.t.Fatalf("want a delta, got %v %v", m, err)
	}
	return m.GetDelta()
}

func addShards(n int) func(*topology.Cluster) {
	return func(c *topology.Cluster) {
		for i := range n {
			c.Shards = append(c.Shards, topology.Shard{ID: fmt.Sprintf("shard-%d", i), Generation: 1})
		}
	}
}

// atBoth runs a test of streams of a cluster at its owner, and at another
// Configserver, which pipes them.
func atBoth(t *testing.T, shards int, test func(t *testing.T, at *configserver, loop *fakeLoop)) {
	for name, piped := range map[string]bool{"owner": false, "piped": true} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			at := startConfigserver(t, st, "cs-0")
			loop := at.own(t, st, "blue")
			loop.commit(addShards(shards))
			if piped {
				at = startConfigserver(t, st, "cs-1")
			}
			test(t, at, loop)
		})
	}
}

// A stream behaves the same at the owner and at another Configserver.
func TestWatchTopology(t *testing.T) {
	atBoth(t, 2, func(t *testing.T, at *configserver, loop *fakeLoop) {
		p := connect(t, at, "p-1")
		s := p.snapshot()
		if s.GetTopology().GetEpoch() != 2 || len(s.GetCredentials()) != 2 || len(s.GetClientAuth().GetPasswordSha256()) != 1 {
			t.Fatalf("snapshot %v", s)
		}
		p.ack(2)
		eventually(t, "ack of epoch 2", func() bool {
			loop.mu.Lock()
			defer loop.mu.Unlock()
			return loop.acks["p-1"] == 2
		})

		loop.commit(func(c *topology.Cluster) { c.Shards[1].Master, c.Shards[1].Generation = "shard-1-0", 2 })
		d := p.delta()
		if d.GetFromEpoch() != 2 || d.GetTopology().GetEpoch() != 3 || len(d.GetTopology().GetShards()) != 1 ||
			d.GetTopology().GetShards()[0].GetMaster() != "shard-1-0" || d.GetClientAuth() != nil ||
			len(d.GetCredentials()) != 1 || d.GetCredentials()[0].GetUsername() != "basalt-proxy-2-0-1" || d.GetCredentials()[0].GetScriptUsername() != "basalt-proxy-2" {
			t.Fatalf("delta %v", d)
		}
		loop.commit(func(c *topology.Cluster) { c.Shards = c.Shards[:1] })
		if d := p.delta(); len(d.GetTopology().GetShards()) != 0 || d.GetRemovedShards()[0] != "shard-1" {
			t.Fatalf("delta %v", d)
		}

		p.send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_NodeReport{NodeReport: &basaltv1.NodeReport{
			Nodes: []*basaltv1.NodeSight{
				{Node: "shard-0-0", Sight: basaltv1.Sight_SIGHT_REFUSED, SinceReply: durationpb.New(time.Second), Error: "refused"},
				{Node: "shard-0-1", Sight: basaltv1.Sight_SIGHT_OK}, // connected, and nothing was asked
			},
		}}})
		p.send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_LoadReport{LoadReport: &basaltv1.LoadReport{
			Clients: 7, CrossSlot: []*basaltv1.CrossSlotRequests{{Command: "rename", ClientName: "worker", Requests: 3, PerSecond: 0.5}},
		}}})
		eventually(t, "report and load", func() bool {
			loop.mu.Lock()
			defer loop.mu.Unlock()
			return loop.load.Clients == 7 && len(loop.sights) == 2 && len(loop.load.CrossSlot) == 1 &&
				loop.load.CrossSlot[0] == control.CrossSlotRequests{Command: "rename", ClientName: "worker", Requests: 3, PerSecond: 0.5} &&
				loop.sights[0] == control.NodeSight{Node: "shard-0-0", Sight: topology.SightRefused, SinceReply: time.Second, Error: "refused"} &&
				loop.sights[1] == control.NodeSight{Node: "shard-0-1", Sight: topology.SightOK, SinceReply: -1}
		})

		p.send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_Goodbye{Goodbye: &basaltv1.Goodbye{}}})
		if m, err := p.stream.Recv(); err != io.EOF {
			t.Fatalf("after goodbye: %v %v", m, err)
		}
		loop.mu.Lock()
		defer loop.mu.Unlock()
		if len(loop.goodbyes) != 1 {
			t.Fatal("the loop heard no goodbye")
		}
	})
}

// usernames of credentials, which must fit the seat and share what scripts need.
func usernames(t *testing.T, list []*basaltv1.ShardCredential, seat credentials.Seat) (names []string) {
	t.Helper()
	for _, c := range list {
		of := control.ShardCredential{Generation: c.GetGeneration(), Key: fmt.Sprintf("key of %s %d", c.GetShard(), c.GetGeneration())}
		if username, password := of.Login(seat); c.GetUsername() != username || c.GetPassword() != password {
			t.Errorf("%v logs in as %s", seat, c.GetUsername())
		}
		if c.GetScriptPassword() != fmt.Sprintf("secret of %s %d", c.GetShard(), c.GetGeneration()) {
			t.Errorf("the password of scripts is %s", c.GetScriptPassword())
		}
		names = append(names, c.GetUsername())
	}
	return names
}

// Each proxy gets the password of its own seat. When one is shut out, the others get
// an epoch without a credential, and that one none until it has its seat again.
func TestEachProxyHasItsSeat(t *testing.T) {
	atBoth(t, 2, func(t *testing.T, at *configserver, loop *fakeLoop) {
		p0 := connect(t, at, "p-0")
		first := p0.snapshot()
		p1 := connect(t, at, "p-1")
		second := p1.snapshot()
		seat0, seat1 := credentials.Seat{Version: 1}, credentials.Seat{Number: 1, Version: 1}
		if got := usernames(t, first.GetCredentials(), seat0); !slices.Equal(got, []string{"basalt-proxy-1-0-1", "basalt-proxy-1-0-1"}) {
			t.Errorf("the first proxy logs in as %q", got)
		}
		if got := usernames(t, second.GetCredentials(), seat1); !slices.Equal(got, []string{"basalt-proxy-1-1-1", "basalt-proxy-1-1-1"}) {
			t.Errorf("the second proxy logs in as %q", got)
		}
		epoch := loop.commit(func(c *topology.Cluster) { c.Seats[1]++ })
		for _, p := range []*proxy{p0, p1} {
			if d := p.delta(); d.GetTopology().GetEpoch() != epoch || len(d.GetCredentials())+len(d.GetTopology().GetShards()) > 0 {
				t.Errorf("the epoch in which a proxy lost its seat: %v", d)
			}
		}
		// What changes meanwhile it gets without the credential.
		loop.commit(func(c *topology.Cluster) { c.Shards[1].Generation = 2 })
		if got := usernames(t, p0.delta().GetCredentials(), seat0); !slices.Equal(got, []string{"basalt-proxy-2-0-1"}) {
			t.Errorf("the first proxy logs in as %q", got)
		}
		if d := p1.delta(); len(d.GetCredentials()) > 0 || len(d.GetTopology().GetShards()) != 1 {
			t.Errorf("a proxy that lost its seat: %v", d)
		}
		again := connect(t, at, "p-2") // takes the seat after those two
		again.snapshot()
		seat1.Version = 2
		loop.reseat("p-1")
		if got := usernames(t, p1.delta().GetCredentials(), seat1); !slices.Equal(got, []string{"basalt-proxy-1-1-2", "basalt-proxy-2-1-2"}) {
			t.Errorf("with its seat it logs in as %q", got)
		}
		last := loop.commit(func(c *topology.Cluster) { c.Shards[0].Frozen = true })
		if d := p1.delta(); d.GetTopology().GetEpoch() != last || len(d.GetCredentials()) != 1 {
			t.Errorf("afterwards: %v", d)
		}
		if d := p0.delta(); d.GetTopology().GetEpoch() != last || len(d.GetCredentials()) != 1 {
			t.Errorf("the other proxy was told of something: %v", d)
		}
	})
}

// A proxy without its seat gets a whole topology, and nothing to log in with.
func TestASnapshotWithoutASeat(t *testing.T) {
	c := topology.Cluster{Name: "blue", Epoch: 3, Seats: []uint32{1, 2}}
	addShards(2)(&c)
	loop := newFakeLoop(c)
	for seat, want := range map[credentials.Seat]int{{Number: 1, Version: 2}: 2, {Number: 1, Version: 1}: 0, {}: 0, {Number: 2, Version: 1}: 0} {
		v := loop.view()
		v.Seat = seat
		s := decoded(t, nil, &v).GetSnapshot()
		if len(s.GetTopology().GetShards()) != 2 || len(s.GetCredentials()) != want {
			t.Errorf("%v: %v", seat, s)
		}
	}
}

// A proxy that does not read delays nobody, and one delta takes it over all
// the epochs it missed.
func TestStuckReader(t *testing.T) {
	atBoth(t, 100, func(t *testing.T, at *configserver, loop *fakeLoop) {
		stuck, healthy := connect(t, at, "p-1"), connect(t, at, "p-2")
		stuck.snapshot()
		healthy.snapshot()
		// 64 KiB of flow control are full after a few deltas of this size.
		padding := strings.Repeat("x", 300)
		last := uint64(0)
		for i := range 100 {
			last = loop.commit(func(c *topology.Cluster) {
				for j := range c.Shards {
					c.Shards[j].Master = fmt.Sprintf("shard-%d-%d-%s", j, i, padding)
				}
			})
			for healthy.delta().GetTopology().GetEpoch() < last {
			}
			healthy.ack(last)
		}
		// Acks still go in on the stream whose other direction is full.
		stuck.ack(2)
		eventually(t, "acks of both", func() bool {
			loop.mu.Lock()
			defer loop.mu.Unlock()
			return loop.acks["p-1"] == 2 && loop.acks["p-2"] == last
		})
		got := 0
		for epoch := uint64(2); epoch < last; got++ {
			d := stuck.delta()
			if d.GetFromEpoch() != epoch {
				t.Fatalf("delta from epoch %d, want from %d", d.GetFromEpoch(), epoch)
			}
			epoch = d.GetTopology().GetEpoch()
		}
		if got >= 100 {
			t.Fatal("nothing was coalesced for the stuck proxy")
		}
	})
}

func TestStreamsEndWhenTheOwnerChanges(t *testing.T) {
	st := newStore(t)
	owner, other := startConfigserver(t, st, "cs-0"), startConfigserver(t, st, "cs-1")
	loop := owner.own(t, st, "blue")
	direct, piped := connect(t, owner, "p-1"), connect(t, other, "p-2")
	direct.snapshot()
	piped.snapshot()
	loop.stop()
	_, err := direct.stream.Recv()
	wantStatus(t, err, codes.Unavailable, "reconnect")
	_, err = piped.stream.Recv()
	wantStatus(t, err, codes.Unavailable, "reconnect")

	// The owner's process dies: piped streams end by themselves.
	again := connect(t, other, "p-2")
	again.snapshot()
	owner.grpc.Stop()
	_, err = again.stream.Recv()
	wantStatus(t, err, codes.Unavailable)
	// The other one takes over.
	st.ExpireLease("cs-0")
	other.own(t, st, "blue")
	connect(t, other, "p-2").snapshot()
}

// The owner's process hangs: its streams say nothing any more, until another
// Configserver has the cluster.
func TestPipedStreamsLeaveAHungOwner(t *testing.T) {
	st := newStore(t)
	owner, other := startConfigserver(t, st, "cs-0"), startConfigserver(t, st, "cs-1")
	owner.own(t, st, "blue")
	p := connect(t, other, "p-1")
	p.snapshot()
	st.ExpireLease("cs-0")
	other.own(t, st, "blue")
	_, err := p.stream.Recv()
	wantStatus(t, err, codes.Unavailable, "reconnect")
	connect(t, other, "p-1").snapshot()
}

func TestStreamsMustBeginWithHello(t *testing.T) {
	st := newStore(t)
	cs := startConfigserver(t, st, "cs-0")
	cs.own(t, st, "blue")
	stream, err := cs.topologies().WatchTopology(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t, stream}
	p.ack(1)
	_, err = stream.Recv()
	wantStatus(t, err, codes.InvalidArgument, "hello")

	p = connect(t, cs, "")
	_, err = p.stream.Recv()
	wantStatus(t, err, codes.InvalidArgument, "proxy_id")

	p = connect(t, cs, "p-1")
	p.snapshot()
	p.send(&basaltv1.WatchTopologyRequest{Message: &basaltv1.WatchTopologyRequest_Hello{Hello: &basaltv1.ProxyHello{Cluster: "blue", ProxyId: "p-1"}}})
	_, err = p.stream.Recv()
	wantStatus(t, err, codes.InvalidArgument, "hello")
}

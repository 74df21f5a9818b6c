package configclient

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/routing"
)

func TestSnapshotDeltasAcks(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	s := f.stream(0)
	if h := s.hello; h.GetCluster() != "local" || h.GetProxyId() != p.ID() || h.GetEpoch() != 0 || h.GetAddress() != "127.0.0.1:6380" || h.GetVersion() != "test" {
		t.Errorf("hello %v", h)
	}
	s.snapshot(topologyAt(5, "a"))
	s.acked(5)
	s.delta(5, topologyAt(6, ""))
	s.acked(6)
	s.delta(6, &basaltv1.Topology{Cluster: "local", Epoch: 9, Phase: basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING}) // nothing changed
	s.delta(9, topologyAt(10, "b"))
	if acks := s.acked(10); !slices.IsSorted(acks) {
		t.Errorf("acks %v", acks)
	}
	epochs, masters := p.applied()
	if !slices.Equal(epochs, []uint64{5, 6, 9, 10}) || !slices.Equal(masters, []string{"a", "", "", "b"}) {
		t.Errorf("applied epochs %v with masters %q", epochs, masters)
	}
	p.mu.Lock()
	shard := p.tables[3].Shards[0]
	p.mu.Unlock()
	if shard.Password != secret || shard.Username != "basalt-proxy-1" || shard.Nodes[1].Incarnation != "y" {
		t.Errorf("shard %+v", shard)
	}
	// A Configserver that does not know seats.
	if shard.ScriptUsername != "basalt-proxy-1" || shard.ScriptPassword != secret {
		t.Errorf("scripts log in as %s", shard.ScriptUsername)
	}
	if st := p.Status(); st.Epoch != 10 || st.AckedEpoch != 10 || st.Phase != "serving" || st.Server != f.address || st.Connects != 1 {
		t.Errorf("status %+v", st)
	}
}

// Proxies connect to the endpoint, and a new one is a change though nothing else is.
func TestEndpointIsDialed(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	s := f.stream(0)
	named := topologyAt(1, "a")
	named.Shards[0].Nodes[0].Address, named.Shards[0].Nodes[0].Endpoint = "db.test:1", "10.0.0.1:1"
	s.snapshot(named)
	s.acked(1)
	moved := proto.CloneOf(named)
	moved.Epoch, moved.Shards[0].Nodes[0].Endpoint = 2, "10.0.0.2:1"
	s.delta(1, moved)
	s.acked(2)
	p.mu.Lock()
	defer p.mu.Unlock()
	var addresses []string
	for _, table := range p.tables {
		addresses = append(addresses, table.Shards[0].Nodes[0].Address, table.Shards[0].Nodes[1].Address)
	}
	if !slices.Equal(addresses, []string{"10.0.0.1:1", "127.0.0.1:2", "10.0.0.2:1", "127.0.0.1:2"}) {
		t.Errorf("addresses %q", addresses)
	}
}

// What becomes of requests over several slots is part of the topology; a Configserver
// that does not know it lets none through.
func TestCrossSlot(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	s := f.stream(0)
	s.snapshot(topologyAt(1, "a"))
	for i, policy := range []basaltv1.CrossSlot{basaltv1.CrossSlot_CROSS_SLOT_ONE_SHARD, basaltv1.CrossSlot_CROSS_SLOT_REFUSE} {
		epoch := uint64(i + 1)
		next := topologyAt(epoch+1, "a")
		next.Shards, next.CrossSlot = nil, policy // a delta, in which no shard changed
		s.delta(epoch, next)
		s.acked(epoch + 1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var served []bool
	for _, table := range p.tables {
		served = append(served, table.CrossSlot)
	}
	if !slices.Equal(served, []bool{false, true, false}) {
		t.Errorf("requests over several slots are served: %v", served)
	}
}

// A slow engine's acks are not sent one by one.
func TestOnlyTheNewestAckIsSent(t *testing.T) {
	f := startFake(t)
	applied := make(chan uint64, 100)
	p := startProxy(t, func(c *Config) { c.Apply = func(t *routing.Table) { applied <- t.Epoch } }, f)
	s := f.stream(0)
	s.snapshot(topologyAt(1, "a"))
	for e := uint64(1); e < 20; e++ {
		s.delta(e, topologyAt(e+1, "a"))
	}
	for e := range applied {
		if e == 20 {
			break
		}
	}
	if st := p.Status(); st.AckedEpoch != 0 || st.Epoch != 20 {
		t.Errorf("status %+v before any ack", st)
	}
	p.Ack(20)
	if acks := s.acked(20); len(acks) != 1 {
		t.Errorf("acks %v", acks)
	}
}

func TestReconnect(t *testing.T) {
	f, g := startFake(t), startFake(t)
	p := startProxy(t, nil, f, g)
	f.stream(0).snapshot(topologyAt(5, "a"))
	f.stream(0).acked(5)
	p.Report("a", Seen{Sight: basaltv1.Sight_SIGHT_REFUSED, SinceReply: -1, Err: errors.New("connection refused")})
	close(f.stream(0).cut)
	s := g.stream(0)
	if s.hello.GetProxyId() != f.streams[0].hello.GetProxyId() || s.hello.GetEpoch() != 5 {
		t.Errorf("hello %v", s.hello)
	}
	s.snapshot(topologyAt(5, "a")) // nothing new: not applied again, acked again
	s.acked(5)
	g.until("what is known of node a", func() bool { return len(sightsOf(s)) > 0 })
	s.delta(5, topologyAt(6, "b"))
	s.acked(6)
	if epochs, _ := p.applied(); !slices.Equal(epochs, []uint64{5, 6}) {
		t.Errorf("applied %v", epochs)
	}
}

func sightsOf(s *fakeStream) (sights []*basaltv1.NodeSight) {
	for _, m := range s.heard {
		sights = append(sights, m.GetNodeReport().GetNodes()...)
	}
	return sights
}

func TestAGapEndsTheStream(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	f.stream(0).snapshot(topologyAt(5, "a"))
	f.stream(0).acked(5)
	f.stream(0).delta(7, topologyAt(8, "b"))
	f.stream(1).snapshot(topologyAt(8, "b"))
	f.stream(1).acked(8)
	if epochs, _ := p.applied(); !slices.Equal(epochs, []uint64{5, 8}) || p.Status().Refused != 1 {
		t.Errorf("applied %v, status %+v", epochs, p.Status())
	}
	if !strings.Contains(p.log.String(), "delta from epoch 7, but epoch 5 is the newest here") {
		t.Errorf("log:\n%s", p.log)
	}
}

func TestAStaleSnapshotIsRefused(t *testing.T) {
	stale, fresh := startFake(t), startFake(t)
	p := startProxy(t, nil, fresh, stale)
	fresh.stream(0).snapshot(topologyAt(9, "b"))
	fresh.stream(0).acked(9)
	close(fresh.stream(0).cut)
	stale.stream(0).snapshot(topologyAt(4, "a"))
	fresh.stream(1).snapshot(topologyAt(10, "b"))
	fresh.stream(1).acked(10)
	if epochs, masters := p.applied(); !slices.Equal(epochs, []uint64{9, 10}) || slices.Contains(masters, "a") {
		t.Errorf("applied %v %v", epochs, masters)
	}
	if !strings.Contains(p.log.String(), "snapshot of epoch 4, but this proxy already knows epoch 9") {
		t.Errorf("log:\n%s", p.log)
	}
	stale.until("no ack for the stale one", func() bool { return len(stale.streams[0].heard) == 0 })
}

// Each hello tells which epoch of which cluster the proxy obeys, so that a
// Configserver whose etcd was restored learns that its record is older. The proxy
// serves on, says why, and follows an epoch that is above its own.
func TestAnOlderRecordIsToldSo(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	at := func(epoch uint64, uid string) *basaltv1.Topology {
		topology := topologyAt(epoch, "a")
		topology.Uid = uid
		return topology
	}
	if h := f.stream(0).hello; h.GetEpoch() != 0 || h.GetUid() != "" {
		t.Errorf("the first hello: %v", h)
	}
	f.stream(0).snapshot(at(9, "u"))
	f.stream(0).acked(9)
	close(f.stream(0).cut)
	for i, uid := range []string{"u", "u", "another"} {
		s := f.stream(i + 1)
		if s.hello.GetEpoch() != 9 || s.hello.GetUid() != "u" {
			t.Errorf("hello %v", s.hello)
		}
		s.snapshot(at(4, uid))
	}
	s := f.stream(4)
	if epochs, _ := p.applied(); !slices.Equal(epochs, []uint64{9}) || p.Status().Epoch != 9 {
		t.Errorf("applied %v", epochs)
	}
	s.snapshot(at(109, "u"))
	s.acked(109)
	for _, want := range []string{"basaltctl topology adopt", "deleted and created again"} {
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, p.log)
		}
	}
}

// After an epoch that says "deleting", a cluster of that name is a new one.
func TestADeletedClusterMayBeginAgain(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	f.stream(0).snapshot(topologyAt(9, "a"))
	gone := topologyAt(10, "")
	gone.Phase = basaltv1.ClusterPhase_CLUSTER_PHASE_DELETING
	f.stream(0).delta(9, gone)
	f.stream(0).acked(10)
	close(f.stream(0).cut)
	s := f.stream(1)
	if s.hello.GetEpoch() != 0 {
		t.Errorf("claims epoch %d of a cluster that is gone", s.hello.GetEpoch())
	}
	s.snapshot(topologyAt(2, "b"))
	if acks := s.acked(2); len(acks) != 1 {
		t.Errorf("acks %v", acks)
	}
	s.delta(2, topologyAt(3, "a"))
	s.acked(3)
	epochs, masters := p.applied()
	if !slices.Equal(epochs, []uint64{9, 10, 11, 12}) || masters[2] != "b" { // revisions only rise
		t.Errorf("applied %v %v", epochs, masters)
	}
	if st := p.Status(); st.Epoch != 3 || st.AckedEpoch != 3 {
		t.Errorf("status %+v", st)
	}
}

// A credential or a client password can change without a new epoch.
func TestASecretWithoutANewEpochIsApplied(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	s := f.stream(0)
	s.snapshot(topologyAt(5, "a"))
	s.acked(5)
	s.out <- &basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Delta{Delta: &basaltv1.Delta{
		FromEpoch: 5, Topology: &basaltv1.Topology{Cluster: "local", Epoch: 5, Phase: basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING},
		ClientAuth: &basaltv1.ClientAuth{PasswordSha256: [][]byte{bytes.Repeat([]byte{7}, 32)}},
	}}}
	s.delta(5, topologyAt(6, "a"))
	s.acked(6)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tables) != 3 || p.tables[1].Users.Open || p.tables[2].Users.Open || p.tables[2].Epoch != 7 {
		t.Errorf("%d tables", len(p.tables))
	}
}

// A proxy that was shut out keeps what it knows, obeys what it is told, and gets its
// seat without a new epoch.
func TestASeatIsGivenWithoutANewEpoch(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	s := f.stream(0)
	s.snapshot(topologyAt(5, "a"))
	s.acked(5)
	s.delta(5, topologyAt(6, "b"))
	s.acked(6)
	s.out <- &basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Delta{Delta: &basaltv1.Delta{
		FromEpoch: 6, Topology: topologyAt(6, "b"), Credentials: []*basaltv1.ShardCredential{{Shard: "shard-0", Generation: 1,
			Username: "basalt-proxy-1-3-2", Password: secret + "-2", ScriptUsername: "basalt-proxy-1", ScriptPassword: secret + "-3"}},
	}}}
	s.delta(6, topologyAt(7, "b"))
	s.acked(7)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tables) != 4 {
		t.Fatalf("%d tables", len(p.tables))
	}
	if sh := p.tables[1].Shards[0]; sh.Master != "b" || sh.Username != "basalt-proxy-1" || sh.Password != secret {
		t.Errorf("while it is shut out: master %s, user %s", sh.Master, sh.Username)
	}
	for _, table := range p.tables[2:] {
		if sh := table.Shards[0]; sh.Username != "basalt-proxy-1-3-2" || sh.Password != secret+"-2" ||
			sh.ScriptUsername != "basalt-proxy-1" || sh.ScriptPassword != secret+"-3" {
			t.Errorf("epoch %d: logs in as %s, scripts as %s", table.Epoch, sh.Username, sh.ScriptUsername)
		}
	}
}

func TestReportsGoTogetherAndSoon(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, func(c *Config) { c.LoadInterval = time.Hour }, f)
	s := f.stream(0)
	s.snapshot(topologyAt(5, "a"))
	s.acked(5)
	began := time.Now()
	p.Report("a", Seen{Sight: basaltv1.Sight_SIGHT_OK})
	p.Report("a", Seen{Sight: basaltv1.Sight_SIGHT_REFUSED, SinceReply: 20 * time.Millisecond, Err: errors.New("reset")})
	p.Report("b", Seen{Sight: basaltv1.Sight_SIGHT_OK, SinceReply: -1, Behind: "keys", SinceBehind: 3 * time.Second})
	f.until("a report", func() bool { return len(sightsOf(s)) >= 2 })
	if d := time.Since(began); d > 500*time.Millisecond {
		t.Errorf("the report took %v", d)
	}
	f.mu.Lock()
	sights := sightsOf(s)
	f.mu.Unlock()
	if len(sights) != 2 {
		t.Fatalf("sights %v", sights)
	}
	a, b := sights[0], sights[1]
	if a.GetNode() != "a" || a.GetSight() != basaltv1.Sight_SIGHT_REFUSED || a.GetError() != "reset" || a.GetSinceReply().AsDuration() < 20*time.Millisecond {
		t.Errorf("sight %v", a)
	}
	if b.GetSight() != basaltv1.Sight_SIGHT_OK || b.GetSinceReply() != nil || b.GetBehind() != "keys" || b.GetSinceBehind().AsDuration() < 3*time.Second {
		t.Errorf("sight %v", b)
	}
}

func TestLoadReports(t *testing.T) {
	f := startFake(t)
	startProxy(t, nil, f)
	s := f.stream(0)
	s.snapshot(topologyAt(5, "a"))
	f.until("two load reports", func() bool {
		n := 0
		for _, m := range s.heard {
			if l := m.GetLoadReport(); l != nil && l.GetClients() == 3 && l.GetCommands() == 4 && l.GetBusy() == 0.5 &&
				len(l.GetCrossSlot()) == 1 && l.GetCrossSlot()[0].GetRequests() == 7 {
				n++
			}
		}
		return n >= 2
	})
}

func TestGoodbye(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	s := f.stream(0)
	s.snapshot(topologyAt(5, "a"))
	s.acked(5)
	p.Report("a", Seen{Sight: basaltv1.Sight_SIGHT_OK})
	p.stop()
	f.until("the goodbye", func() bool { return s.ended })
	f.mu.Lock()
	defer f.mu.Unlock()
	last := s.heard[len(s.heard)-1]
	if last.GetGoodbye() == nil || len(f.streams) != 1 {
		t.Errorf("last message %v of %d streams", last, len(f.streams))
	}
}

// A proxy that is not connected when it stops finds somebody to tell.
func TestGoodbyeWhileDisconnected(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	f.stream(0).snapshot(topologyAt(5, "a"))
	f.stream(0).acked(5)
	f.do(func() { f.refuse = status.Error(codes.Unavailable, "no owner") })
	close(f.stream(0).cut)
	f.stream(2)
	f.do(func() { f.refuse = nil })
	p.stop()
	f.until("a goodbye", func() bool {
		last := f.streams[len(f.streams)-1]
		return last.ended && len(last.heard) > 0 && last.heard[len(last.heard)-1].GetGoodbye() != nil
	})
}

// A Configserver whose process hangs still has its kernel answer; only asking it
// something shows.
func TestAHungConfigserverIsLeft(t *testing.T) {
	hung, other := startFake(t), startFake(t)
	p := startProxy(t, func(c *Config) { c.HealthInterval = 100 * time.Millisecond }, hung, other)
	hung.stream(0).snapshot(topologyAt(5, "a"))
	hung.stream(0).acked(5)
	began := time.Now()
	hung.do(func() { hung.hung = true })
	other.stream(0).snapshot(topologyAt(5, "a"))
	other.stream(0).acked(5)
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("left after %v", d)
	}
	if !strings.Contains(p.log.String(), "no answer to a health check") {
		t.Errorf("log:\n%s", p.log)
	}
}

func TestWaitsForAConfigserverToAppear(t *testing.T) {
	f := startFake(t)
	f.server.Stop()
	p := startProxy(t, nil, f)
	for begun := time.Now(); !strings.Contains(p.log.String(), "waiting for a topology") || p.Status().Problem == ""; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 5*tellAfter {
			t.Fatalf("log:\n%s\nstatus %+v", p.log, p.Status())
		}
	}
	f.listen(f.address)
	f.stream(0).snapshot(topologyAt(1, "a"))
	f.stream(0).acked(1)
}

// TestScriptsWhileAway: who asks for a script is not kept waiting when no
// Configserver could be reached for a while.
func TestScriptsWhileAway(t *testing.T) {
	f := startFake(t)
	f.server.Stop()
	p := startProxy(t, nil, f)
	ask := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, _, err := p.GetScripts(ctx, []string{"x"}, true)
		return err
	}
	begin := time.Now()
	for ask(20*time.Millisecond) != nil && time.Since(begin) < patience+50*time.Millisecond {
	}
	begin = time.Now()
	if err := ask(20 * time.Second); !errors.Is(err, errOffline) || time.Since(begin) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	f.listen(f.address)
	f.stream(0).snapshot(topologyAt(1, "a"))
	f.stream(0).acked(1)
	if err := ask(20 * time.Second); errors.Is(err, errOffline) {
		t.Error("it is not asked although it is back")
	}
}

func TestBadTopologiesAreRefused(t *testing.T) {
	overlap := topologyAt(1, "a")
	overlap.Shards = append(overlap.Shards, &basaltv1.Shard{Id: "shard-1", Slots: []*basaltv1.SlotRange{{Start: 5, End: 5}}})
	slots := topologyAt(1, "a")
	slots.Shards[0].Slots = []*basaltv1.SlotRange{{Start: 3, End: 16384}}
	foreign := topologyAt(1, "a")
	foreign.Cluster = "other"
	for want, topology := range map[string]*basaltv1.Topology{
		"slot 5 is owned by": overlap, "owns slots 3 to 16384": slots, "snapshot of cluster \"other\"": foreign,
		"master z of shard-0": topologyAt(1, "z"), "without an epoch": topologyAt(0, "a"), "without a topology": nil,
	} {
		t.Run(want, func(t *testing.T) {
			f := startFake(t)
			p := startProxy(t, nil, f)
			f.stream(0).snapshot(topology)
			f.stream(1)
			if epochs, _ := p.applied(); len(epochs) != 0 || !strings.Contains(p.log.String(), strings.ReplaceAll(want, `"`, `\"`)) {
				t.Errorf("applied %v, log:\n%s", epochs, p.log)
			}
		})
	}
}

// Without a credential a shard is held: there is nothing to log in with.
func TestAShardWithoutACredentialIsHeld(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	f.stream(0).out <- &basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Snapshot{Snapshot: &basaltv1.Snapshot{Topology: topologyAt(1, "a")}}}
	f.stream(0).acked(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.tables[0].Shards[0]; !s.Held() {
		t.Errorf("shard %+v is not held", s.Shard)
	}
}

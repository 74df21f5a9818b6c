package reactor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

const (
	lost     = "-ERR connection to the node was lost while the command was in flight; it may or may not have been executed"
	replaced = "-ERR the master of this slot was replaced while the command was in flight; it may or may not have been executed"
	down     = "-CLUSTERDOWN no master serves this slot; retry later"
)

// twoNodes makes the only shard, with two nodes of which the first is master.
func twoNodes(a, b string) routing.Shard {
	return routing.Shard{ID: "shard-0", Slots: slot.Even(0, 1), Master: "a", Generation: 1, Nodes: []routing.Node{
		{ID: "a", Address: a, Incarnation: ""}, {ID: "b", Address: b},
	}}
}

// TestFreeze: an idle frozen shard is acked at once, holds, and releases in
// order to the same or another master.
func TestFreeze(t *testing.T) {
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	c.want("OK", "SET", "foo", "1") // slot 12182: shard-1
	c.want("OK", "SET", "bar", "1") // slot 5061: shard-0
	begin := time.Now()
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[1].Frozen = true }))
	if took := time.Since(begin); took > soon {
		t.Errorf("an idle freeze took %v to ack", took)
	}
	c.send("INCR", "foo")
	c.send("INCR", "bar")
	c.send("INCR", "foo")
	c.silent(50 * time.Millisecond) // foo is first, so bar's reply waits as well
	if s := p.Stats(); s.Held != 2 {
		t.Errorf("%d held, want 2", s.Held)
	}
	if got := servers[0].MustDo("GET", "bar"); got != "2" {
		t.Errorf("bar is %v: the other shard must not wait", got)
	}
	// The role moves to a server that knows nothing of foo.
	other := redistest.Start(t, redistest.Options{Open: true})
	p.waitAck(p.commit(func(c *routing.Cluster) {
		s := &c.Shards[1]
		s.Frozen, s.Master = false, "new"
		s.Nodes = append(s.Nodes, routing.Node{ID: "new", Address: other.Address})
	}))
	c.wantNext("1")
	c.wantNext("2")
	c.wantNext("2")
	if got := servers[1].MustDo("GET", "foo"); got != "1" {
		t.Errorf("foo at the old master is %v", got)
	}
}

// TestFreezeWaitsForReplies: the ack comes after what was in flight was
// answered, not before.
func TestFreezeWaitsForReplies(t *testing.T) {
	t.Parallel()
	f := startFake(t, never)
	p := startProxy(t, reactor.Config{}, one(0, 1, f.ln.Addr().String()))
	c := p.dial()
	c.send("SET", "k", "1")
	f.waitGot(1)
	frozen := p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true })
	c.send("SET", "k", "2")
	time.Sleep(100 * time.Millisecond)
	if p.ackedNow() >= frozen {
		t.Fatal("acked while a command is in flight")
	}
	f.say("+OK\r\n")
	p.waitAck(frozen)
	c.wantNext("OK")
	if got := f.waitGot(1); len(got) != 1 {
		t.Fatalf("a frozen shard got %v", got)
	}
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = false }))
	f.waitGot(2)
	f.say("+OK\r\n")
	c.wantNext("OK")
}

// TestFailover: the master is taken away while commands are in flight. Writes
// end with an error, reads are sent again to the new master, what was held or
// not sent goes to the new master, in order, and nothing is written twice.
func TestFailover(t *testing.T) {
	t.Parallel()
	old := startFake(t, never)
	next := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{}, twoNodes(old.ln.Addr().String(), next.Address))
	next.MustDo("SET", "r", "from the new master")
	c := p.dial()
	c.write(encode("SET", "w", "1") + encode("GET", "r") + encode("INCR", "n"))
	old.waitGot(3)
	gone := p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" })
	p.waitAck(gone)
	c.wantNext(replaced)
	c.send("INCR", "n")
	c.silent(50 * time.Millisecond)
	p.waitAck(p.commit(func(c *routing.Cluster) {
		c.Shards[0].Master, c.Shards[0].Generation = "b", 2
	}))
	c.wantNext("from the new master")
	c.wantNext(replaced)
	c.wantNext("1")
	if got := old.waitGot(3); len(got) != 3 {
		t.Fatalf("the old master got %v", got)
	}
}

// TestFailoverInOneEpoch: a proxy that missed the epoch without a master sees
// only that another node is master.
func TestFailoverInOneEpoch(t *testing.T) {
	t.Parallel()
	old := startFake(t, never)
	next := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{}, twoNodes(old.ln.Addr().String(), next.Address))
	c := p.dial()
	c.send("SET", "w", "1")
	old.waitGot(1)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master, c.Shards[0].Generation = "b", 2 }))
	c.wantNext(replaced)
	c.want("OK", "SET", "w", "2")
}

// TestFrozenThenFailover: the freeze cannot be acked because the master hangs;
// the failover that follows can.
func TestFrozenThenFailover(t *testing.T) {
	t.Parallel()
	old := startFake(t, never)
	p := startProxy(t, reactor.Config{}, twoNodes(old.ln.Addr().String(), old.ln.Addr().String()))
	c := p.dial()
	c.send("SET", "w", "1")
	old.waitGot(1)
	p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true })
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[0].Master = false, "" }))
	c.wantNext(replaced)
}

// TestLostConnection: the connection breaks. Writes in flight end with an
// error, reads are sent again on the next connection, unless the client wrote
// behind them.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	f := startFake(t, never)
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	c := p.dial()
	c.write(encode("SET", "k", "1") + encode("GET", "k") + encode("SET", "k", "2") + encode("GET", "k"))
	f.waitGot(4)
	f.set(func([]string) string { return "$1\r\nx\r\n" })
	f.cut()
	c.wantNext(lost)
	c.wantNext(lost)
	c.wantNext(lost)
	c.wantNext("x")
	if got := fmt.Sprint(f.waitGot(5)); got != "[SET k 1 GET k SET k 2 GET k GET k]" {
		t.Fatalf("the server got %s", got)
	}
	p.waitSight("shard-0-0", reactor.SightOK)
}

// TestRefusedMaster: requests wait while the master cannot be reached, go on
// when it can, and are refused when that takes too long.
func TestRefusedMaster(t *testing.T) {
	s := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{HoldTimeout: 600 * time.Millisecond}, one(0, 1, s.Address))
	c := p.dial()
	c.want("OK", "SET", "k", "1")
	s.Kill()
	p.waitSight("shard-0-0", reactor.SightRefused)
	begin := time.Now()
	c.want(down, "GET", "k")
	if took := time.Since(begin); took < 500*time.Millisecond || took > 600*time.Millisecond+soon {
		t.Errorf("held for %v", took)
	}
	patient := startProxy(t, reactor.Config{HoldTimeout: patience}, one(0, 1, s.Address))
	c = patient.dial()
	c.send("SET", "k", "2")
	patient.waitSight("shard-0-0", reactor.SightRefused)
	s.Restart()
	c.wantNext("OK")
	p.waitSight("shard-0-0", reactor.SightOK)
}

// TestHungMaster: unanswered requests are reported, not given up.
func TestHungMaster(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{NodeTimeout: 300 * time.Millisecond}, one(0, 1, s.Address))
	c := p.dial()
	c.want("OK", "SET", "k", "1")
	s.Pause()
	defer s.Resume()
	c.send("INCR", "k")
	p.waitSight("shard-0-0", reactor.SightTimeout)
	s.Resume()
	c.wantNext("2")
	p.waitSight("shard-0-0", reactor.SightOK)
}

// TestIdleProxyNoticesHungMaster: without any client, too.
func TestIdleProxyNoticesHungMaster(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{NodeTimeout: 300 * time.Millisecond}, one(0, 1, s.Address))
	p.waitSight("shard-0-0", reactor.SightOK)
	s.Pause()
	defer s.Resume()
	p.waitSight("shard-0-0", reactor.SightTimeout)
}

// startFenced starts an engine with one shard, whose server lets the proxies of
// generation 1 in and nobody else.
func startFenced(t *testing.T) (*proxy, *redistest.Server) {
	t.Helper()
	s := redistest.Start(t, redistest.Options{})
	sh := one(0, 1, s.Address)
	sh.Nodes[0].Incarnation = s.Info("run_id")
	letIn(s, &sh, 1)
	return startProxy(t, reactor.Config{}, sh), s
}

// letIn has a shard's server let the proxies of a generation in, and tells them.
func letIn(s *redistest.Server, sh *routing.Shard, generation uint64) {
	sh.Generation, sh.Username, sh.Password = generation, proxyName(generation), fmt.Sprint("pw", generation)
	s.MustDo("ACL", "SETUSER", sh.Username, "on", ">"+sh.Password, "~*", "&*", "+@all")
}

// rotate gives the proxy other credentials for its first shard.
func (p *proxy) rotate(s *redistest.Server, generation uint64) {
	p.t.Helper()
	p.waitAck(p.commit(func(c *routing.Cluster) { letIn(s, &c.Shards[0], generation) }))
}

// TestCredentials: the proxy logs in, is told when it is fenced, and follows a
// rotation without a failed request.
func TestCredentials(t *testing.T) {
	t.Parallel()
	p, s := startFenced(t)
	stop, failed := make(chan struct{}), make(chan string, 1)
	c3 := p.dial()
	c3.do("HELLO", "3")
	c3.want("OK", "SET", "x", "1")
	go func() {
		c := p.dial()
		for n := 1; ; n++ {
			select {
			case <-stop:
				failed <- ""
				return
			default:
			}
			if got := c.do("INCR", "n"); got != fmt.Sprint(n) {
				failed <- fmt.Sprintf("INCR number %d: %s", n, got)
				return
			}
		}
	}()
	for g := uint64(2); g < 12; g++ {
		p.rotate(s, g)
		c3.want("1", "GET", "x")
		// Everybody obeys the new generation, so the old one may go.
		s.MustDo("ACL", "DELUSER", proxyName(g-1))
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	if text := <-failed; text != "" {
		t.Fatal(text)
	}
	p.commit(func(c *routing.Cluster) { c.Shards[0].Password = "wrong" })
	p.waitSight("shard-0-0", reactor.SightFenced)
}

// TestOtherIncarnation: a server that restarted is not taken for the one that
// was admitted.
func TestOtherIncarnation(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{Open: true})
	sh := one(0, 1, s.Address)
	sh.Nodes[0].Incarnation = s.Info("run_id")
	p := startProxy(t, reactor.Config{}, sh)
	c := p.dial()
	c.want("OK", "SET", "k", "1")
	s.Restart()
	p.waitSight("shard-0-0", reactor.SightFenced)
	c.send("GET", "k")
	c.silent(100 * time.Millisecond)
	p.commit(func(c *routing.Cluster) { c.Shards[0].Nodes[0].Incarnation = s.Info("run_id") })
	c.wantNext("(nil)")
}

// TestReadSet: reads go where policy and client say, writes to the master; a
// node that leaves the read set is not read any more once that is acked.
func TestReadSet(t *testing.T) {
	t.Parallel()
	say := func(text string) func([]string) string {
		return func([]string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }
	}
	master, replica := startFake(t, say("master")), startFake(t, say("replica"))
	sh := twoNodes(master.ln.Addr().String(), replica.ln.Addr().String())
	sh.Nodes[1].InReadSet = true
	p := startProxy(t, reactor.Config{}, sh)
	c := p.dial()
	c.want("master", "GET", "k")
	c.want("OK", "READONLY")
	c.do("GET", "k") // opens the connection; the master may answer meanwhile
	p.waitSight("b", reactor.SightOK)
	time.Sleep(20 * time.Millisecond)
	c.want("replica", "GET", "k")
	c.want("master", "SET", "k", "1")
	c.want("OK", "READWRITE")
	c.want("master", "GET", "k")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.ReadPolicy = routing.ReadReadSet }))
	c.want("replica", "GET", "k")
	// A read is in flight at the replica when it leaves the read set.
	n := replica.set(never)
	c.send("GET", "k")
	replica.waitGot(n + 1)
	left := p.commit(func(c *routing.Cluster) { c.Shards[0].Nodes[1].InReadSet = false })
	time.Sleep(50 * time.Millisecond)
	if p.ackedNow() >= left {
		t.Fatal("acked while a read is in flight at the node that left")
	}
	replica.say("$4\r\nlate\r\n")
	c.wantNext("late")
	p.waitAck(left)
	c.want("master", "GET", "k")
}

// TestHoldIsBounded: what does not fit is refused, with the order kept.
func TestHoldIsBounded(t *testing.T) {
	t.Parallel()
	p := startProxy(t, reactor.Config{Loops: 1, HoldMaxBytes: 200, HoldTimeout: 300 * time.Millisecond},
		routing.Shard{ID: "shard-0", Slots: slot.Even(0, 1), Nodes: []routing.Node{{ID: "a", Address: "127.0.0.1:1"}}})
	c := p.dial()
	c.write(strings.Repeat(encode("SET", "k", strings.Repeat("x", 50)), 4))
	c.wantNext(down)
	c.wantNext(down)
	c.wantNext("-CLUSTERDOWN too many requests wait for the master of this slot; retry later")
	c.wantNext("-CLUSTERDOWN too many requests wait for the master of this slot; retry later")
}

// TestClientLeavesWithRequestsInFlight: its replies are dropped, those of
// others stay in place, and what it had held is never sent.
func TestClientLeavesWithRequestsInFlight(t *testing.T) {
	t.Parallel()
	f := startFake(t, never)
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	a, b := p.dial(), p.dial()
	a.send("SET", "a", "1")
	f.waitGot(1)
	b.send("GET", "b")
	f.waitGot(2)
	p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true })
	a.send("SET", "a", "held")
	time.Sleep(50 * time.Millisecond)
	if err := a.Conn.(interface{ SetLinger(int) error }).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	a.Close() // a reset
	time.Sleep(50 * time.Millisecond)
	f.say("+OK\r\n$1\r\nb\r\n")
	b.wantNext("b")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = false }))
	b.send("GET", "b")
	if got := fmt.Sprint(f.waitGot(3)); got != "[SET a 1 GET b GET b]" {
		t.Fatalf("the server got %s", got)
	}
}

// TestDeleting: a cluster that is being deleted serves nothing, at once.
func TestDeleting(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	c.want("OK", "SET", "k", "1")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Phase, c.Shards = routing.Deleting, nil }))
	c.want("-CLUSTERDOWN the cluster is being deleted", "GET", "k")
}

// TestHungReplicaDoesNotDelayTheAck: reads in flight at a node that leaves the
// read set and hangs are sent again, soon.
func TestHungReplicaDoesNotDelayTheAck(t *testing.T) {
	master := startFake(t, func([]string) string { return "+master\r\n" })
	replica := startFake(t, never)
	sh := twoNodes(master.ln.Addr().String(), replica.ln.Addr().String())
	sh.Nodes[1].InReadSet = true
	p := startProxy(t, reactor.Config{Loops: 1}, sh)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.ReadPolicy = routing.ReadReadSet }))
	p.waitSight("b", reactor.SightOK)
	c := p.dial()
	c.send("GET", "k")
	replica.waitGot(1)
	begin := time.Now()
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Nodes[1].InReadSet = false }))
	if took := time.Since(begin); took > soon {
		t.Errorf("acked after %v", took)
	}
	c.wantNext("master")
}

// TestAddressOfAnotherNode: the address of a dead node is taken over by another
// one; nothing meant for the first reaches the second.
func TestAddressOfAnotherNode(t *testing.T) {
	t.Parallel()
	f := startFake(t, never)
	p := startProxy(t, reactor.Config{Loops: 1}, twoNodes(f.ln.Addr().String(), "127.0.0.1:1"))
	c := p.dial()
	c.write(encode("SET", "k", "1") + encode("GET", "k"))
	f.waitGot(2)
	f.set(func([]string) string { return "+new\r\n" })
	p.waitAck(p.commit(func(c *routing.Cluster) {
		c.Shards[0] = routing.Shard{ID: "shard-9", Slots: slot.Even(0, 1), Master: "z", Nodes: []routing.Node{{ID: "z", Address: f.ln.Addr().String()}}}
	}))
	c.wantNext(replaced)
	c.wantNext("new") // a read may be sent again, to whoever owns the slot now
	c.want("new", "SET", "k", "2")
}

// TestEndpointOfTheSameProcess: the master is the process that it was, at another
// address: new connections are made there, and the old ones end, with an error for a
// write that may have been executed.
func TestEndpointOfTheSameProcess(t *testing.T) {
	t.Parallel()
	port := redistest.FreePort(t)
	at := func(ip int) string { return fmt.Sprintf("127.0.0.%d:%d", ip, port) }
	server := redistest.Start(t, redistest.Options{Open: true, Address: at(2), Config: []string{"bind 127.0.0.2 127.0.0.3"}})
	shard := one(0, 1, at(2))
	shard.Nodes[0].Incarnation = server.Info("run_id")
	p := startProxy(t, reactor.Config{Loops: 1}, shard)
	c, late := p.dial(), p.dial()
	c.want("OK", "SET", "k", "1")
	server.MustDo("CLIENT", "PAUSE", "3000", "WRITE")
	late.send("SET", "late", "1")
	for begun := time.Now(); p.Stats().Nodes[0].InFlight == 0; time.Sleep(time.Millisecond) {
		if time.Since(begun) > soon {
			t.Fatal("the write was not sent")
		}
	}
	moved := shard.Nodes[0]
	moved.Address = at(3)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Nodes = []routing.Node{moved} }))
	late.wantNext(replaced)
	server.MustDo("CLIENT", "UNPAUSE")
	c.want("OK", "SET", "k", "2")
	c.want("2", "GET", "k")
	there := server.Client(redistest.AdminUser, server.AdminPassword)
	defer there.Close()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		old := 0
		for line := range strings.Lines(there.ClientList(t.Context()).Val()) {
			if strings.Contains(line, " laddr="+at(2)) && strings.Contains(line, "user=default") {
				old++
			}
		}
		if old == 0 {
			break
		}
		if time.Since(begun) > soon {
			t.Fatalf("%d connections to the old address are left", old)
		}
	}
}

// TestManyEpochs: epochs come faster than commands; none is lost or doubled.
func TestManyEpochs(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{}, shards...)
	done := make(chan string, 4)
	for id := range 4 {
		c := p.dial()
		go func() {
			for n := 1; n <= 300; n++ {
				var raw strings.Builder
				for k := range 6 {
					raw.WriteString(encode("INCR", fmt.Sprintf("c%d-k%d", id, k)))
				}
				c.write(raw.String())
				for range 6 {
					if got := c.read(); got != fmt.Sprint(n) {
						done <- fmt.Sprintf("client %d: %s, want %d", id, got, n)
						return
					}
				}
			}
			done <- ""
		}()
	}
	for range 4 {
		for running := true; running; {
			select {
			case text := <-done:
				if running = false; text != "" {
					t.Fatal(text)
				}
			case <-time.After(time.Millisecond):
				p.commit(func(c *routing.Cluster) {
					for i := range c.Shards {
						c.Shards[i].Frozen = (c.Epoch+uint64(i))%3 == 0
						c.Shards[i].Generation = c.Epoch / 4
					}
				})
			}
		}
	}
	p.waitAck(p.commit(func(*routing.Cluster) {}))
}

// TestSightOKIsAReply: a node that answers a login again is good because of
// that answer, not of one before it broke.
func TestSightOKIsAReply(t *testing.T) {
	f := startFake(t, func([]string) string { return "+OK\r\n" })
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	c := p.dial()
	c.want("OK", "SET", "k", "v")
	p.waitSight("shard-0-0", reactor.SightOK)
	time.Sleep(800 * time.Millisecond) // less than it takes until it is asked for a sign of life
	f.cut()
	p.wait("refused, then good again", func() bool {
		list := p.sights["shard-0-0"]
		return len(list) >= 3 && list[len(list)-1] == reactor.SightOK
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sinceReply > 600*time.Millisecond {
		t.Errorf("good with a reply %v old", p.sinceReply)
	}
}

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

// blockedNow waits until so many clients are blocked at a server.
func blockedNow(t *testing.T, s *redistest.Server, n int) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		got := s.Info("blocked_clients")
		if got == fmt.Sprint(n) {
			return
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%s clients are blocked at %s, not %d", got, s.Address, n)
		}
	}
}

// TestBlockingCommands: those that wait get what comes, in the order in which
// they began to wait; with data there, nobody waits.
func TestBlockingCommands(t *testing.T) {
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	c, d, push := p.dial(), p.dial(), p.dial()
	home := servers[0]
	if slot.Of([]byte("k")) >= slot.Count/2 {
		home = servers[1]
	}
	push.want("3", "RPUSH", "k", "1", "2", "3")
	c.want("[k 1]", "BLPOP", "k", "0")
	c.want("[k [3]]", "BLMPOP", "0", "1", "k", "RIGHT")
	c.want("2", "BRPOPLPUSH", "k", "k", "0")
	c.want("2", "LPOP", "k")
	c.want(`-CROSSSLOT Keys in request don't hash to the same slot: "foo" is in slot 12182, "bar" in 5061; use one {tag} in all of its keys`, "BLPOP", "foo", "bar", "0")

	// The order of those that wait, each with a pipeline behind it.
	c.write(encode("BLPOP", "k", "0") + encode("PING") + encode("SET", "{k}c", "done") + encode("BLPOP", "k", "0"))
	blockedNow(t, home, 1)
	d.write(encode("HELLO", "3") + encode("BRPOP", "{k}x", "k", "0") + encode("GET", "{k}c"))
	d.read()
	blockedNow(t, home, 2)
	c.silent(20 * time.Millisecond)
	if got := p.Stats(); got.ClientsBlocked != 2 || got.Pinned != 2 {
		t.Errorf("%d clients are blocked, %d connections pinned", got.ClientsBlocked, got.Pinned)
	}
	push.want("2", "RPUSH", "k", "a", "b")
	c.wantNext("[k a]")
	c.wantNext("PONG")
	c.wantNext("OK")
	d.wantNext("[k b]")
	if got := d.read(); got != "done" && got != "(nil)" {
		t.Error(got)
	}
	push.want("1", "RPUSH", "k", "c")
	c.wantNext("[k c]")

	// The time limits of servers.
	for _, args := range [][]string{
		{"BLPOP", "k", "0.05"}, {"BLMOVE", "k", "{k}x", "LEFT", "LEFT", "0.05"}, {"BZPOPMIN", "k", "0.05"},
		{"BLMPOP", "0.05", "1", "k", "LEFT"}, {"BZMPOP", "0.05", "1", "k", "MAX"}, {"XREAD", "BLOCK", "50", "STREAMS", "k", "$"},
	} {
		begin := time.Now()
		c.want("[]", args...)
		if took := time.Since(begin); took < 40*time.Millisecond || took > soon {
			t.Errorf("%v took %s", args, took)
		}
	}
	c.want("-ERR timeout is negative", "BLPOP", "k", "-1")
	c.want("-ERR timeout is not a float or out of range", "BLPOP", "k", "x")
	d.want("(nil)", "BLPOP", "k", "0.01")

	// Streams.
	c.send("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
	for begin := time.Now(); p.Stats().ClientsBlocked != 1; {
		if time.Since(begin) > 5*time.Second {
			t.Fatal("XREAD does not block")
		}
	}
	time.Sleep(20 * time.Millisecond)
	push.want("1-1", "XADD", "s", "1-1", "f", "v")
	c.wantNext("[[s [[1-1 [f v]]]]]")
	push.want("OK", "XGROUP", "CREATE", "s", "g", "$")
	d.send("XREADGROUP", "GROUP", "g", "me", "BLOCK", "0", "STREAMS", "s", ">")
	time.Sleep(20 * time.Millisecond)
	push.want("2-1", "XADD", "s", "2-1", "f", "w")
	d.wantNext("[s [[2-1 [f w]]]]")
	d.send("XREADGROUP", "GROUP", "g", "me", "BLOCK", "0", "STREAMS", "s", ">")
	time.Sleep(20 * time.Millisecond)
	push.want("1", "DEL", "s")
	if got := d.read(); got != "-UNBLOCKED the stream key no longer exists" && !strings.HasPrefix(got, "-NOGROUP No such key 's' ") { // before and from 7.2
		t.Fatal(got)
	}

	// Inside of MULTI nothing blocks.
	c.queued([]string{"BLPOP", "k", "0"}, []string{"RPUSH", "k", "z"}, []string{"BLPOP", "k", "0"}, []string{"XREAD", "BLOCK", "0", "STREAMS", "{k}s", "$"}, []string{"WAIT", "1", "0"})
	c.want("[[] 1 [k z] [] 0]", "EXEC")
	// CLIENT REPLY.
	c.write(encode("CLIENT", "REPLY", "SKIP") + encode("BLPOP", "k", "0") + encode("PING"))
	blockedNow(t, home, 1)
	push.want("1", "RPUSH", "k", "unseen")
	c.wantNext("PONG")
	push.want("0", "EXISTS", "k")
}

// TestBlockedClientLeaves: nothing is popped for a client that is gone, however
// it went; one that only has nothing more to say gets its answer.
func TestBlockedClientLeaves(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	push := p.dial()
	push.want("0", "LLEN", "k")
	for i := range 20 {
		before := p.Stats().ClientsAccepted
		c := p.dial()
		c.send("BLPOP", "k", "0")
		if i%2 == 0 {
			blockedNow(t, servers[0], 1)
		}
		if i%3 == 0 {
			if err := c.Conn.(interface{ SetLinger(int) error }).SetLinger(0); err != nil { // a reset
				t.Fatal(err)
			}
		}
		c.Close()
		gone := func() bool {
			s := p.Stats()
			return s.ClientsAccepted > before && s.Clients == 1 && s.Pinned == 0
		}
		if i%4 == 1 { // it may be gone, or about to go
			push.want("1", "RPUSH", "k", "kept")
			waitFor(t, "the client is gone", gone)
		} else {
			waitFor(t, "the client is gone", gone)
			blockedNow(t, servers[0], 0)
			push.want("1", "RPUSH", "k", "kept")
			push.want("1", "LLEN", "k")
		}
		push.do("DEL", "k")
	}
	// It closed its side, and there is an answer; then there is none.
	for _, reply := range []string{"[k 1]", "EOF"} {
		c := p.dial()
		if reply != "EOF" {
			push.want("1", "RPUSH", "k", "1")
		}
		c.send("BLPOP", "k", "0")
		if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.wantNext(reply)
		c.wantNext("EOF")
	}
	blockedNow(t, servers[0], 0)
	if s := p.Stats(); s.ClientsBlocked != 0 || s.Pinned != 0 {
		t.Errorf("%d clients are blocked, %d connections pinned", s.ClientsBlocked, s.Pinned)
	}
}

// TestClientUnblock: CLIENT UNBLOCK from any loop, with both reasons.
func TestClientUnblock(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 3}, shards...)
	other := p.dial()
	const unblocked = "-UNBLOCKED client unblocked via CLIENT UNBLOCK"
	for i := range 6 {
		c := p.dial()
		id := c.do("CLIENT", "ID")
		other.want("0", "CLIENT", "UNBLOCK", id)
		c.send("BLPOP", "k", "0")
		for begin := time.Now(); !strings.Contains(other.do("CLIENT", "LIST", "ID", id), " flags=b "); {
			if time.Since(begin) > 5*time.Second {
				t.Fatal(other.do("CLIENT", "LIST"))
			}
		}
		switch i % 3 {
		case 0:
			other.want("1", "CLIENT", "UNBLOCK", id)
			c.wantNext("[]")
		case 1:
			other.want("1", "CLIENT", "UNBLOCK", id, "TIMEOUT")
			c.wantNext("[]")
		case 2:
			other.want("1", "CLIENT", "UNBLOCK", id, "error")
			c.wantNext(unblocked)
		}
		other.want("0", "CLIENT", "UNBLOCK", id)
		c.send("WAIT", "1", "0")
		time.Sleep(20 * time.Millisecond)
		other.want("1", "CLIENT", "UNBLOCK", id)
		c.wantNext("0")
		c.send("WAIT", "1", "0")
		time.Sleep(20 * time.Millisecond)
		other.want("1", "CLIENT", "UNBLOCK", id, "ERROR")
		c.wantNext(unblocked)
		c.want("PONG", "PING")
	}
	// One that is held.
	p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[1].Frozen = true, true })
	c := p.dial()
	id := c.do("CLIENT", "ID")
	c.send("BLPOP", "k", "0")
	time.Sleep(20 * time.Millisecond)
	other.want("1", "CLIENT", "UNBLOCK", id, "ERROR")
	c.wantNext(unblocked)
	other.want("-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR", "CLIENT", "UNBLOCK", "x", "y")
	other.want("-ERR value is not an integer or out of range", "CLIENT", "UNBLOCK", "x")
	for _, s := range servers {
		blockedNow(t, s, 0)
	}
}

// TestBlockedThroughEpochs: a blocked client stays blocked through freezes, new
// masters, rotated credentials and moved slots, with its time running, and each
// epoch is acked soon.
func TestBlockedThroughEpochs(t *testing.T) {
	p, a, b := watchPair(t)
	push := p.dial()
	servers := map[string]*redistest.Server{"a": a, "b": b}
	var clients []*client
	for i := range 5 {
		c := p.dial()
		c.send("BLPOP", fmt.Sprint("{k}", i), "k", "0")
		clients = append(clients, c)
		blockedNow(t, a, i+1)
	}
	timed := p.dial()
	timed.send("BRPOP", "{k}none", "1")
	begin := time.Now()
	reader := p.dial()
	push.want("1-1", "XADD", "{k}s", "1-1", "f", "v")
	b.MustDo("XADD", "{k}s", "1-1", "f", "v")
	b.MustDo("XADD", "{k}s", "2-1", "f", "w") // while it is away from a
	reader.send("XREAD", "BLOCK", "5000", "STREAMS", "{k}s", "$")
	blockedNow(t, a, 7)

	acked := func(change func(s *routing.Shard)) {
		t.Helper()
		begin := time.Now()
		p.waitAck(p.commit(func(c *routing.Cluster) { change(&c.Shards[0]) }))
		if took := time.Since(begin); took > soon {
			t.Errorf("acked after %s", took)
		}
	}
	acked(func(s *routing.Shard) { s.Frozen = true })
	blockedNow(t, a, 0)
	acked(func(s *routing.Shard) { s.Frozen = false })
	blockedNow(t, a, 7)
	// Credentials that are replaced.
	acked(func(s *routing.Shard) { s.Generation++ })
	blockedNow(t, a, 7)
	// An unplanned new master, and back as planned.
	acked(func(s *routing.Shard) { s.Master = "" })
	blockedNow(t, a, 0)
	acked(func(s *routing.Shard) { s.Master = "b" })
	reader.wantNext("[[{k}s [[2-1 [f w]]]]]")
	blockedNow(t, b, 6)
	acked(func(s *routing.Shard) { s.Frozen = true })
	acked(func(s *routing.Shard) { s.Frozen, s.Master = false, "a" })
	blockedNow(t, a, 6)
	// The slots go to another shard, whose master is b.
	p.waitAck(p.commit(func(c *routing.Cluster) {
		other := c.Shards[0]
		other.ID, other.Master, other.Nodes = "shard-1", "z", []routing.Node{{ID: "z", Address: b.Address}}
		c.Shards[0].Slots = slot.Set{}
		c.Shards = append(c.Shards, other)
	}))
	blockedNow(t, a, 0)
	blockedNow(t, b, 6)
	timed.wantNext("[]")
	if took := time.Since(begin); took < 900*time.Millisecond || took > time.Second+soon {
		t.Errorf("timed out after %s, not 1 s", took)
	}
	// All get one.
	for i := range clients {
		servers["b"].MustDo("RPUSH", fmt.Sprint("{k}", i), i)
		clients[i].wantNext(fmt.Sprintf("[{k}%d %d]", i, i))
	}
	if s := p.Stats(); s.ClientsBlocked != 0 || s.Pinned != 0 {
		t.Errorf("%d clients are blocked, %d connections pinned", s.ClientsBlocked, s.Pinned)
	}
}

// TestBlockedWhileHeld: the time of a command runs while no master serves, and
// nobody waits longer for a master than others do.
func TestBlockedWhileHeld(t *testing.T) {
	p, a, _ := watchPair(t)
	p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true })
	c, d := p.dial(), p.dial()
	begin := time.Now()
	c.send("BLPOP", "k", "0.1")
	d.send("WAIT", "0", "100")
	c.wantNext("[]")
	d.wantNext("0")
	if took := time.Since(begin); took < 90*time.Millisecond || took > soon {
		t.Errorf("timed out after %s", took)
	}
	c.send("BLPOP", "k", "1.5")
	time.Sleep(300 * time.Millisecond)
	begin = time.Now()
	p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = false })
	blockedNow(t, a, 1)
	c.wantNext("[]")
	if took := time.Since(begin); took < 600*time.Millisecond || took > 1400*time.Millisecond+soon {
		t.Errorf("timed out %s after it was sent with 1.2 s left", took)
	}
	q := startProxy(t, reactor.Config{HoldTimeout: 150 * time.Millisecond}, twoNodes(a.Address, a.Address))
	q.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" })
	q.dial().want(down, "BLPOP", "k", "0")
	// A cluster that is being deleted.
	e := p.dial()
	e.send("BLPOP", "k", "0")
	blockedNow(t, a, 1)
	p.commit(func(c *routing.Cluster) { c.Phase = routing.Deleting })
	e.wantNext("-CLUSTERDOWN the cluster is being deleted")
	blockedNow(t, a, 0)
}

// TestBlockedAndBrokenConnection: an error when the same master lives on, another
// try when it was replaced, and what FailBlocked says.
func TestBlockedAndBrokenConnection(t *testing.T) {
	t.Parallel()
	p, a, b := watchPair(t)
	c, reads := p.dial(), p.dial()
	c.send("BLPOP", "k", "0")
	reads.send("XREAD", "BLOCK", "0", "STREAMS", "{k}s", "$")
	blockedNow(t, a, 2)
	a.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	c.wantNext(lost)
	blockedNow(t, a, 1) // what only reads is sent again
	a.MustDo("XADD", "{k}s", "1-1", "f", "v")
	reads.wantNext("[[{k}s [[1-1 [f v]]]]]")

	// The server becomes a replica before the epoch says so.
	c.send("BLPOP", "k", "0")
	blockedNow(t, a, 1)
	a.MustDo("REPLICAOF", "127.0.0.1", "1")
	c.silent(50 * time.Millisecond)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "b" }))
	blockedNow(t, b, 1)
	b.MustDo("RPUSH", "k", "1")
	c.wantNext("[k 1]")
	a.MustDo("REPLICAOF", "NO", "ONE")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "a" }))

	// It dies.
	c.send("BLMOVE", "k", "{k}to", "LEFT", "RIGHT", "0")
	blockedNow(t, a, 1)
	q := startProxy(t, reactor.Config{Loops: 1, FailBlocked: true}, twoNodes(a.Address, b.Address))
	d := q.dial()
	d.send("BLPOP", "k", "0")
	reads = q.dial()
	reads.send("XREAD", "BLOCK", "0", "STREAMS", "{k}s", "$")
	blockedNow(t, a, 3)
	a.Kill()
	c.silent(150 * time.Millisecond)
	for _, p := range []*proxy{p, q} {
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	}
	d.wantNext(replaced)
	c.silent(50 * time.Millisecond)
	for _, p := range []*proxy{p, q} {
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "b" }))
	}
	blockedNow(t, b, 2)
	b.MustDo("XADD", "{k}s", "9-1", "f", "v")
	b.MustDo("RPUSH", "k", "2")
	c.wantNext("2")
	reads.wantNext("[[{k}s [[9-1 [f v]]]]]")
	if got := b.MustDo("LRANGE", "{k}to", 0, -1); fmt.Sprint(got) != "[2]" {
		t.Error(got)
	}
}

// TestADoubtEndsSoonAfterTheTimeIsOver: a client that gave a limit does not wait for
// as long as a failover may take.
func TestADoubtEndsSoonAfterTheTimeIsOver(t *testing.T) {
	a := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{Loops: 1, NodeTimeout: 300 * time.Millisecond, HoldTimeout: time.Minute}, twoNodes(a.Address, "127.0.0.1:1"))
	c, patient := p.dial(), p.dial()
	c.send("BLPOP", "k", "0.5")
	patient.send("BLPOP", "k", "0")
	blockedNow(t, a, 2)
	begin := time.Now()
	a.Kill()
	c.wantNext(lost)
	if took := time.Since(begin); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("in doubt for %s", took)
	}
	patient.silent(100 * time.Millisecond)
}

// TestRepliesOfADyingMaster: what a master wrote before an epoch replaced it is
// the answer, and is not asked for again.
func TestRepliesOfADyingMaster(t *testing.T) {
	t.Parallel()
	old := startFake(t, never)
	next := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{Loops: 1}, twoNodes(old.ln.Addr().String(), next.Address))
	next.MustDo("RPUSH", "k", "new")
	for range 10 {
		c := p.dial()
		n := old.set(never)
		c.send("BLPOP", "k", "0")
		old.waitGot(n + 1)
		epoch := p.cluster.Epoch + 1
		said := make(chan struct{})
		go func() {
			old.say("*2\r\n$1\r\nk\r\n$3\r\nold\r\n")
			close(said)
		}()
		p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "b" })
		if got := c.read(); got != "[k old]" && got != "[k new]" {
			t.Fatal(got)
		} else if got == "[k new]" {
			next.MustDo("RPUSH", "k", "new")
		}
		<-said
		p.waitAck(epoch)
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "a" }))
	}
	// Half an answer, which is then lost, cannot be given again.
	c := p.dial()
	n := old.set(never)
	c.send("BLPOP", "k", "0")
	old.waitGot(n + 1)
	old.say("*2\r\n$1\r\nk\r\n$3\r\nha")
	time.Sleep(20 * time.Millisecond)
	p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "b" })
	c.wantNext(replaced)
	if n := next.MustDo("LLEN", "k"); fmt.Sprint(n) != "1" {
		t.Errorf("%v elements", n)
	}
}

// TestWait: the smallest number of replicas of any shard that the client wrote
// to, without holding up others, and an error after a failover.
func TestWait(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	replica := redistest.Start(t, redistest.Options{Open: true})
	servers[0].MustDo("CONFIG", "SET", "repl-diskless-sync-delay", "0")
	host, port, _ := strings.Cut(servers[0].Address, ":")
	replica.MustDo("REPLICAOF", host, port)
	for begin := time.Now(); replica.Info("master_link_status") != "up"; {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the replica has no link")
		}
	}
	shards[0].Nodes = append(shards[0].Nodes, routing.Node{ID: "spare", Address: replica.Address})
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c := p.dial()
	near, far := "bar", "foo" // in the first shard, and in the second
	if int(slot.Of([]byte(near))) >= slot.Count/2 || int(slot.Of([]byte(far))) < slot.Count/2 {
		t.Fatal("the keys are in other shards")
	}
	c.want("0", "WAIT", "0", "0")
	c.write(encode("SET", near, "1") + encode("WAIT", "1", "0"))
	c.wantNext("OK")
	c.wantNext("1")
	c.want("OK", "SET", far, "1")
	begin := time.Now()
	c.want("0", "WAIT", "1", "60")
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("WAIT took %s", took)
	}
	c.want("-ERR value is not an integer or out of range", "WAIT", "x", "0")
	c.want("-ERR timeout is negative", "WAIT", "0", "-1")
	c.want("-ERR unknown command 'WAITAOF', with args beginning with: '0' '0' '0' ", "WAITAOF", "0", "0", "0")
	d := p.dial()
	d.want("OK", "SET", near, "2")
	d.send("WAIT", "2", "0")
	e := p.dial()
	e.want("2", "GET", near) // nobody is held up
	blockedNow(t, servers[0], 1)
	// A planned change: it goes on waiting.
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true }))
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = false }))
	blockedNow(t, servers[0], 1)
	e.want("OK", "SET", near, "3")
	fresh := p.dial()
	replica.MustDo("REPLICAOF", "NO", "ONE")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "spare" }))
	const gone = "-ERR the master of a shard that this connection wrote to was replaced by a failover; what was written there just before may be lost"
	d.wantNext(gone)
	e.want(gone, "WAIT", "0", "0")
	e.want("0", "WAIT", "0", "0")
	fresh.want("0", "WAIT", "0", "0")
	if got := c.do("ROLE"); !strings.HasPrefix(got, "[master ") {
		t.Error(got)
	}
}

// TestWaitCountsEveryWrite: also what has no key, or goes to all shards, is
// waited for, and its loss told.
func TestWaitCountsEveryWrite(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	spares := make([]*redistest.Server, 2)
	for i := range spares {
		spares[i] = redistest.Start(t, redistest.Options{Open: true})
		shards[i].Nodes = append(shards[i].Nodes, routing.Node{ID: fmt.Sprint("spare-", i), Address: spares[i].Address})
	}
	// Only the second shard has a replica.
	servers[1].MustDo("CONFIG", "SET", "repl-diskless-sync-delay", "0")
	host, port, _ := strings.Cut(servers[1].Address, ":")
	spares[1].MustDo("REPLICAOF", host, port)
	for begin := time.Now(); spares[1].Info("master_link_status") != "up"; {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the replica has no link")
		}
	}
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	const library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
	const gone = "-ERR the master of a shard that this connection wrote to was replaced by a failover; what was written there just before may be lost"
	writes := []struct {
		commands [][]string
		// all: it goes to both shards.
		all bool
	}{
		{commands: [][]string{{"EVAL", "return 1", "0"}}},
		{commands: [][]string{{"FUNCTION", "LOAD", "REPLACE", library}}, all: true},
		{commands: [][]string{{"FCALL", "f", "0"}}},
		{commands: [][]string{{"SCRIPT", "LOAD", "return 2"}, {"EVALSHA", "7f923f79fe76194c868d7e1d0820de36700eb649", "0"}}},
		{commands: [][]string{{"FUNCTION", "FLUSH"}}, all: true},
		{commands: [][]string{{"FLUSHALL"}}, all: true},
		{commands: [][]string{{"FLUSHDB", "ASYNC"}}, all: true},
		{commands: [][]string{{"MULTI"}, {"SET", "foo", "1"}, {"FLUSHDB"}, {"EXEC"}}, all: true},
		{commands: [][]string{{"MULTI"}, {"SET", "foo", "1"}, {"FUNCTION", "FLUSH"}, {"EXEC"}}, all: true},
	}
	var near, far []*client
	for _, w := range writes {
		c := p.dial()
		if c.want("OK", "SET", "foo", "1"); !w.all {
			c.want("1", "WAIT", "1", "10000")
		}
		for _, args := range w.commands {
			if reply := c.do(args...); strings.HasPrefix(reply, "-") {
				t.Fatalf("%v: %s", args, reply)
			}
		}
		// Of the first shard, too, which has no replica.
		c.want("0", "WAIT", "0", "0")
		near = append(near, c)
		if w.all {
			c := p.dial()
			for _, args := range w.commands {
				c.do(args...)
			}
			far = append(far, c)
		}
	}
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "spare-0" }))
	for i, c := range near {
		if got := c.do("WAIT", "0", "0"); got != gone {
			t.Errorf("%v and a failover: WAIT said %s", writes[i].commands, got)
		}
	}
	for _, c := range far {
		c.want(gone, "WAIT", "0", "0")
		c.do("FUNCTION", "FLUSH")
	}
	spares[1].MustDo("REPLICAOF", "NO", "ONE")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[1].Master = "spare-1" }))
	for _, c := range far {
		c.want(gone, "WAIT", "0", "0")
	}
}

// TestDrainEndsBlockedClients: a proxy that stops does not wait for clients that
// wait, and takes nothing for them.
func TestDrainEndsBlockedClients(t *testing.T) {
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	var clients []*client
	for i := range 5 {
		c := p.dial()
		c.send("BLPOP", "k", "0")
		clients = append(clients, c)
		blockedNow(t, servers[0], i+1)
	}
	begin := time.Now()
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > soon {
		t.Errorf("stopping took %s", took)
	}
	for _, c := range clients {
		c.wantNext("EOF")
	}
	blockedNow(t, servers[0], 0)
}

// TestManyBlockedClients: they cost little memory, an epoch is acked soon with all
// of them, and each gets one element.
func TestManyBlockedClients(t *testing.T) {
	const many = 400
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{MaxPinned: many}, shards...)
	var clients []*client
	for i := range many {
		c := p.dial()
		c.send("BLPOP", []string{"foo", "bar"}[i%2], "0")
		clients = append(clients, c)
	}
	all := func() {
		t.Helper()
		for _, s := range servers {
			blockedNow(t, s, many/2)
		}
	}
	all()
	extra := p.dial()
	if got := extra.do("BLPOP", "foo", "0"); !strings.Contains(got, "max-pinned") {
		t.Error(got)
	}
	if s := p.Stats(); s.ClientsBlocked != many || s.Pinned != many || s.MemoryBytes > many*2<<10 {
		t.Errorf("%d clients are blocked on %d connections with %d bytes", s.ClientsBlocked, s.Pinned, s.MemoryBytes)
	}
	begin := time.Now()
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[1].Frozen = true, true }))
	if took := time.Since(begin); took > soon {
		t.Errorf("acked after %s", took)
	}
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[1].Frozen = false, false }))
	all()
	for i := range many {
		extra.send("RPUSH", []string{"foo", "bar"}[i%2], fmt.Sprint(i))
	}
	seen := map[string]bool{}
	for _, c := range clients {
		seen[c.read()] = true
	}
	if len(seen) != many {
		t.Errorf("%d elements arrived", len(seen))
	}
}

// TestBlockingLooksAtLeastOnce: the time of a command is not over before a server
// saw it, while nothing is amiss but that its connection takes longer.
func TestBlockingLooksAtLeastOnce(t *testing.T) {
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	c.want("1", "RPUSH", "k", "1")
	c.want("OK", "SET", "s", "1")
	servers[0].Pause()
	c.write(encode("BLPOP", "k", "0.001") + encode("BLPOP", "k", "0.001") + encode("BZMPOP", "0.001", "3", "k", "MIN"))
	c.silent(50 * time.Millisecond)
	servers[0].Resume()
	c.wantNext("[k 1]")
	c.wantNext("[]")
	c.wantNext("-ERR syntax error")
}

// TestTimeLimitAsItWasWritten: a command that had to wait a moment for its shard is sent as
// its client wrote it; after a while, with the time that is left.
func TestTimeLimitAsItWasWritten(t *testing.T) {
	t.Parallel()
	for wait, asWritten := range map[time.Duration]bool{20 * time.Millisecond: true, 300 * time.Millisecond: false} {
		f := startFake(t, never)
		p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true }))
		c := p.dial()
		c.send("BLPOP", "k", "5.000")
		waitFor(t, "it waits", func() bool { return p.Stats().ClientsTimed == 1 })
		time.Sleep(wait)
		p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = false })
		if got := f.waitGot(1)[0]; (got == "BLPOP k 5.000") != asWritten || !strings.HasPrefix(got, "BLPOP k ") {
			t.Errorf("after %s: %s", wait, got)
		}
		f.cut()
	}
}

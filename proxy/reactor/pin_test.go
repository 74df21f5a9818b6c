package reactor_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// queued sends MULTI and commands, and expects that they are queued. An empty
// line follows, so that the proxy does not ask the server about any of them.
func (c *client) queued(commands ...[]string) {
	c.t.Helper()
	raw := encode("MULTI")
	for _, args := range commands {
		raw += encode(args...)
	}
	c.write(raw + "\r\n")
	c.wantNext("OK")
	for range commands {
		c.wantNext("QUEUED")
	}
}

// TestTransactionIsHeldWhole: a transaction that meets a freeze goes to the
// next master whole; one that was in flight delays the ack; one whose master is
// taken away fails, without being sent again.
func TestTransactionIsHeldWhole(t *testing.T) {
	t.Parallel()
	old := startFake(t, never)
	next := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{Loops: 1}, twoNodes(old.ln.Addr().String(), next.Address))
	c := p.dial()
	c.queued([]string{"INCR", "a"}, []string{"INCR", "a"})
	c.send("EXEC")
	if got := fmt.Sprint(old.waitGot(4)); got != "[MULTI INCR a INCR a EXEC]" {
		t.Fatal(got)
	}
	frozen := p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true })
	other := p.dial()
	other.queued([]string{"INCR", "b"}, []string{"GET", "b"})
	other.send("EXEC")
	old.say("+OK\r\n+QUEUED\r\n")
	time.Sleep(50 * time.Millisecond)
	if p.ackedNow() >= frozen {
		t.Fatal("acked while a transaction is in flight")
	}
	old.say("+QUEUED\r\n*2\r\n:1\r\n:2\r\n")
	c.wantNext("[1 2]")
	p.waitAck(frozen)
	if got := old.waitGot(4); len(got) != 4 {
		t.Fatalf("a frozen shard got %v", got)
	}
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[0].Master = false, "b" }))
	other.wantNext("[1 1]")

	// Back to the first node, which does not answer, and then is taken away.
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "a" }))
	c.queued([]string{"INCR", "a"})
	c.send("EXEC")
	other.queued([]string{"GET", "b"})
	other.send("EXEC") // changes nothing, so it may be sent again
	old.waitGot(10)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master, c.Shards[0].Generation = "b", 2 }))
	c.wantNext(replaced)
	other.wantNext("[1]")
	if got := next.MustDo("GET", "a"); got != nil {
		t.Errorf("a is %v at the new master", got)
	}
}

// TestTransactionAndLostConnection: nothing of a transaction is done twice.
func TestTransactionAndLostConnection(t *testing.T) {
	t.Parallel()
	f := startFake(t, never)
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	c := p.dial()
	c.queued([]string{"INCR", "a"})
	c.send("EXEC")
	f.waitGot(3)
	f.cut()
	c.wantNext(lost)
	c.want("-ERR EXEC without MULTI", "EXEC")
}

// watchPair starts two servers of one shard, the second a copy that is told the
// same by the test.
func watchPair(t *testing.T) (*proxy, *redistest.Server, *redistest.Server) {
	a, b := redistest.Start(t, redistest.Options{Open: true}), redistest.Start(t, redistest.Options{Open: true})
	return startProxy(t, reactor.Config{Loops: 1}, twoNodes(a.Address, b.Address)), a, b
}

// TestWatchAndEpochs: WATCH survives a freeze that changes nothing; an epoch
// that takes the keys to another master, or other credentials, makes EXEC null.
func TestWatchAndEpochs(t *testing.T) {
	t.Parallel()
	p, a, b := watchPair(t)
	c := p.dial()
	watch := func() {
		t.Helper()
		c.want("OK", "WATCH", "k")
		c.want("OK", "MULTI")
		c.want("QUEUED", "INCR", "k")
	}
	freeze := func(on bool) {
		t.Helper()
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = on }))
	}
	watch()
	freeze(true)
	c.send("EXEC")
	c.silent(50 * time.Millisecond)
	freeze(false)
	c.wantNext("[1]")

	// The key changes during the freeze (by an admin).
	watch()
	freeze(true)
	c.send("EXEC")
	a.MustDo("SET", "k", "5")
	freeze(false)
	c.wantNext("[]")

	// WATCH itself is held, and then watches the new master.
	freeze(true)
	c.send("WATCH", "k")
	c.silent(50 * time.Millisecond)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[0].Master = false, "b" }))
	c.wantNext("OK")
	c.want("OK", "MULTI")
	c.want("QUEUED", "INCR", "k")
	c.want("[1]", "EXEC")

	// A switchover between WATCH and EXEC, with EXEC held and without.
	for _, held := range []bool{true, false} {
		watch()
		freeze(true)
		if held {
			c.send("EXEC")
		}
		p.waitAck(p.commit(func(c *routing.Cluster) {
			s := &c.Shards[0]
			s.Frozen = false
			s.Master = map[string]string{"a": "b", "b": "a"}[s.Master]
		}))
		if !held {
			c.send("EXEC")
		}
		c.wantNext("[]")
	}
	// A failover, and other credentials.
	watch()
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "b" }))
	c.want("[]", "EXEC")
	watch()
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Generation++ }))
	c.want("[]", "EXEC")
	// The slot goes to another shard.
	watch()
	p.waitAck(p.commit(func(c *routing.Cluster) {
		other := c.Shards[0]
		other.ID, other.Master, other.Nodes = "shard-1", "z", []routing.Node{{ID: "z", Address: a.Address}}
		c.Shards[0].Slots = slot.Set{}
		c.Shards = append(c.Shards, other)
	}))
	c.want("[]", "EXEC")
	watch()
	c.want("[6]", "EXEC")
	if got := fmt.Sprintf("%v %v", a.MustDo("GET", "k"), b.MustDo("GET", "k")); got != "6 1" {
		t.Errorf("k is %s", got)
	}
}

// TestWatchLosesItsConnection: EXEC is null when the connection broke before
// it, and an error that says so when it broke while EXEC was in flight.
func TestWatchLosesItsConnection(t *testing.T) {
	t.Parallel()
	p, a, _ := watchPair(t)
	c := p.dial()
	c.want("OK", "WATCH", "k")
	a.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	c.queued([]string{"SET", "k", "1"})
	c.want("[]", "EXEC")
	c.want("(nil)", "GET", "k")
	// An idle connection that the server closed is replaced.
	for range 3 {
		c.want("OK", "WATCH", "k")
		c.want("OK", "UNWATCH")
		a.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		c.want("OK", "WATCH", "k")
		c.queued([]string{"SET", "k", "1"})
		c.want("[OK]", "EXEC")
	}
	f := startFake(t, func(args []string) string {
		if args[0] == "WATCH" {
			return "+OK\r\n"
		}
		return ""
	})
	q := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	c = q.dial()
	c.want("OK", "WATCH", "k")
	c.queued([]string{"INCR", "k"})
	c.send("EXEC")
	f.waitGot(4)
	frozen := q.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true })
	time.Sleep(50 * time.Millisecond)
	if q.ackedNow() >= frozen {
		t.Fatal("acked while EXEC is in flight on a pinned connection")
	}
	f.cut()
	c.wantNext(lost)
	q.waitAck(frozen)
	// The same when its master is replaced.
	q.waitAck(q.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = false }))
	c.want("OK", "WATCH", "k")
	c.queued([]string{"INCR", "k"})
	c.send("EXEC")
	f.waitGot(8)
	q.waitAck(q.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	c.wantNext(replaced)
	// Other credentials: what is in flight is awaited, and its reply passed on.
	q.waitAck(q.commit(func(c *routing.Cluster) { c.Shards[0].Master = "shard-0-0" }))
	c.want("OK", "WATCH", "k")
	c.queued([]string{"INCR", "k"})
	c.send("EXEC")
	f.waitGot(12)
	rotated := q.commit(func(c *routing.Cluster) { c.Shards[0].Generation++ })
	time.Sleep(50 * time.Millisecond)
	if q.ackedNow() >= rotated {
		t.Fatal("acked while EXEC is in flight under the old credentials")
	}
	f.say("+OK\r\n+QUEUED\r\n*1\r\n:7\r\n")
	c.wantNext("[7]")
	q.waitAck(rotated)
}

// TestPinnedConnectionsAreFew: they are reused when clients are done, closed
// when not needed, and limited.
func TestPinnedConnectionsAreFew(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{MaxPinned: 5}, shards...)
	connected := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(servers[0].Info("connected_clients")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	p.dial().want("(nil)", "GET", "k")
	base := connected()
	var clients []*client
	for i := range 5 {
		c := p.dial()
		c.want("OK", "WATCH", fmt.Sprint("{t}k", i))
		clients = append(clients, c)
	}
	extra := p.dial()
	extra.want("-ERR too many clients of this proxy use WATCH or a blocking command at once (see its max-pinned); retry later", "WATCH", "k")
	extra.want("(nil)", "GET", "k")
	clients[0].Close() // watching
	clients[1].want("OK", "UNWATCH")
	clients[2].queued([]string{"GET", "{t}k"})
	clients[2].want("[(nil)]", "EXEC")
	clients[3].queued()
	clients[3].want("OK", "DISCARD")
	clients[4].queued([]string{"SET", "{t}k", "1"})
	clients[4].Close()
	time.Sleep(50 * time.Millisecond)
	for range 20 {
		for i := range 5 {
			c := p.dial()
			c.want("OK", "WATCH", fmt.Sprint("{t}w", i))
			// What another client watched on this connection must not matter.
			extra.want("OK", "SET", fmt.Sprint("{t}k", i), "2")
			c.queued([]string{"SET", fmt.Sprint("{t}w", i), "3"})
			c.want("[OK]", "EXEC")
			c.Close()
		}
	}
	// Five, one that was just given back, one that asks a slow server if it is busy.
	if n := connected(); n > base+7 {
		t.Errorf("%d connections at the server, %d before", n, base)
	}
	time.Sleep(50 * time.Millisecond)
	if s := p.Stats(); s.Pinned != 0 {
		t.Errorf("%d connections are pinned when nobody watches", s.Pinned)
	}
}

// TestQueuedCommandsAreBounded: by the length of one request, and by memory, and
// they are gone with the client.
func TestQueuedCommandsAreBounded(t *testing.T) {
	shards, _ := realShards(t, 1)
	limits := reactor.Config{Loops: 1, MemoryBudgetBytes: 16 << 20}
	limits.Limits.RequestBytes, limits.Limits.Args, limits.Limits.InlineBytes = 1<<20, 1000, 64<<10
	p := startProxy(t, limits, shards...)
	c := p.dial()
	value := strings.Repeat("v", 300<<10)
	c.want("OK", "MULTI")
	for range 3 {
		c.want("QUEUED", "SET", "{t}k", value)
	}
	if s := p.Stats(); s.MemoryBytes < 900<<10 {
		t.Errorf("%d bytes in use with 900 KiB queued", s.MemoryBytes)
	}
	c.want("-ERR the transaction is longer than one request may be, it cannot be queued", "SET", "{t}k", value)
	if s := p.Stats(); s.MemoryBytes > 600<<10 {
		t.Errorf("%d bytes in use after the transaction was aborted", s.MemoryBytes)
	}
	c.want("-EXECABORT Transaction discarded because of previous errors.", "EXEC")
	c.want("OK", "MULTI")
	for range 1000 {
		c.want("QUEUED", "PING")
	}
	c.want("-ERR too many commands in this transaction, or too many that the proxy answers itself", "PING")
	c.want("OK", "DISCARD")
	c.queued([]string{"SET", "{t}k", value}, []string{"STRLEN", "{t}k"})
	c.want(fmt.Sprintf("[OK %d]", len(value)), "EXEC")

	// Clients that queue and never send EXEC fill the budget; others go on.
	var hoarders []*client
	for range 30 {
		h := p.dial()
		h.write(encode("MULTI") + encode("SET", "{t}k", value) + encode("SET", "{t}k", value) + encode("SET", "{t}k", value))
		hoarders = append(hoarders, h)
	}
	for range 20 {
		c.want(fmt.Sprint(len(value)), "STRLEN", "{t}k")
		time.Sleep(20 * time.Millisecond)
	}
	if s := p.Stats(); s.MemoryBytes > 18<<20 {
		t.Errorf("%d bytes in use", s.MemoryBytes)
	}
	for _, h := range hoarders {
		h.Close()
	}
	time.Sleep(100 * time.Millisecond)
	if s := p.Stats(); s.MemoryBytes > 4<<20 {
		t.Errorf("%d bytes in use after the clients left", s.MemoryBytes)
	}
}

// TestOptimisticCounting: many clients add to counters with WATCH, GET, MULTI,
// SET, EXEC, while the shards freeze, rotate credentials, and lose connections.
// Each addition that EXEC reported counts once.
func TestOptimisticCounting(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	var clients sync.WaitGroup
	var mu sync.Mutex
	added, unknown, null := 0, 0, 0
	stop := time.Now().Add(3 * time.Second)
	for id := range 6 {
		c := p.dial()
		clients.Add(1)
		go func() {
			defer clients.Done()
			for n := 0; time.Now().Before(stop); n++ {
				key := []string{"foo", "bar"}[(n+id)%2]
				if got := c.do("WATCH", key); got != "OK" {
					t.Errorf("WATCH: %s", got)
					return
				}
				value, _ := strconv.Atoi(strings.Trim(c.do("GET", key), "()nil"))
				c.do("MULTI")
				c.do("SET", key, strconv.Itoa(value+1))
				got := c.do("EXEC")
				mu.Lock()
				switch got {
				case "[OK]":
					added++
				case "[]":
					null++
				case lost, replaced:
					unknown++
				default:
					t.Errorf("EXEC: %s", got)
				}
				mu.Unlock()
			}
		}()
	}
	for i := 0; time.Now().Before(stop); i++ {
		time.Sleep(5 * time.Millisecond)
		switch i % 10 {
		case 0, 1, 2:
			p.commit(func(c *routing.Cluster) { c.Shards[i%2].Frozen = !c.Shards[i%2].Frozen })
		case 3:
			p.commit(func(c *routing.Cluster) { c.Shards[0].Generation++ })
		case 4:
			p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[1].Frozen = false, false }))
		case 5:
			if i%50 == 5 {
				servers[1].MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			}
		}
	}
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[1].Frozen = false, false }))
	clients.Wait()
	total := 0
	for _, key := range []string{"foo", "bar"} {
		n, _ := strconv.Atoi(p.dial().do("GET", key))
		total += n
	}
	if total < added || total > added+unknown {
		t.Errorf("the counters are %d, %d were added and %d may have been", total, added, unknown)
	}
	if added < 20 || null == 0 {
		t.Errorf("only %d were added, %d were null", added, null)
	}
	t.Logf("%d added, %d null, %d unknown", added, null, unknown)
}

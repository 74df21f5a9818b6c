package reactor_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestClientLines: CLIENT LIST and CLIENT INFO have the fields of a real server,
// in its order, and say the same of clients in the same state.
func TestClientLines(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Open: true})
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	volatile := regexp.MustCompile(`\b(id|addr|laddr|fd|qbuf-free|argv-mem|multi-mem|rbs|rbp|tot-mem)[= ]\S*`)
	recent := regexp.MustCompile(`\b(age|idle)=1\b`) // a second began meanwhile
	for _, script := range []string{
		"CLIENT LIST", "CLIENT INFO",
		"CLIENT SETNAME me|CLIENT NO-EVICT ON|CLIENT INFO",
		"SUBSCRIBE a|RESET|HELLO 3|SUBSCRIBE a b|PSUBSCRIBE c|SSUBSCRIBE d|CLIENT INFO",
		"MULTI|SET k v|DISCARD|CLIENT INFO|CLIENT LIST TYPE normal",
		"GET k|NOSUCH|CLIENT LIST ID 1 99",
	} {
		t.Run(script, func(t *testing.T) {
			var seen [2][]string
			for i, address := range []string{plain.Address, p.address} {
				c := dial(t, address)
				for line := range strings.SplitSeq(script, "|") {
					words := strings.Fields(line)
					c.send(words...)
					replies := 1
					if strings.HasSuffix(words[0], "SUBSCRIBE") {
						replies = len(words) - 1
					}
					for range replies {
						seen[i] = append(seen[i], recent.ReplaceAllString(volatile.ReplaceAllString(c.read(), "$1"), "$1=0"))
					}
				}
				_ = c.Close()
			}
			// The next script must not see these two.
			waitFor(t, "the clients are gone", func() bool { return plain.Info("connected_clients") == "1" && p.Stats().Clients == 0 })
			if !slices.Equal(seen[0], seen[1]) {
				t.Errorf("server:\n%s\nproxy:\n%s", strings.Join(seen[0], "\n"), strings.Join(seen[1], "\n"))
			}
		})
	}
	c := p.dial()
	id := c.do("CLIENT", "ID")
	line := c.do("CLIENT", "INFO")
	for _, want := range []string{"id=" + id + " ", "addr=" + c.LocalAddr().String() + " ", "laddr=" + p.address + " ", "qbuf=26 ", "cmd=client|info "} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %s", want, line)
		}
	}
	both := c.do("CLIENT", "LIST", "ID", id, "99999", id)
	if strings.Count(both, "id="+id+" ") != 2 || strings.Count(both, "\n") != 2 {
		t.Errorf("CLIENT LIST ID tells\n%s", both)
	}
}

// TestClientKill: every filter, across loops.
func TestClientKill(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 3}, shards...)
	admin := p.dial()
	adminID := admin.do("CLIENT", "ID")
	victims := func(n int) (all []*client, ids []string) {
		for range n {
			c := p.dial()
			all, ids = append(all, c), append(ids, c.do("CLIENT", "ID"))
		}
		return all, ids
	}
	gone := func(clients ...*client) {
		t.Helper()
		for i, c := range clients {
			if got := c.read(); got != "EOF" {
				t.Errorf("client %d goes on: %s", i, got)
			}
		}
	}
	v, ids := victims(6)
	admin.want("1", "CLIENT", "KILL", "ID", ids[0])
	gone(v[0])
	admin.want("0", "CLIENT", "KILL", "ID", ids[0])
	admin.want("OK", "CLIENT", "KILL", v[1].LocalAddr().String())
	gone(v[1])
	admin.want("-ERR No such client", "CLIENT", "KILL", v[1].LocalAddr().String())
	admin.want("1", "CLIENT", "KILL", "ADDR", v[2].LocalAddr().String(), "LADDR", p.address, "TYPE", "normal", "USER", "default")
	gone(v[2])
	admin.want("0", "CLIENT", "KILL", "ADDR", v[3].LocalAddr().String(), "TYPE", "pubsub")
	admin.want("0", "CLIENT", "KILL", "ID", adminID) // SKIPME is the default
	v[3].send("SUBSCRIBE", "a")
	v[3].read()
	admin.want("1", "CLIENT", "KILL", "TYPE", "PUBSUB", "SKIPME", "no")
	gone(v[3])
	admin.want("0", "CLIENT", "KILL", "TYPE", "replica")
	admin.want("2", "CLIENT", "KILL", "LADDR", p.address)
	gone(v[4], v[5])

	// What was sent behind the command that kills oneself is not executed, what
	// was sent before is answered.
	for _, kill := range [][]string{
		{"CLIENT", "KILL", "SKIPME", "no", "ADDR"},
		{"CLIENT", "KILL"},
	} {
		self := p.dial()
		kill = append(kill, self.LocalAddr().String())
		self.write(encode("SET", "before", "1") + encode(kill...) + encode("SET", "behind", "1"))
		self.wantNext("OK")
		if reply := self.read(); reply != "1" && reply != "OK" {
			t.Errorf("%q: %s", kill, reply)
		}
		self.wantNext("EOF")
	}
	admin.want("0", "EXISTS", "behind")
	self := p.dial()
	self.write(encode("MULTI") + encode("CLIENT", "KILL", self.LocalAddr().String()) + encode("SET", "x", "1") + encode("EXEC"))
	for _, want := range []string{"OK", "QUEUED", "QUEUED", "[OK OK]", "EOF"} {
		self.wantNext(want)
	}
	admin.want("1", "EXISTS", "x")
}

// TestKillWithRequestsInFlight: the client is closed at once, and what its
// requests were for others goes on.
func TestKillWithRequestsInFlight(t *testing.T) {
	t.Parallel()
	f := startFake(t, never)
	p := startProxy(t, reactor.Config{}, one(0, 1, f.ln.Addr().String()))
	admin, c := p.dial(), p.dial()
	id := c.do("CLIENT", "ID")
	c.send("GET", "a")
	f.waitGot(1)
	admin.want("1", "CLIENT", "KILL", "ID", id)
	if got := c.read(); got != "EOF" {
		t.Errorf("the killed client got %s", got)
	}
	other := p.dial()
	other.send("GET", "b")
	f.waitGot(2)
	f.say("$1\r\nA\r\n$1\r\nB\r\n")
	other.wantNext("B")
}

// TestPause: which commands wait, for how long, and that they are executed in
// their order when it ends.
func TestPause(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 2}, shards...)
	admin := p.dial()
	admin.want("OK", "SET", "k", "v")
	admin.want("1", "PFADD", "hll", "x")

	// WRITE: by every way to write, on both loops; reads go on.
	reader := p.dial()
	admin.want("OK", "CLIENT", "PAUSE", "100000", "WRITE")
	writes := [][]string{
		{"SET", "a", "1"}, {"MSET", "a", "1", "b", "1"}, {"PFCOUNT", "hll"}, {"PUBLISH", "x", "y"}, {"SPUBLISH", "x", "y"},
		{"EVAL", "return 1", "1", "k"}, {"EVAL", "#!lua\nreturn 1", "1", "k"}, {"FLUSHALL"},
	}
	var waiting []*client
	for _, w := range writes {
		c := p.dial()
		c.write(encode("GET", "k") + encode(w...) + encode("PING"))
		c.wantNext("v")
		waiting = append(waiting, c)
	}
	waitFor(t, "writes wait", func() bool { return p.Stats().ClientsBlocked == len(writes) })
	for _, read := range [][]string{
		{"GET", "k"}, {"MGET", "k", "k"}, {"PING"}, {"EVAL_RO", "return 'v'", "1", "k"},
		{"EVAL", "#!lua flags=allow-oom,no-writes\nreturn 1", "1", "k"}, {"EXISTS", "a"},
	} {
		if got := reader.do(read...); strings.HasPrefix(got, "-") {
			t.Errorf("%q: %s", read, got)
		}
	}
	reader.want("-ERR wrong number of arguments for 'set' command", "SET", "a")
	reader.want("OK", "MULTI")
	reader.want("QUEUED", "GET", "a")
	reader.want("QUEUED", "PING")
	reader.want("[(nil) PONG]", "EXEC")
	if list := reader.do("CLIENT", "LIST"); strings.Count(list, "flags=b ") != len(writes) {
		t.Errorf("clients that wait are not marked:\n%s", list)
	}
	waiting[0].silent(50 * time.Millisecond)
	admin.want("OK", "CLIENT", "UNPAUSE")
	for i, c := range waiting {
		if got := c.read(); strings.HasPrefix(got, "-") {
			t.Errorf("%q after the pause: %s", writes[i], got)
		}
		c.wantNext("PONG")
	}
	if n := p.Stats().ClientsBlocked; n != 0 {
		t.Errorf("%d clients still wait", n)
	}

	// A transaction that was queued before.
	c := p.dial()
	c.want("OK", "MULTI")
	c.want("QUEUED", "SET", "tx", "1")
	admin.want("OK", "CLIENT", "PAUSE", "100000", "write")
	c.send("EXEC")
	c.silent(50 * time.Millisecond)
	admin.want("OK", "CLIENT", "UNPAUSE")
	c.wantNext("[OK]")

	// ALL: everything of everybody, for its time, which only grows.
	began := time.Now()
	admin.want("OK", "CLIENT", "PAUSE", "200")
	admin.want("OK", "CLIENT", "PAUSE", "1", "WRITE")
	reader.want("v", "ECHO", "v")
	if took := time.Since(began); took < 195*time.Millisecond {
		t.Errorf("a pause of 200 ms was over after %s", took)
	}
}

// TestPausedClientsGo: a client that hangs up does not have executed what it
// sent, one that is killed neither, and a proxy that stops waits for nobody.
func TestPausedClientsGo(t *testing.T) {
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	admin, leaves, killed, stays := p.dial(), p.dial(), p.dial(), p.dial()
	id := killed.do("CLIENT", "ID")
	admin.want("OK", "CLIENT", "PAUSE", "100000", "WRITE")
	leaves.send("SET", "left", "1")
	killed.send("SET", "killed", "1")
	waitFor(t, "both wait", func() bool { return p.Stats().ClientsBlocked == 2 })
	_ = leaves.Close()
	waitFor(t, "one is gone", func() bool { return p.Stats().ClientsBlocked == 1 })
	admin.want("1", "CLIENT", "KILL", "ID", id)
	killed.wantNext("EOF")
	admin.want("OK", "CLIENT", "UNPAUSE")
	admin.want("0", "EXISTS", "left", "killed")

	// The input of a client that waits is not read, so it takes no more memory.
	admin.want("OK", "CLIENT", "PAUSE", "100000", "WRITE")
	stays.send("SET", "k", "v")
	waitFor(t, "it waits", func() bool { return p.Stats().ClientsBlocked == 1 })
	before := p.Stats().MemoryBytes
	_ = stays.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	part := []byte(strings.Repeat(encode("SET", "k", strings.Repeat("v", 1000)), 1000))
	for {
		if _, err := stays.Conn.Write(part); err != nil {
			break // the socket is full
		}
	}
	if grown := p.Stats().MemoryBytes - before; grown > 1<<20 {
		t.Errorf("a paused client took %d bytes", grown)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_ = admin.Close()
	if err := p.Shutdown(ctx); err != nil {
		t.Errorf("shutdown while clients are paused: %v", err)
	}
}

// TestPauseAcrossPipelines: what follows CLIENT PAUSE in a pipeline is paused.
func TestPauseAcrossPipelines(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 2}, shards...)
	c := p.dial()
	for i, mode := range []string{"ALL", "WRITE"} {
		began := time.Now()
		c.write(encode("SET", "k", "0") + encode("CLIENT", "PAUSE", "100", mode) + encode("SET", "k", fmt.Sprint(i)) + encode("GET", "k"))
		c.wantNext("OK")
		c.wantNext("OK")
		c.wantNext("OK")
		if took := time.Since(began); took < 95*time.Millisecond {
			t.Errorf("%s: the write behind it was answered after %s", mode, took)
		}
		c.wantNext(fmt.Sprint(i))
	}
	c.write(encode("MULTI") + encode("SET", "k", "2") + encode("CLIENT", "PAUSE", "100", "WRITE") + encode("SET", "k", "3") + encode("EXEC") + encode("GET", "k") + encode("SET", "k", "4"))
	for _, want := range []string{"OK", "QUEUED", "QUEUED", "QUEUED", "[OK OK OK]", "3"} {
		c.wantNext(want)
	}
	c.silent(30 * time.Millisecond)
	c.wantNext("OK")
}

// TestClientNamesAreBounded: they are kept outside of the memory budget.
func TestClientNamesAreBounded(t *testing.T) {
	t.Parallel()
	p := startProxy(t, reactor.Config{Loops: 1})
	c := p.dial()
	long := strings.Repeat("n", 4097)
	const refused = "-ERR Client names and what CLIENT SETINFO says may have at most 4096 bytes behind the proxy"
	c.want(refused, "CLIENT", "SETNAME", long)
	c.want(refused, "CLIENT", "SETINFO", "LIB-NAME", long)
	c.want(refused, "HELLO", "2", "SETNAME", long)
	c.want("OK", "CLIENT", "SETNAME", long[1:])
	c.want(long[1:], "CLIENT", "GETNAME")
}

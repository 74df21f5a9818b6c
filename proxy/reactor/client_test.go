package reactor_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// TestLocalCommands are answered as Redis does.
func TestLocalCommands(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	for _, step := range []struct{ command, want string }{
		{"PING", "PONG"}, {"PING hi", "hi"}, {"ECHO hi", "hi"},
		{"SELECT 0", "OK"}, {"SELECT 1", "OK"}, {"SELECT 16", "-ERR DB index is out of range"}, {"SELECT -1", "-ERR DB index is out of range"}, {"SELECT x", "-ERR value is not an integer or out of range"},
		{"AUTH x", "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"},
		{"AUTH default x", "OK"}, {"AUTH nobody x", "-WRONGPASS invalid username-password pair or user is disabled."},
		{"CLIENT GETNAME", "(nil)"}, {"CLIENT SETNAME me", "OK"}, {"CLIENT GETNAME", "me"},
		{"CLIENT SETINFO lib-name go-redis", "OK"}, {"CLIENT SETINFO x y", "-ERR Unrecognized option"},
		{"CLIENT NO-EVICT on", "OK"}, {"READONLY", "OK"}, {"READWRITE", "OK"},
		{"HELLO 4", "-NOPROTO unsupported protocol version"}, {"HELLO x", "-ERR Protocol version is not an integer or out of range"},
		{"HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'"},
		{"GET", "-ERR wrong number of arguments for 'get' command"},
		{"NOSUCH a b", "-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' "},
		{"RENAME a b", `-CROSSSLOT Keys in request don't hash to the same slot: "a" is in slot 15495, "b" in 3300; use one {tag} in all of its keys`},
		{"RESET", "RESET"}, {"CLIENT GETNAME", "(nil)"},
	} {
		c.want(step.want, strings.Fields(step.command)...)
	}
	if got := c.do("HELLO", "3", "SETNAME", "x"); !strings.HasPrefix(got, "[server redis version 7.0.15 proto 3 id ") || !strings.HasSuffix(got, " mode standalone role master modules []]") {
		t.Errorf("HELLO: %s", got)
	}
	if got := c.do("CLIENT", "LIST"); !strings.Contains(got, "name=x") || !strings.Contains(got, "resp=3") {
		t.Errorf("CLIENT LIST: %s", got)
	}
	if got := c.do("CLIENT", "INFO"); !strings.HasPrefix(got, "txt:id=") {
		t.Errorf("CLIENT INFO: %s", got)
	}
	// RESP3 replies come from servers asked in RESP3.
	c.want("1", "HSET", "h", "f", "v")
	c.send("HGETALL", "h")
	if line, err := c.r.ReadString('\n'); err != nil || line != "%1\r\n" {
		t.Errorf("HGETALL in RESP3 begins with %q %v", line, err)
	}
	c.wantNext("f")
	c.wantNext("v")
	// A change of the protocol waits for what came before.
	c.write(encode("HGETALL", "h") + encode("HELLO", "2") + encode("HGETALL", "h"))
	c.wantNext("[f v]")
	if got := c.read(); !strings.HasPrefix(got, "[server redis") {
		t.Errorf("HELLO 2: %s", got)
	}
	c.send("HGETALL", "h")
	c.wantNext("[f v]")
	if line, err := c.r.ReadString('\n'); err != nil || line != "*2\r\n" {
		t.Errorf("HGETALL in RESP2 begins with %q %v", line, err)
	}
	c.wantNext("f")
	c.wantNext("v")
	c.write("QUIT\r\nPING\r\n")
	c.wantNext("OK")
	c.wantNext("EOF")
}

// TestTextsOfClients: verbatim in RESP3; and what a client said does not end the
// error that repeats it.
func TestTextsOfClients(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	c := startProxy(t, reactor.Config{}, shards...).dial()
	c.want("-ERR Unknown client type 'a  +OK'", "CLIENT", "LIST", "TYPE", "a\r\n+OK\x00b")
	c.want("-ERR Syntax error in HELLO option 'a  b'", "HELLO", "3", "a\r\nb\x00c")
	c.do("HELLO", "3")
	for _, command := range []string{"INFO", "LIST"} {
		c.send("CLIENT", command)
		line, err := c.r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "=") {
			t.Fatalf("CLIENT %s in RESP3 begins with %q %v", command, line, err)
		}
		size, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
		text := make([]byte, size+2)
		if _, err := io.ReadFull(c.r, text); err != nil || !strings.HasPrefix(string(text), "txt:id=") || !strings.HasSuffix(string(text), "\n\r\n") {
			t.Fatalf("CLIENT %s: %q %v", command, text, err)
		}
	}
	c.want("PONG", "PING")
}

// TestRandomKeyInAPipeline: what is sent behind RANDOMKEY happens behind it.
func TestRandomKeyInAPipeline(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	c := startProxy(t, reactor.Config{}, shards...).dial()
	c.want("OK", "FLUSHALL")
	c.want("(nil)", "RANDOMKEY")
	for i := range 50 {
		key := fmt.Sprint("key-", i)
		c.write(encode("SET", key, "v") + encode("RANDOMKEY") + encode("FLUSHALL") + encode("RANDOMKEY"))
		for _, want := range []string{"OK", key, "OK", "(nil)"} {
			c.wantNext(want)
		}
	}
}

// TestClientReply: OFF, SKIP and ON, also for requests answered out of order.
func TestClientReply(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	c.write(encode("SET", "foo", "1") + encode("CLIENT", "REPLY", "SKIP") + encode("SET", "bar", "1") + encode("GET", "foo") +
		encode("CLIENT", "REPLY", "OFF") + encode("GET", "foo") + encode("MGET", "foo", "bar") + encode("NOSUCH") +
		encode("CLIENT", "REPLY", "ON") + encode("GET", "bar"))
	for _, want := range []string{"OK", "1", "OK", "1"} {
		c.wantNext(want)
	}
}

// TestAllShards: commands over all shards see every key, once.
func TestAllShards(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 3)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	const keys = 500
	for i := range keys {
		c.send("SET", fmt.Sprintf("key:%d", i), "v")
	}
	for range keys {
		c.wantNext("OK")
	}
	c.want(fmt.Sprint(keys), "DBSIZE")
	seen := map[string]int{}
	cursor, rounds := "0", 0
	for rounds == 0 || cursor != "0" {
		reply := c.do("SCAN", cursor, "COUNT", "7", "MATCH", "key:*")
		var rest string
		cursor, rest, _ = strings.Cut(strings.Trim(reply, "[]"), " ")
		for _, k := range strings.Fields(strings.Trim(rest, "[]")) {
			seen[k]++
		}
		if rounds++; rounds > 1000 {
			t.Fatal("SCAN does not end")
		}
	}
	if len(seen) != keys {
		t.Errorf("SCAN saw %d keys, want %d", len(seen), keys)
	}
	if got := c.do("KEYS", "key:*"); len(strings.Fields(got)) != keys {
		t.Errorf("KEYS found %d", len(strings.Fields(got)))
	}
	if got := c.do("RANDOMKEY"); !strings.HasPrefix(got, "key:") {
		t.Errorf("RANDOMKEY: %s", got)
	}
	for _, bad := range []string{"x", "-", "1 ", "99999999999999999999999"} {
		c.want("-ERR invalid cursor", "SCAN", bad)
	}
	if got := c.do("INFO", "keyspace"); strings.Count(got, "db0:keys=") != 3 {
		t.Errorf("INFO: %q", got)
	}
	c.want("OK", "FLUSHALL")
	for _, s := range servers {
		if n := s.MustDo("DBSIZE"); n != int64(0) {
			t.Errorf("%v keys after FLUSHALL", n)
		}
	}
	c.want("(nil)", "RANDOMKEY")
	// An error of one part is the error of the whole.
	c.want("OK", "MSET", "foo", "1", "bar", "1", "baz", "1")
	servers[2].MustDo("CONFIG", "SET", "maxmemory", "1")
	if got := c.do("MSET", "foo", "2", "bar", "2", "baz", "2"); !strings.HasPrefix(got, "-OOM") {
		t.Errorf("MSET with a full shard: %s", got)
	}
}

// TestAuthentication: clients need the password when there is one, and either
// of two during a rotation.
func TestAuthentication(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	early := p.dial()
	early.want("PONG", "PING")
	p.waitAck(p.commit(func(c *routing.Cluster) {
		c.ClientPasswords = append(c.ClientPasswords, sha256.Sum256([]byte("one")), sha256.Sum256([]byte("two")))
	}))
	for _, password := range []string{"one", "two"} {
		c := p.dial()
		c.want("-NOAUTH Authentication required.", "GET", "k")
		c.want("-NOAUTH Authentication required.", "PING")
		c.want("-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time", "HELLO", "3")
		c.want("-WRONGPASS invalid username-password pair or user is disabled.", "AUTH", "three")
		c.want("OK", "AUTH", password)
		c.want("(nil)", "GET", "k")
	}
	c := p.dial()
	if got := c.do("HELLO", "3", "AUTH", "default", "one", "SETNAME", "x"); !strings.HasPrefix(got, "[server redis") {
		t.Errorf("HELLO AUTH: %s", got)
	}
	c.want("(nil)", "GET", "k")
	c = p.dial()
	c.write("*11\r\n")
	c.wantNext("-ERR Protocol error: unauthenticated multibulk length")
	c.wantNext("EOF")
}

// TestHostileClients: every breach ends its client, with Redis's words, and
// nobody else notices; no memory is spent on what a header announces.
func TestHostileClients(t *testing.T) {
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Limits: resp.Limits{RequestBytes: 1 << 20, Args: 1000, InlineBytes: 1024}}, shards...)
	good := p.dial()
	good.want("OK", "SET", "k", "v")
	for in, want := range map[string]string{
		"*1\r\n$9223372036854775807\r\n":      "invalid bulk length",
		"*1\r\n$-2\r\n":                       "invalid bulk length",
		"*1001\r\n":                           "invalid multibulk length",
		"*x\r\n":                              "invalid multibulk length",
		"*1\r\n$1048577\r\n":                  "invalid bulk length",
		"*1\r\nx":                             "expected '$', got 'x'",
		strings.Repeat("x", 2000):             "too big inline request",
		"SET \"a\r\n":                         "unbalanced quotes in request",
		"*" + strings.Repeat("0", 2000):       "too big mbulk count string",
		"*1\r\n$" + strings.Repeat("0", 2000): "too big bulk count string",
		encode("GET", "k") + "*1\r\n$-2\r\n" + "PIN": "invalid bulk length",
	} {
		c := p.dial()
		c.write(in)
		if strings.Contains(in, "GET") {
			c.wantNext("v")
		}
		c.wantNext("-ERR Protocol error: " + want)
		c.wantNext("EOF")
		good.want("v", "GET", "k")
	}
	before := p.Stats().MemoryBytes
	for range 200 {
		c := p.dial()
		c.write("*2\r\n$4\r\nECHO\r\n$1000000\r\nx")
		c = p.dial()
		c.write("*3\r\n$3\r\nSET\r\n$1\r\n")
	}
	time.Sleep(50 * time.Millisecond)
	if grown := p.Stats().MemoryBytes - before; grown > 400*8<<10 {
		t.Errorf("%d bytes for 400 clients that announce and do not send", grown)
	}
	good.want("v", "GET", "k")
	if s := p.Stats(); s.ProtocolErrors != 11 {
		t.Errorf("%d protocol errors counted, want 11", s.ProtocolErrors)
	}
}

// TestSlowReader: a client that does not read is closed when its limit is
// reached, and costs nobody else anything.
func TestSlowReader(t *testing.T) {
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1, ClientReplyBufferBytes: 4 << 20}, shards...)
	good := p.dial()
	good.want("OK", "SET", "k", strings.Repeat("x", 9<<20))
	slow := p.dial()
	slow.write(strings.Repeat(encode("GET", "k"), 3))
	deadline := time.Now().Add(10 * time.Second)
	for p.Stats().ClientsTooSlow == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the client was not closed")
		}
		good.want("PONG", "PING")
		time.Sleep(time.Millisecond)
	}
	good.want("9437184", "STRLEN", "k")
	time.Sleep(100 * time.Millisecond)
	if s := p.Stats(); s.MemoryBytes > 4<<20 || s.Clients != 1 {
		t.Errorf("%d bytes and %d clients are left", s.MemoryBytes, s.Clients)
	}
}

// TestBackpressure: a client that pipelines without reading is not read when
// memory is not plenty any more, so it stays bounded, and it gets everything in
// the end.
func TestBackpressure(t *testing.T) {
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1, MemoryBudgetBytes: 16 << 20}, shards...)
	c := p.dial()
	c.want("OK", "SET", "k", strings.Repeat("x", 1000))
	const n = 60000
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range n / 100 {
			if _, err := c.Write([]byte(strings.Repeat(encode("GET", "k"), 100))); err != nil {
				return
			}
		}
	}()
	time.Sleep(300 * time.Millisecond)
	if s := p.Stats(); s.MemoryBytes > 8<<20 {
		t.Errorf("%d bytes for one client that does not read", s.MemoryBytes)
	}
	for i := range n {
		if got := c.read(); len(got) != 1000 {
			t.Fatalf("reply %d: %.50q", i, got)
		}
	}
	<-written
}

// TestMemoryBudget: large requests of many clients do not exceed the budget by
// much, and the proxy serves on.
func TestMemoryBudget(t *testing.T) {
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1, MemoryBudgetBytes: 16 << 20}, shards...)
	for range 8 {
		c := p.dial()
		go func() {
			// Never completed; the proxy stops reading, or closes the client.
			_, _ = c.Write([]byte("*2\r\n$4\r\nECHO\r\n$100000000\r\n" + strings.Repeat("x", 8<<20)))
		}()
	}
	time.Sleep(500 * time.Millisecond)
	if s := p.Stats(); s.MemoryBytes > 20<<20 {
		t.Errorf("%d bytes in use, the budget is 16 MiB", s.MemoryBytes)
	}
	good := p.dial()
	good.want("OK", "SET", "k", "v") // once hogs were closed
}

// TestMaxClients: one too many is told so.
func TestMaxClients(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{MaxClients: 3}, shards...)
	var clients []*client
	for range 3 {
		c := p.dial()
		c.want("PONG", "PING")
		clients = append(clients, c)
	}
	c := p.dial()
	c.wantNext("-ERR max number of clients reached")
	c.wantNext("EOF")
	clients[0].Close()
	for p.Stats().Clients == 3 {
		time.Sleep(time.Millisecond)
	}
	p.dial().want("PONG", "PING")
}

// TestIdleClients: idle clients cost less than 2 KiB each on the heap. (There
// are not ten thousand only because both ends of each are in this process,
// whose descriptors are limited.)
func TestIdleClients(t *testing.T) {
	const n = 9000
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{MaxClients: n + 10}, shards...)
	before := heap()
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	dialer := net.Dialer{}
	for i := range n {
		// More than one address to come from: ports are few.
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%4))}
		c, err := dialer.Dial("tcp", p.address)
		if err != nil {
			t.Fatalf("client %d: %v (limit of open files too low?)", i, err)
		}
		conns = append(conns, c)
		if _, err := c.Write([]byte("SET k v\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	var b [5]byte
	for _, c := range conns {
		if _, err := c.Read(b[:]); err != nil {
			t.Fatal(err)
		}
	}
	mine := heap() // the test's side of the connections is in it, too
	if s := p.Stats(); s.Clients != n || s.MemoryBytes > 1<<20 {
		t.Errorf("%d clients, %d bytes of buffers", s.Clients, s.MemoryBytes)
	}
	per := (int64(mine) - int64(before)) / n
	t.Logf("%d bytes of heap per client, both sides of the connection together", per)
	if per > 2048 {
		t.Errorf("%d bytes per idle client", per)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// TestShutdown: what clients sent is answered, then they are closed; a client
// whose command never ends does not delay the end beyond the limit.
func TestShutdown(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	var clients []*client
	for i := range 20 {
		c := p.dial()
		c.want("PONG", "PING")
		c.write(strings.Repeat(encode("SET", fmt.Sprintf("k%d", i), "v"), 50))
		clients = append(clients, c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		for range 50 {
			c.wantNext("OK")
		}
		c.wantNext("EOF")
	}
	f := startFake(t, never)
	p = startProxy(t, reactor.Config{}, one(0, 1, f.ln.Addr().String()))
	c := p.dial()
	c.send("GET", "k")
	f.waitGot(1)
	ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := p.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("shutdown with a command that never ends: %v", err)
	}
	c.wantNext("EOF")
}

// TestStats: calls, errors, latencies and the slow log add up.
func TestStats(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{SlowLogThreshold: time.Nanosecond, SlowLogLength: 3}, shards...)
	c := p.dial()
	c.want("OK", "CLIENT", "SETNAME", "me")
	for i := range 10 {
		c.want("OK", "SET", fmt.Sprintf("k%d", i), "v")
	}
	if got := c.do("INCR", "k1"); !strings.HasPrefix(got, "-ERR value is not an integer") {
		t.Errorf("INCR: %s", got)
	}
	c.do("NOSUCH")
	s := p.Stats()
	var calls, errors, buckets uint64
	for i := range s.Commands {
		calls += s.Commands[i].Calls
		errors += s.Commands[i].Errors
		for _, n := range s.Commands[i].Latency {
			buckets += n
		}
	}
	if calls != 12 || errors != 1 || buckets != 12 || s.UnknownCommands != 1 || s.Clients != 1 || s.AckedEpoch != 1 {
		t.Errorf("%d calls, %d errors, %d in buckets, %d unknown, %d clients, epoch %d", calls, errors, buckets, s.UnknownCommands, s.Clients, s.AckedEpoch)
	}
	if len(s.Nodes) != 2 || s.Nodes[0].Connections == 0 || s.Nodes[0].Requests+s.Nodes[1].Requests != 11 || s.Nodes[0].Sight != reactor.SightOK {
		t.Errorf("nodes: %+v", s.Nodes)
	}
	sent := len(encode("CLIENT", "SETNAME", "me")) + 10*len(encode("SET", "k0", "v")) + len(encode("INCR", "k1")) + len(encode("NOSUCH"))
	received := 11*len("+OK\r\n") + len("-ERR value is not an integer or out of range\r\n") + len("-ERR unknown command 'NOSUCH', with args beginning with: \r\n")
	if s.ClientBytesIn != uint64(sent) || s.ClientBytesOut != uint64(received) {
		t.Errorf("%d bytes in and %d out, want %d and %d", s.ClientBytesIn, s.ClientBytesOut, sent, received)
	}
	slow := p.SlowLog()
	if len(slow) != 3 || slow[0].Args[0] != "INCR" || slow[0].Name != "me" || slow[0].ID != slow[1].ID+1 {
		t.Errorf("slow log: %+v", slow)
	}
}

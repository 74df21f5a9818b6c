package reactor_test

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

func longKey(i int) string { return "long:" + strconv.Itoa(i) }

// longRequest is a command with n arguments behind its name.
func longRequest(name string, n int, arg func(i int) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n$%d\r\n%s\r\n", n+1, len(name), name)
	for i := range n {
		a := arg(i)
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// longPairs are keys and their values, which are a few bytes each and of any
// length.
func longPairs(i int) string {
	if i%2 == 0 {
		return longKey(i / 2)
	}
	return longValue(i / 2)
}

func longValue(i int) string { return strings.Repeat("v", i%50) + strconv.Itoa(i) }

// wantValues reads the reply to MGET of the keys from 0 to n-1, of which those
// from there on do not exist, if there is no more than a bulk string to each.
func (c *client) wantValues(n, exist int, null string) {
	c.t.Helper()
	var want bytes.Buffer
	fmt.Fprintf(&want, "*%d\r\n", n)
	for i := range n {
		if i >= exist {
			want.WriteString(null)
			continue
		}
		v := longValue(i)
		fmt.Fprintf(&want, "$%d\r\n%s\r\n", len(v), v)
	}
	got := make([]byte, want.Len())
	if _, err := io.ReadFull(c.r, got); err != nil {
		c.t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		at := 0
		for got[at] == want.Bytes()[at] {
			at++
		}
		c.t.Fatalf("the reply differs from byte %d on: %.60q, want %.60q", at, got[at:], want.Bytes()[at:])
	}
}

// TestVeryManyKeys: requests that are sent little by little are answered as
// others are, and in their place among those of the client.
func TestVeryManyKeys(t *testing.T) {
	const n, exist = 50_000, 30_000
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	for _, proto := range []string{"2", "3"} {
		c := p.dial()
		c.do("HELLO", proto)
		null := map[string]string{"2": "$-1\r\n", "3": "_\r\n"}[proto]
		go c.write(encode("SET", longKey(7), "before") + encode("GET", longKey(7)) +
			longRequest("MSET", 2*exist, longPairs) + encode("GET", longKey(exist-1)) +
			longRequest("mget", n, longKey) + encode("PING") +
			longRequest("EXISTS", n, longKey) + longRequest("TOUCH", 5000, longKey) + longRequest("MGET", 3, longKey) +
			longRequest("UNLINK", 10_000, longKey) + longRequest("DEL", n, longKey) + longRequest("MGET", 5000, longKey) +
			longRequest("MSET", 10_001, longPairs) + encode("SET", "end", "v"))
		c.wantNext("OK")
		c.wantNext("before")
		c.wantNext("OK")
		c.wantNext(longValue(exist - 1))
		c.wantValues(n, exist, null)
		c.wantNext("PONG")
		c.wantNext(strconv.Itoa(exist))
		c.wantNext("5000")
		c.wantValues(3, exist, null)
		c.wantNext("10000")
		c.wantNext(strconv.Itoa(exist - 10_000))
		c.wantValues(5000, 0, null)
		c.wantNext("-ERR wrong number of arguments for 'mset' command")
		c.wantNext("OK")
	}
	p.wait("nothing is in use", func() bool { return p.Stats().MemoryBytes < 4<<20 })
}

// TestVeryManyKeysOfOneSlot: they are one command of the server, so that it is
// atomic.
func TestVeryManyKeysOfOneSlot(t *testing.T) {
	f := startFake(t, func(args []string) string { return fmt.Sprintf(":%d\r\n", len(args)) })
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	c := p.dial()
	c.write(longRequest("DEL", 50_000, func(i int) string { return "{tag}" + strconv.Itoa(i) }) + encode("STRLEN", "k"))
	c.wantNext("50001")
	c.wantNext("2")
}

// TestVeryManyKeysFail: an error of one part is the error of the whole, and what
// stands behind it is served.
func TestVeryManyKeysFail(t *testing.T) {
	shards, _ := realShards(t, 1)
	f := startFake(t, func([]string) string { return "-OOM no\r\n" })
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 2, shards[0].Nodes[0].Address), one(1, 2, f.ln.Addr().String()))
	c := p.dial()
	for _, request := range []string{longRequest("MSET", 20_000, longPairs), longRequest("DEL", 20_000, longKey), longRequest("MGET", 10_000, longKey)} {
		c.write(request + encode("PING"))
		c.wantNext("-OOM no")
		c.wantNext("PONG")
	}
	if got := len(f.waitGot(1)); got > 20 {
		t.Errorf("%d parts were sent to a server that answers with errors", got)
	}
	p.wait("nothing is in use", func() bool { return p.Stats().MemoryBytes < 1<<20 })
}

// TestVeryManyKeysAreWritten: what has arrived is executed, though the client has
// left.
func TestVeryManyKeysAreWritten(t *testing.T) {
	const n = 100_000
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	other := p.dial()
	for _, request := range []string{longRequest("MGET", n, longKey), longRequest("MSET", 2*n, longPairs)} {
		c := p.dial()
		c.write(request)
		c.Close()
	}
	p.wait("all keys are there", func() bool { return other.do("DBSIZE") == strconv.Itoa(n) })
	p.wait("nothing is in use", func() bool { return p.Stats().MemoryBytes < 4<<20 && p.Stats().Clients == 1 })
}

// TestVeryManyKeysAcrossEpochs: batches follow the routing table, wait while a
// shard is frozen, and let an epoch be obeyed in between.
func TestVeryManyKeysAcrossEpochs(t *testing.T) {
	const n = 100_000
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c := p.dial()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2 {
			c.write(longRequest("MSET", 2*n, longPairs) + longRequest("MGET", n, longKey) + longRequest("DEL", n, longKey))
			c.wantNext("OK")
			c.wantValues(n, n, "")
			c.wantNext(strconv.Itoa(n))
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-done:
			if i < 2 {
				t.Errorf("only %d epochs meanwhile", i)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[i%3].Frozen = true }))
		p.commit(func(c *routing.Cluster) { c.Shards[i%3].Frozen = false })
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[i%3].Generation++ }))
	}
}

// TestVeryManyValuesDoNotFillMemory: no more is asked for than the client reads.
func TestVeryManyValuesDoNotFillMemory(t *testing.T) {
	shards, _ := realShards(t, 3)
	const budget, keys, size = 32 << 20, 100, 10_000
	p := startProxy(t, reactor.Config{Loops: 1, MemoryBudgetBytes: budget}, shards...)
	c := p.dial()
	value := strings.Repeat("x", size)
	for i := range keys {
		c.want("OK", "SET", longKey(i), value)
	}
	const n = 20_000
	c.write(longRequest("MGET", n, func(i int) string { return longKey(i % keys) }))
	piece := make([]byte, 256<<10)
	var most int64
	for left := len("*20000\r\n") + n*len("$10000\r\n"+value+"\r\n"); left > 0; {
		got, err := io.ReadFull(c.r, piece[:min(left, len(piece))])
		if err != nil {
			t.Fatal(err)
		}
		if left -= got; left/len(piece)%20 == 0 {
			most = max(most, p.Stats().MemoryBytes)
		}
	}
	c.want("PONG", "PING")
	t.Logf("at most %d MiB for a reply of %d MiB", most>>20, n*size>>20)
	if most > budget {
		t.Errorf("%d bytes were in use", most)
	}
}

// TestVeryManyKeysDelayNobody: another client is served between the batches, by
// the loop and by the server.
func TestVeryManyKeysDelayNobody(t *testing.T) {
	const n = 100_000
	var mu sync.Mutex
	parts, most, between := 0, 0, 0
	f := startFake(t, func(args []string) string {
		if args[0] == "MGET" {
			time.Sleep(time.Millisecond) // the work of a server; the other client has that to be scheduled in
		}
		mu.Lock()
		defer mu.Unlock()
		if args[0] == "SET" {
			if parts > 0 && parts < n/1024 {
				between++
			}
			return "+OK\r\n"
		}
		parts++
		most = max(most, len(args)-1)
		return fmt.Sprintf("*%d\r\n", len(args)-1) + strings.Repeat("$-1\r\n", len(args)-1)
	})
	server := f.ln.Addr().String()
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 2, server), one(1, 2, server))
	c, other := p.dial(), p.dial()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.write(longRequest("MGET", n, longKey))
		c.wantValues(n, 0, "$-1\r\n")
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			other.want("OK", "SET", "k", "v")
		}
	}
	t.Logf("%d parts of at most %d keys, another client was served %d times in between", parts, most, between)
	if most > 1024 || between < 3 {
		t.Errorf("%d parts of at most %d keys, another client was served %d times in between; want at most 1024, and 3 times", parts, most, between)
	}
}

// TestLargeRequestsOfOneKey: they are not parsed to the end, and answered as
// small ones are.
func TestLargeRequestsOfOneKey(t *testing.T) {
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c := p.dial()
	const n = 20_000
	elements := func(i int) string {
		if i == 0 {
			return "list"
		}
		return longKey(i)
	}
	push, get := longRequest("RPUSH", n, elements), longRequest("GET", n, elements)
	go c.write(push + encode("LLEN", "list") + get + longRequest("nosuch", n, elements) + longRequest("CLIENT", n, elements) +
		encode("MULTI") + push + get + encode("EXEC") + encode("MULTI") + push + encode("EXEC") +
		push + longRequest("EXISTS", n, elements) + encode("DEL", "list"))
	c.wantNext(strconv.Itoa(n - 1))
	c.wantNext(strconv.Itoa(n - 1))
	c.wantNext("-ERR wrong number of arguments for 'get' command")
	if got := c.read(); !strings.HasPrefix(got, "-ERR unknown command 'nosuch'") {
		t.Error(got)
	}
	c.wantNext("-ERR syntax error")
	for _, want := range []string{
		"OK", "QUEUED", "-ERR wrong number of arguments for 'get' command", "-EXECABORT Transaction discarded because of previous errors.",
		"OK", "QUEUED", fmt.Sprintf("[%d]", 2*(n-1)),
	} {
		c.wantNext(want)
	}
	c.wantNext(strconv.Itoa(3 * (n - 1)))
	c.wantNext("1")
	c.wantNext("1")
}

// TestScriptsWithVeryManyKeys: they run when all keys lie in one slot, also when
// their source has to be found first, and take their place in the client's order.
func TestScriptsWithVeryManyKeys(t *testing.T) {
	const n = 20_000
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	run := func(name, script string, key func(int) string) string {
		return longRequest(name, n+4, func(i int) string {
			switch i {
			case 0:
				return script
			case 1:
				return strconv.Itoa(n)
			case n + 2:
				return "first"
			case n + 3:
				return "second"
			}
			return key(i)
		})
	}
	const source = "redis.call('SET', KEYS[1], ARGV[2]) return #KEYS .. ARGV[1]"
	sha := fmt.Sprintf("%x", sha1.Sum([]byte(source)))
	tagged := func(i int) string { return "{tag}" + strconv.Itoa(i) }
	scattered := func(i int) string {
		if i == n {
			return "elsewhere"
		}
		return tagged(i)
	}
	c := p.dial()
	for range 2 { // the second time it is known that the server has the script
		go c.write(encode("SET", "{tag}2", "before") + run("EVAL", source, tagged) + encode("GET", "{tag}2") +
			run("EVAL", source, scattered) + run("EVALSHA", sha, tagged) + run("evalsha", strings.Repeat("0", 40), tagged) +
			run("EVAL", "this is no script", tagged) + encode("SET", "end", "v"))
		c.wantNext("OK")
		c.wantNext("20000first")
		c.wantNext("second")
		c.wantNext(`-CROSSSLOT Keys in request don't hash to the same slot: "{tag}2" is in slot 8338, "elsewhere" in 6140; use one {tag} in all of its keys`)
		c.wantNext("20000first")
		c.wantNext(noScript)
		if got := c.read(); !strings.HasPrefix(got, "-ERR Error compiling script") {
			t.Error(got)
		}
		c.wantNext("OK")
	}
	c.want("1", "DEL", "{tag}2")
	leaver := p.dial()
	leaver.write(run("EVAL", source, tagged))
	leaver.Close()
	p.wait("the script of a client that left has run", func() bool { return c.do("GET", "{tag}2") == "second" })
}

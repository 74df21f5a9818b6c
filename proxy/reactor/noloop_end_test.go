package reactor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// nextReply reads the next reply, over pushes that may come anywhere.
func (c *client) nextReply() string {
	c.t.Helper()
	for {
		if text := c.read(); !strings.HasPrefix(text, "[invalidate ") {
			return text
		}
	}
}

// TestNoLoopThatEndsAtOnce: what waits for a connection of the client's own is
// answered, though the client does not want it any more before it is there.
func TestNoLoopThatEndsAtOnce(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	for _, end := range []string{"off", "on"} {
		c := p.dial()
		c.do("HELLO", "3")
		c.want("[(nil) (nil)]", "MGET", "bar", "foo")
		shared := func() bool { return trackers(servers) == 4 } // to each server, one is for bulk
		waitFor(t, "the connections that all share", shared)
		c.write(encode("CLIENT", "TRACKING", "on", "noloop") + encode("MSET", "bar", "1", "foo", "2") + encode("GET", "foo") +
			encode("CLIENT", "TRACKING", end) + encode("GET", "bar") + encode("ECHO", "end"))
		for _, want := range []string{"OK", "OK", "2", "OK", "1", "end"} {
			if got := c.nextReply(); got != want {
				t.Fatalf("%s: %s, want %s", end, got, want)
			}
		}
		waitFor(t, "its connections are gone", shared)
		c.Close()
		p.dial().want("2", "DEL", "bar", "foo")
	}
}

// TestNoLoopEndsWhileInFlight: a frozen shard waits for the connections that a client
// let go, and what was held before does not overtake what is in flight on them.
func TestNoLoopEndsWhileInFlight(t *testing.T) {
	t.Parallel()
	answer := make(chan string)
	f := startFake(t, func([]string) string { return <-answer })
	defer close(answer)
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	freeze := func(on bool) uint64 {
		return p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = on })
	}
	begin := func() *client {
		c := p.dial()
		c.do("HELLO", "3")
		c.want("OK", "CLIENT", "TRACKING", "on", "noloop")
		c.send("SET", "k", "1")
		return c
	}
	// The loop serves another client later than what was sent before.
	handled := func() { p.dial().want("PONG", "PING") }

	for n, end := range []func(c *client){
		func(c *client) { c.send("CLIENT", "TRACKING", "off") },
		func(c *client) { c.Close() },
	} {
		c := begin()
		f.waitGot(n + 1)
		end(c)
		handled()
		frozen := freeze(true)
		time.Sleep(50 * time.Millisecond)
		if p.ackedNow() >= frozen {
			t.Fatal("acked while a command is in flight")
		}
		answer <- "+OK\r\n"
		p.waitAck(frozen)
		p.waitAck(freeze(false))
	}

	c := begin()
	f.waitGot(3)
	freeze(true)
	c.write(encode("SET", "k", "2") + encode("CLIENT", "TRACKING", "off"))
	handled()
	thawed := freeze(false)
	time.Sleep(50 * time.Millisecond)
	if got := f.waitGot(3); len(got) > 3 {
		t.Fatalf("overtaken: %q", got)
	}
	answer <- "+OK\r\n"
	f.waitGot(4)
	answer <- "+OK\r\n"
	p.waitAck(thawed)
	for range 3 {
		if got := c.nextReply(); got != "OK" {
			t.Fatal(got)
		}
	}
}

// TestNoLoopAfterASwitchover: connections of a client's own are to masters only.
func TestNoLoopAfterASwitchover(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t, redistest.Options{Open: true}), redistest.Start(t, redistest.Options{Open: true})
	shard := twoNodes(a.Address, b.Address)
	shard.Nodes[0].InReadSet, shard.Nodes[1].InReadSet = true, true
	p := startProxy(t, reactor.Config{Loops: 1}, shard)
	for _, mode := range []string{"noloop", "bcast noloop"} {
		c := p.dial()
		c.do("HELLO", "3")
		c.want("(nil)", "GET", "nosuch") // over the connections that all share
		before := trackers([]*redistest.Server{a})
		c.want("OK", strings.Fields("CLIENT TRACKING on "+mode)...)
		c.want("(nil)", "GET", "k")
		if n := trackers([]*redistest.Server{a}); n != before+1 {
			t.Fatalf("%d connections of its own", n-before)
		}
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true }))
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[0].Master = false, "b" }))
		c.wantNext("[invalidate (nil)]")
		waitFor(t, "the connection to the replica is gone", func() bool { return trackers([]*redistest.Server{a}) == before })
		c.want("(nil)", "GET", "k")
		b.MustDo("SET", "k", "1")
		c.wantNext("[invalidate [k]]")
		c.want("OK", "CLIENT", "TRACKING", "off")
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true }))
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[0].Master = false, "a" }))
		b.MustDo("DEL", "k")
		c.Close()
	}
}

// TestNoLoopAndMovedSlots: a client that was told to forget what it read over the
// connections that all share is told of what it read over its own since.
func TestNoLoopAndMovedSlots(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c, other := p.dial(), p.dial()
	c.do("HELLO", "3")
	c.want("OK", "CLIENT", "TRACKING", "on")
	c.want("(nil)", "GET", "bar")
	other.want("OK", "FLUSHALL")
	c.wantNext("[invalidate (nil)]")
	c.want("OK", "CLIENT", "TRACKING", "on", "noloop")
	c.want("(nil)", "GET", "bar")
	p.waitAck(p.commit(func(c *routing.Cluster) {
		c.Shards[0].Slots, c.Shards[1].Slots = c.Shards[1].Slots, c.Shards[0].Slots
	}))
	c.wantNext("[invalidate (nil)]")
}

// TestNoLoopAndRESP2: what could not be told in RESP2 is told behind HELLO 3.
func TestNoLoopAndRESP2(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c := p.dial()
	c.do("HELLO", "3")
	before := trackers(servers)
	on := []string{"CLIENT", "TRACKING", "on", "noloop"}
	hello3 := func() {
		t.Helper()
		if got := c.do("HELLO", "3"); !strings.HasPrefix(got, "[server redis") {
			t.Fatal(got)
		}
		c.wantNext("[invalidate (nil)]")
	}
	// It was turned off in between.
	c.want("OK", on...)
	c.want("(nil)", "GET", "k")
	c.want("OK", "CLIENT", "TRACKING", "off")
	c.do("HELLO", "2")
	c.want("OK", on...)
	hello3()
	// NOLOOP was left out.
	c.want("(nil)", "GET", "k")
	c.do("HELLO", "2")
	c.want("OK", "CLIENT", "TRACKING", "on")
	hello3()
	// The connection broke.
	c.want("OK", on...)
	c.want("(nil)", "GET", "k")
	c.do("HELLO", "2")
	now := trackers(servers)
	servers[0].MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	waitFor(t, "it is opened again", func() bool { return trackers(servers) == now && now > before })
	c.want("PONG", "PING")
	hello3()
	c.do("HELLO", "2")
	c.do("HELLO", "3")
	c.want("end", "ECHO", "end")
}

// TestNoLoopAndLargeReplies: a client with connections of its own has few requests in
// flight when replies are large.
func TestNoLoopAndLargeReplies(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 8<<20)
	f := startFake(t, func([]string) string { return "$8388608\r\n" + large + "\r\n" })
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	c := p.dial()
	c.do("HELLO", "3")
	c.want("OK", "CLIENT", "TRACKING", "on", "optin", "noloop")
	c.want(large, "GET", "k")
	f.set(never)
	const more = 20
	c.write(strings.Repeat(encode("GET", "k"), more))
	f.waitGot(3)
	time.Sleep(50 * time.Millisecond)
	if got := f.waitGot(3); len(got) != 3 {
		t.Fatalf("%d requests are in flight: %q", len(got)-1, got)
	}
	for answered := 1; answered < more+1; {
		now := len(f.waitGot(answered + 1))
		f.say(strings.Repeat("$1\r\ny\r\n", now-answered))
		for ; answered < now; answered++ {
			c.wantNext("y")
		}
	}
}

// TestNoLoopInTransactions: connections of a client's own are ended in the moment in
// which they are opened, or their reply comes.
func TestNoLoopInTransactions(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1, MaxPinned: 4}, shards...)
	c, other := p.dial(), p.dial()
	c.do("HELLO", "3")
	c.want("[(nil) (nil)]", "MGET", "bar", "foo")
	waitFor(t, "the connections that all share", func() bool { return trackers(servers) == 4 })
	const (
		on, all, off = "CLIENT TRACKING on noloop", "CLIENT TRACKING on bcast noloop", "CLIENT TRACKING off"
		now          = "CLIENT TRACKING on"
	)
	for range 20 {
		for _, lines := range [][]string{
			{all, off}, {all, off, on}, {all, off, all, off, now}, {"SET bar 1", all, off}, {"GET bar", on, off, all}, {on, "GET bar", now}, {"DBSIZE", all, "DBSIZE", off, "DBSIZE"},
		} {
			c.do("MULTI")
			for _, line := range lines {
				c.want("QUEUED", strings.Fields(line)...)
			}
			c.send("EXEC")
			if got := c.nextReply(); strings.Contains(got, "-") || strings.Count(got, " ") != len(lines)-1 {
				t.Fatalf("%q: %q", lines, got)
			}
			c.send("GET", "bar")
			if got := c.nextReply(); got != "1" && got != "(nil)" {
				t.Fatal(got)
			}
			other.want("OK", "SET", "bar", "1")
			c.send("CLIENT", "TRACKING", "off")
			if got := c.nextReply(); got != "OK" {
				t.Fatal(got)
			}
			waitFor(t, "its connections are gone", func() bool { return trackers(servers) == 4 })
		}
	}
}

// TestNoLoopEndsInALongRequest: the rest of a request that is sent little by little goes
// over the connections that all share when its client is gone.
func TestNoLoopEndsInALongRequest(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1, MaxPinned: 2}, shards...)
	c := p.dial()
	c.do("HELLO", "3")
	c.want("OK", "CLIENT", "TRACKING", "on", "noloop")
	id, admin := c.do("CLIENT", "ID"), p.dial()
	const keys = 200_000
	mset := []string{"MSET"}
	for i := range keys {
		mset = append(mset, fmt.Sprint("k", i), "v")
	}
	c.send(mset...)
	size := func() int64 { return servers[0].MustDo("DBSIZE").(int64) + servers[1].MustDo("DBSIZE").(int64) }
	waitFor(t, "it has begun", func() bool { return size() > 0 })
	admin.want("1", "CLIENT", "KILL", "ID", id)
	if size() == keys {
		t.Log("it had ended already, so nothing was tested")
	}
	waitFor(t, "all of it is executed", func() bool { return size() == keys })
	d := p.dial()
	d.do("HELLO", "3")
	waitFor(t, "there is room again", func() bool { return d.do("CLIENT", "TRACKING", "on", "bcast", "noloop") == "OK" })
}

package reactor_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestReadsThatWereQueuedBeforeMemoryWasShort are executed by EXEC, as Redis
// does; what writes, or was never shown to the server, is not.
func TestReadsThatWereQueuedBeforeMemoryWasShort(t *testing.T) {
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	short := func(limit string) {
		for _, s := range servers {
			s.MustDo("CONFIG", "SET", "maxmemory", limit)
		}
	}
	const because = "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'."
	c.want("OK", "SELECT", "3")
	c.want("OK", "SET", "x", "value")
	c.want("3", "HSET", "{x}h", "a", "1", "b", "2", "c", "3")
	for _, hello := range []string{"2", "3"} {
		c.do("HELLO", hello)
		c.want("OK", "MULTI")
		c.want("QUEUED", "GET", "x")
		c.want("QUEUED", "PING")
		c.want("QUEUED", "HGETALL", "{x}h")
		c.want("QUEUED", "LRANGE", "x", "0", "-1")
		c.want("QUEUED", "GET", "{x}none")
		short("1")
		reply := c.do("EXEC")
		short("0")
		again := []string{"MULTI", "GET x", "PING", "HGETALL {x}h", "LRANGE x 0 -1", "GET {x}none"}
		for _, line := range again {
			c.do(strings.Fields(line)...)
		}
		c.want(reply, "EXEC")
		has(t, "EXEC", reply, "[value PONG ", "WRONGTYPE")
	}
	c.want("value", "GET", "x") // nothing is left of it

	refused := func(why string, queue func()) {
		t.Helper()
		c.want("OK", "MULTI")
		queue()
		short("1")
		if reply := c.do("EXEC"); reply != because {
			t.Errorf("%s: %q", why, reply)
		}
		short("0")
	}
	refused("it writes", func() { c.want("QUEUED", "SET", "x", "1"); c.want("QUEUED", "GET", "x") })
	refused("it is only a delete, but the server must queue it", func() { c.want("QUEUED", "DEL", "x") })
	c.want("value", "GET", "x")

	// A pipeline that comes while memory is short is not for a server to queue.
	short("1")
	c.write(encode("MULTI") + encode("GET", "x") + encode("EXEC"))
	c.wantNext("OK")
	c.wantNext("QUEUED")
	c.wantNext(because)
	short("0")
}

// TestRereadsAreOfOneInstant: others rename a key all the time, and a transaction
// finds it under one of its names, never under both or none.
func TestRereadsAreOfOneInstant(t *testing.T) {
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 2}, shards...)
	c, other := p.dial(), p.dial()
	c.want("OK", "SET", "{t}x", "1")
	stop := make(chan struct{})
	var renames sync.WaitGroup
	renames.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				other.want("OK", "RENAME", "{t}x", "{t}y")
				other.want("OK", "RENAME", "{t}y", "{t}x")
			}
		}
	})
	done := 0
	for range 60 {
		c.want("OK", "MULTI")
		c.want("QUEUED", "EXISTS", "{t}x")
		c.want("QUEUED", "EXISTS", "{t}y")
		servers[0].MustDo("CONFIG", "SET", "maxmemory", "1")
		switch reply := c.do("EXEC"); {
		case reply == "[1 0]" || reply == "[0 1]":
			done++
		case !strings.HasPrefix(reply, "-EXECABORT "):
			t.Errorf("EXEC: %q", reply)
		}
		servers[0].MustDo("CONFIG", "SET", "maxmemory", "0")
	}
	close(stop)
	renames.Wait()
	if done == 0 {
		t.Error("none was read")
	}
	t.Logf("%d of 60 were read", done)
}

// TestARereadIsRepeated as long as others change what it reads, and not for ever.
func TestARereadIsRepeated(t *testing.T) {
	var mu sync.Mutex
	var rehearsed, queued, watched bool
	tries, changes := 0, 2
	f := startFake(t, func(args []string) string {
		mu.Lock()
		defer mu.Unlock()
		switch args[0] {
		case "mUlTI":
			rehearsed = true
		case "dIsCARD":
			rehearsed = false
		case "WATCH":
			watched = true
		case "MULTI":
			queued = !watched
		case "GET":
			switch {
			case rehearsed:
				return "+QUEUED\r\n"
			case queued:
				return "-OOM command not allowed when used memory > 'maxmemory'.\r\n"
			}
			return fmt.Sprintf("+read %d\r\n", tries)
		case "EXEC":
			switch {
			case queued:
				queued = false
				return "-EXECABORT Transaction discarded because of previous errors.\r\n"
			case tries < changes:
				tries++
				return "*-1\r\n"
			}
			watched = false
			return "*0\r\n"
		}
		return "+OK\r\n"
	})
	p := startProxy(t, reactor.Config{}, one(0, 1, f.ln.Addr().String()))
	c := p.dial()
	transact := func(want string) {
		t.Helper()
		c.want("OK", "MULTI")
		c.want("QUEUED", "GET", "x")
		c.want(want, "EXEC")
	}
	transact("[read 2]")
	mu.Lock()
	tries, changes, watched = 0, 1000, false
	mu.Unlock()
	transact("-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.")
	mu.Lock()
	defer mu.Unlock()
	if tries != 8 {
		t.Errorf("it was read %d times", tries)
	}
}

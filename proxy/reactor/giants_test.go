package reactor_test

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// serveOthers has two clients read a key that is not there, again and again, until
// the function is called that it returns.
func (p *proxy) serveOthers(key string) (end func()) {
	stop := make(chan struct{})
	var others sync.WaitGroup
	for range 2 {
		c := p.dial()
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
					c.want("(nil)", "GET", key)
				}
			}
		})
	}
	return func() {
		close(stop)
		others.Wait()
	}
}

// TestGiantsBesideOthers: what rests goes on, whatever happens meanwhile.
func TestGiantsBesideOthers(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	defer p.serveOthers("nothing")()
	const size = 12 << 20
	value := strings.Repeat("0123456789abcdef", size/16)
	c := p.dial()
	for range 2 {
		c.want("OK", "SET", "giant", value)
		if got := c.do("GET", "giant"); got != value {
			t.Fatalf("another value, of %d bytes", len(got))
		}
	}
	// An epoch that must wait for a giant, with other credentials for all that follows.
	c.send("GET", "giant")
	begin := make([]byte, size/3)
	if _, err := io.ReadFull(c.r, begin); err != nil {
		t.Fatal(err)
	}
	epoch := p.commit(func(c *routing.Cluster) { c.Shards[0].Generation++; c.Shards[1].Generation++ })
	rest := make([]byte, len("$12582912\r\n")+size+2-len(begin))
	if _, err := io.ReadFull(c.r, rest); err != nil {
		t.Fatal(err)
	}
	if got := string(begin) + string(rest); got != "$12582912\r\n"+value+"\r\n" {
		t.Fatal("another value")
	}
	p.waitAck(epoch)
	// Clients that leave in the midst of one.
	d := p.dial()
	d.send("GET", "giant")
	if _, err := io.ReadFull(d.r, begin); err != nil {
		t.Fatal(err)
	}
	_ = d.Close()
	e := p.dial()
	request := encode("SET", "giant", value)
	if _, err := e.Write([]byte(request[:len(request)/2])); err != nil {
		t.Fatal(err)
	}
	_ = e.Close()
	c.want("OK", "SET", "giant", "1")
	c.want("1", "GET", "giant")
	waitFor(t, "memory is given back", func() bool { return p.Stats().MemoryBytes < 4<<20 })
	// Alone again, and several at once.
	var giants sync.WaitGroup
	for _, key := range []string{"a", "b", "c"} {
		c := p.dial()
		giants.Go(func() {
			c.want("OK", "SET", key, value)
			if got := c.do("GET", key); got != value {
				t.Errorf("%s: another value, of %d bytes", key, len(got))
			}
		})
	}
	begun := time.Now()
	giants.Wait()
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("three giants took %v", took)
	}
}

// TestHungWhileGiantsRest: a server that stops in the midst of a giant is seen to
// hang, and when it goes on, so does the giant.
func TestHungWhileGiantsRest(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1, NodeTimeout: 300 * time.Millisecond}, shards...)
	defer p.serveOthers("foo")() // in the second shard
	value := strings.Repeat("0123456789abcdef", 32<<20/16)
	key := "{bar}giant" // in the first
	c := p.dial()
	s := servers[0]
	p.waitSight("shard-0-0", reactor.SightOK)
	s.Pause()
	defer s.Resume()
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.send("SET", key, value)
	}()
	p.waitSight("shard-0-0", reactor.SightTimeout)
	s.Resume()
	<-written
	c.wantNext("OK")
	c.send("GET", key)
	got := make([]byte, len("$33554432\r\n")+len(value)+2)
	if _, err := io.ReadFull(c.r, got[:6<<20]); err != nil {
		t.Fatal(err)
	}
	p.waitSight("shard-0-0", reactor.SightOK)
	s.Pause()
	p.waitSight("shard-0-0", reactor.SightTimeout)
	s.Resume()
	if _, err := io.ReadFull(c.r, got[6<<20:]); err != nil {
		t.Fatal(err)
	}
	if string(got) != "$33554432\r\n"+value+"\r\n" {
		t.Fatal("another value")
	}
	p.waitSight("shard-0-0", reactor.SightOK)
}

// TestBulkBehindGiants: what is large but no giant, and takes the same connection as
// one, comes through in order.
func TestBulkBehindGiants(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	defer p.serveOthers("nothing")()
	giant := strings.Repeat("0123456789abcdef", 16<<20/16)
	var clients sync.WaitGroup
	for _, key := range []string{"a", "b"} {
		c := p.dial()
		clients.Go(func() {
			for range 2 {
				c.want("OK", "SET", key, giant)
				if got := c.do("GET", key); got != giant {
					t.Errorf("%s: another value, of %d bytes", key, len(got))
				}
			}
		})
	}
	for _, key := range []string{"x", "y", "z"} {
		c := p.dial()
		clients.Go(func() {
			for i := range 30 {
				value := strings.Repeat(key, 70_000+i)
				c.send("SET", key, value)
				c.send("GET", key)
				c.wantNext("OK")
				if got := c.read(); got != value {
					t.Errorf("%s: another value, of %d bytes", key, len(got))
				}
			}
		})
	}
	clients.Wait()
}

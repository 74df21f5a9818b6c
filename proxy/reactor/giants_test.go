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

// TestGiantsBesideOthers: what rests goes on, whatever happens meanwhile.
func TestGiantsBesideOthers(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	stop := make(chan struct{})
	var others sync.WaitGroup
	defer others.Wait()
	defer close(stop)
	for range 2 {
		c := p.dial()
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
					c.want("(nil)", "GET", "nothing")
				}
			}
		})
	}
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

package reactor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// TestARequestStaysWithItsShard: one that was sent by a table in which its shard
// had another place, and is sent again because the connection broke, goes to no
// other shard.
func TestARequestStaysWithItsShard(t *testing.T) {
	var shards []routing.Shard
	var fakes []*fake
	for i := range 3 {
		f := startFake(t, never)
		fakes, shards = append(fakes, f), append(shards, one(i, 3, f.ln.Addr().String()))
	}
	p := startProxy(t, reactor.Config{Loops: 1, HoldTimeout: 500 * time.Millisecond}, shards...)
	c := p.dial()
	c.send("INFO", "shard-1", "server")
	fakes[1].waitGot(1)
	p.commit(func(c *routing.Cluster) { // shard-1 is the first now
		c.Shards = append([]routing.Shard(nil), c.Shards[1:]...)
		c.Shards[0].Slots = slot.Range(0, slot.Count*2/3-1)
		c.Shards[1].Slots = slot.Range(slot.Count*2/3, slot.Count-1)
	})
	fakes[1].ln.Close()
	fakes[1].cut()
	for deadline := time.Now().Add(5 * time.Second); p.Stats().Held != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not held")
		}
	}
	p.commit(func(*routing.Cluster) {})
	has(t, "INFO of a shard without a master", c.read(), "-CLUSTERDOWN no ")
	for i, f := range fakes {
		f.mu.Lock()
		if got := strings.Join(f.got, ", "); i != 1 && got != "" {
			t.Errorf("shard-%d got %s", i, got)
		}
		f.mu.Unlock()
	}
}

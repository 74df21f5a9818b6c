package reactor_test

import (
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestNoAllocations: in steady state a command allocates nothing, whatever its
// shard and its place in the pipeline.
func TestNoAllocations(t *testing.T) {
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 1, SlowLogThreshold: -1}, shards...)
	c := p.dial()
	value := strings.Repeat("v", 64)
	var raw strings.Builder
	replies := 0
	for _, k := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		raw.WriteString(encode("SET", k, value) + encode("GET", k))
		replies += len("+OK\r\n") + len("$64\r\n") + 64 + 2
	}
	request, reply := []byte(raw.String()), make([]byte, replies)
	round := func() {
		if _, err := c.Conn.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.Conn, reply); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		round() // fills the pools
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds = 2000
	for range rounds {
		round()
	}
	runtime.ReadMemStats(&after)
	// The test itself and timers allocate a little.
	if n := float64(after.Mallocs-before.Mallocs) / (rounds * 16); n > 0.02 {
		t.Errorf("%.3f allocations per command", n)
	}
}

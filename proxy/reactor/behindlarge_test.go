package reactor_test

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// TestBehindLarge: what a client sends behind something large is not executed at
// another shard before it, however it is sent: a job that is announced behind its
// payload is found by whoever sees it.
func TestBehindLarge(t *testing.T) {
	t.Parallel()
	var executed atomic.Bool
	var early atomic.Pointer[string]
	payloads := startFake(t, func(args []string) string {
		last := strings.Join(args, " ")
		if len(last) > 64<<10 {
			time.Sleep(30 * time.Millisecond)
			executed.Store(true)
		}
		switch strings.ToUpper(args[0]) {
		case "MULTI":
			return "+OK\r\n"
		case "EXEC":
			return "*1\r\n+OK\r\n"
		}
		if len(last) > 64<<10 && strings.HasPrefix(last, "APPEND") {
			return "+QUEUED\r\n"
		}
		return "+OK\r\n"
	})
	jobs := startFake(t, func(args []string) string {
		if text := strings.Join(args, " "); !executed.Load() && !strings.HasPrefix(text, "MSET") { // MSET is a part of the large one
			early.CompareAndSwap(nil, &text)
		}
		switch strings.ToUpper(args[0]) {
		case "MULTI":
			return "+OK\r\n"
		case "EXEC":
			return "*1\r\n:1\r\n"
		case "LPUSH", "PUBLISH", "SPUBLISH", "EVAL", "DEL":
			return ":1\r\n"
		}
		return "+OK\r\n"
	})
	shards := []routing.Shard{one(0, 2, jobs.ln.Addr().String()), one(1, 2, payloads.ln.Addr().String())}
	job, payload := keyIn(0, 2), keyIn(1, 2)
	value := strings.Repeat("v", 300_000)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c := p.dial()
	c.want("OK", "SET", payload, "warm")
	c.want("1", "LPUSH", job, "warm")
	for _, large := range []struct {
		name    string
		raw     string
		replies int
	}{
		{"SET", encode("SET", payload, value), 1},
		{"MSET over shards", encode("MSET", payload, value, job, "x"), 1},
		{"transaction", encode("MULTI") + encode("APPEND", payload, value) + encode("EXEC"), 3},
	} {
		for name, behind := range map[string]struct {
			raw     string
			replies int
		}{
			"a push":                  {encode("LPUSH", job, "1"), 1},
			"a message":               {encode("PUBLISH", "news", "1"), 1},
			"a message of a shard":    {encode("SPUBLISH", job, "1"), 1},
			"a script":                {encode("EVAL", "return 1", "1", job), 1},
			"a transaction":           {encode("MULTI") + encode("LPUSH", job, "1") + encode("EXEC"), 3},
			"a published transaction": {encode("MULTI") + encode("PUBLISH", "news", "1") + encode("EXEC"), 3},
			"many":                    {strings.Repeat(encode("LPUSH", job, "1"), 100), 100},
		} {
			executed.Store(false)
			early.Store(nil)
			c.write(large.raw + behind.raw)
			for i := range large.replies + behind.replies {
				if got := c.read(); strings.HasPrefix(got, "-") {
					t.Errorf("%s, %s: reply %d: %s", large.name, name, i, got)
				}
			}
			if text := early.Load(); text != nil {
				t.Errorf("%s behind %s was early: %.50s", name, large.name, *text)
			}
		}
	}
	// What is for the same shard does not wait for replies.
	payloads.set(never)
	before := len(payloads.waitGot(0))
	c.write(encode("SET", payload, value) + encode("SET", payload, "small"))
	payloads.waitGot(before + 2)
}

// keyIn is a key of shard i of n.
func keyIn(i, n int) string {
	for k := 0; ; k++ {
		if key := "k" + strconv.Itoa(k); int(slot.Of([]byte(key)))*n/slot.Count == i {
			return key
		}
	}
}

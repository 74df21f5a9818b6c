package reactor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestBusyWithAScript: while a script takes too long, other clients get the server's
// BUSY, whatever loop they are at, and EXEC is refused with it; what needs another
// shard, or none, is answered if there is another; and all goes on when the
// script was killed.
func TestBusyWithAScript(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2} {
		shards, servers := realShards(t, n)
		for _, s := range servers {
			s.MustDo("CONFIG", "SET", "busy-reply-threshold", "10")
		}
		p := startProxy(t, reactor.Config{Loops: 2}, shards...)
		begun, dirty := p.dial(), p.dial()
		for _, c := range []*client{begun, dirty} {
			c.want("OK", "MULTI")
			c.want("QUEUED", "INCR", "a") // of the last shard
		}
		script := p.dial()
		script.send("EVAL", "while true do end", "1", "a")
		const busy = "BUSY Redis is busy running a script."
		// Whoever asks before it is noticed waits behind the script, or is answered by
		// the server; PING is refused by a loop that knows, if there is one shard only.
		probe := []string{"PING"}
		if n > 1 {
			probe = []string{"GET", "a"}
		}
		waitFor(t, "every loop knows", func() bool {
			told := true
			var askers [4]*client // more than there are loops, which get them in turn
			for i := range askers {
				askers[i] = p.dial()
				defer askers[i].Close()
				askers[i].send(probe...)
			}
			for _, c := range askers {
				_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				told = strings.HasPrefix(c.read(), "-"+busy) && told
			}
			return told
		})
		for range 4 {
			c := p.dial()
			local, elsewhere := "PONG", "(nil)"
			if n == 1 {
				local, elsewhere = "-"+busy, "-"+busy
			}
			for _, step := range [][]string{{"-" + busy, "GET", "a"}, {"-" + busy, "SET", "a", "1"}, {"-" + busy, "DBSIZE"}, {elsewhere, "GET", "b"}, {local, "PING"}} {
				if got := c.do(step[1:]...); !strings.HasPrefix(got, step[0]) {
					t.Fatalf("%d shards: %q: %q, want %q", n, step[1:], got, step[0])
				}
			}
		}
		if got := dirty.do("INCR", "a"); !strings.HasPrefix(got, "-"+busy) {
			t.Fatalf("queued while busy: %q", got)
		}
		if got := begun.do("EXEC"); !strings.HasPrefix(got, "-EXECABORT Transaction discarded because of: "+busy) {
			t.Fatalf("EXEC while busy: %q", got)
		}
		p.dial().want("OK", "SCRIPT", "KILL")
		if got := script.read(); !strings.Contains(got, "killed by user") {
			t.Fatalf("killed: %q", got)
		}
		deadline := time.Now().Add(patience)
		for c := p.dial(); c.do("GET", "a") != "(nil)" || c.do("PING") != "PONG"; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d shards: still busy", n)
			}
		}
		dirty.want("-EXECABORT Transaction discarded because of previous errors.", "EXEC")
		begun.want("1", "INCR", "a")
	}
}

package reactor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// A server that is silent is told of with the command that may keep it busy, if there
// is one: not with those that are quick, nor with one that was sent when the server
// had been silent already.
func TestTellsWhatASilentServerIsBehind(t *testing.T) {
	t.Parallel()
	sorted := []string{"SORT", "l", "ALPHA"}
	for _, tc := range []struct {
		name   string
		silent func(p *proxy, c *client) // the server is stopped
		want   string
	}{
		{"reads and writes", func(_ *proxy, c *client) {
			c.pipeline([]string{"GET", "k"}, []string{"SET", "k", "v"}, []string{"LRANGE", "l", "0", "10"})
		}, ""},
		{"SORT", func(_ *proxy, c *client) { c.send(sorted...) }, "sort"},
		{"a read that the server had got with it", func(_ *proxy, c *client) { c.pipeline([]string{"GET", "k"}, sorted) }, "sort"},
		{"a script", func(_ *proxy, c *client) { c.send("EVAL", "return 1", "0") }, "eval"},
		{"DEL, which is split", func(_ *proxy, c *client) { c.send("DEL", "k") }, "del"},
		{"KEYS, which goes to all shards", func(_ *proxy, c *client) { c.send("KEYS", "*") }, "keys"},
		{"a transaction", func(_ *proxy, c *client) {
			c.pipeline([]string{"MULTI"}, []string{"LLEN", "l"}, sorted, []string{"EXEC"})
		}, "sort"},
		{"a large value", func(_ *proxy, c *client) { c.send("SADD", "k", string(make([]byte, 2<<20))) }, "sadd"},
		{"the clients left", func(_ *proxy, c *client) {
			c.send(sorted...)
			time.Sleep(100 * time.Millisecond)
			_ = c.Close()
		}, "sort"},
		{"what came too late", func(p *proxy, c *client) {
			c.send("GET", "k")
			time.Sleep(600 * time.Millisecond)
			p.dial().send(sorted...)
			p.dial().send("KEYS", "*")
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			shards, servers := realShards(t, 1)
			p := startProxy(t, reactor.Config{Loops: 2, NodeTimeout: 400 * time.Millisecond}, shards...)
			p.dial().do("RPUSH", "l", "a", "b")
			c := p.dial()
			c.do("GET", "k")
			servers[0].Pause()
			tc.silent(p, c)
			time.Sleep(1500 * time.Millisecond)
			p.waitSight("shard-0-0", reactor.SightTimeout)
			p.mu.Lock()
			got := p.behind["shard-0-0"]
			p.mu.Unlock()
			if got.Command != tc.want || tc.want != "" && (got.Since < 300*time.Millisecond || got.Since > 5*time.Second) {
				t.Errorf("behind %+v, want %q", got, tc.want)
			}
			servers[0].Resume()
			p.wait("well again, behind nothing", func() bool {
				list := p.sights["shard-0-0"]
				return list[len(list)-1] == reactor.SightOK && p.behind["shard-0-0"].Command == ""
			})
		})
	}
}

// What has been quick so often explains no silence.
func TestWhatIsUsuallyQuickKeepsNoServerBusy(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1, NodeTimeout: 400 * time.Millisecond}, shards...)
	c := p.dial()
	c.do("RPUSH", "l", "a", "b")
	for range 12 {
		var batch [][]string
		for range 100 {
			batch = append(batch, []string{"LRANGE", "l", "0", "-1"})
		}
		c.pipeline(batch...)
		for range batch {
			c.read()
		}
	}
	for _, tc := range []struct{ command, want string }{{"LRANGE", ""}, {"ZRANGE", "zrange"}} {
		c.do("GET", "k")
		servers[0].Pause()
		c.pipeline([]string{"GET", "k"}, []string{tc.command, "l", "0", "-1"})
		time.Sleep(1200 * time.Millisecond)
		p.waitSight("shard-0-0", reactor.SightTimeout)
		p.mu.Lock()
		got := p.behind["shard-0-0"]
		p.mu.Unlock()
		if got.Command != tc.want {
			t.Errorf("behind %+v, want %q", got, tc.want)
		}
		servers[0].Resume()
		c.read()
		c.read()
		p.waitSight("shard-0-0", reactor.SightOK)
	}
}

// pipeline sends requests in one write.
func (c *client) pipeline(requests ...[]string) {
	c.t.Helper()
	var raw strings.Builder
	for _, r := range requests {
		raw.WriteString(encode(r...))
	}
	c.write(raw.String())
}

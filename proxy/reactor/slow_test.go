package reactor_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
)

// slowEntries asks for the slow log and returns, of each entry, the command, the
// node and the name of the client, "command @node name".
func slowEntries(t *testing.T, c *client, args ...string) (entries []string) {
	t.Helper()
	reply := c.do(append([]string{"SLOWLOG", "GET"}, args...)...)
	for _, e := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(reply, "[["), "]]"), "] [") {
		if e == "[]" {
			continue
		}
		// 123 1500000000 20 [GET k] shard-0-0/127.0.0.1:5 name
		_, rest, ok := strings.Cut(e, "[")
		command, rest, also := strings.Cut(rest, "] ")
		where, name, _ := strings.Cut(rest, " ")
		node, address, third := strings.Cut(where, "/")
		if !ok || !also || !third || !strings.HasPrefix(address, "127.0.0.1:") {
			t.Fatalf("entry %q", e)
		}
		entries = append(entries, strings.TrimSpace(command+" @"+node+" "+name))
	}
	return entries
}

// TestSlowLogTellsTheClient: an entry has the client's name and address, and the
// node; what the proxy answers is logged, and nothing is that Basalt asked for.
func TestSlowLogTellsTheClient(t *testing.T) {
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 2, ConfigSet: func(dst []byte, args [][]byte) []byte {
		for _, s := range servers {
			s.MustDo("CONFIG", "SET", string(args[2]), string(args[3]))
		}
		return append(dst, "+OK\r\n"...)
	}}, shards...)
	c, other := p.dial(), p.dial()
	node := func(key string) string { return shards[p.Table().Owner[slot.Of([]byte(key))]].Nodes[0].ID }
	c.want("OK", "CLIENT", "SETNAME", "me")
	c.want("OK", "CONFIG", "SET", "slowlog-log-slower-than", "0")
	c.want("OK", "SLOWLOG", "RESET")
	c.want("OK", "SET", "k", "v")
	other.want("v", "GET", "k")
	c.want("PONG", "PING")
	c.want("OK", "CONFIG", "SET", "masterauth", "secret")
	c.want("1", "DEL", "k")
	c.want("1", "LPUSH", "l", strings.Repeat("x", 200))
	c.want("OK", "MULTI")
	c.want("QUEUED", "INCR", "n")
	c.want("[1]", "EXEC")
	c.want("OK", "CONFIG", "SET", "slowlog-log-slower-than", "-1")
	c.want("PONG", "PING")
	want := []string{
		"INCR n @" + node("n") + " me", "MULTI @proxy me", "LPUSH l " + strings.Repeat("x", 128) + "... (72 more bytes) @" + node("l") + " me",
		"DEL k @" + node("k") + " me", "CONFIG SET masterauth (redacted) @proxy me", "PING @proxy me", "GET k @" + node("k"),
		"SET k v @" + node("k") + " me", "SLOWLOG RESET @proxy me",
	}
	if got := slowEntries(t, c, "-1"); !slices.Equal(got, want) {
		t.Errorf("the slow log is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	c.want("9", "SLOWLOG", "LEN")
	c.want("OK", "CONFIG", "SET", "slowlog-max-len", "3")
	c.want("3", "SLOWLOG", "LEN")
	if got := slowEntries(t, c, "-1"); !slices.Equal(got, want[:3]) {
		t.Errorf("with slowlog-max-len 3 the slow log is %q", got)
	}
	c.want("OK", "SLOWLOG", "RESET")
	c.want("0", "SLOWLOG", "LEN")

	// A RESET in a transaction clears what came before it.
	c.want("OK", "CONFIG", "SET", "slowlog-log-slower-than", "0")
	c.want("OK", "SET", "k", "v")
	c.want("OK", "MULTI")
	c.want("QUEUED", "SLOWLOG", "RESET")
	c.want("QUEUED", "GET", "k")
	c.want("[OK v]", "EXEC")
	c.want("OK", "CONFIG", "SET", "slowlog-log-slower-than", "-1")
	if got := strings.Join(slowEntries(t, c), "|"); !strings.Contains(got, "GET k @") || strings.Contains(got, "SET k v") {
		t.Errorf("after a RESET in a transaction: %s", got)
	}

	// Servers may have been told of another threshold elsewhere; who asks learns of it.
	for _, s := range servers {
		s.MustDo("CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "128")
	}
	c.do("SLOWLOG", "GET")
	c.want("PONG", "PING", "PONG")
	if got := slowEntries(t, c, "1"); len(got) != 1 || got[0] != "PING PONG @proxy me" {
		t.Errorf("after a change elsewhere: %q", got)
	}
}

package reactor_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

var monitorStamp = regexp.MustCompile(`^[0-9]+\.[0-9]{6} `)

// shown reads lines of MONITOR until each word was in one; without the time.
func (c *client) shown(until ...string) (lines []string) {
	c.t.Helper()
	for {
		line := c.read()
		if !monitorStamp.MatchString(line) {
			c.t.Fatalf("not a line of MONITOR: %q, after %q", line, lines)
		}
		lines = append(lines, monitorStamp.ReplaceAllString(line, ""))
		until = slices.DeleteFunc(until, func(word string) bool { return strings.Contains(line, word) })
		if len(until) == 0 {
			return lines
		}
	}
}

// monitored tells how many connections of a server monitor it.
func monitored(s *redistest.Server) int {
	return strings.Count(fmt.Sprint(s.MustDo("CLIENT", "LIST")), " flags=O ")
}

// TestMonitorAsAtAServer: the same commands are shown as by a single server,
// whether a server answers them or the proxy.
func TestMonitorAsAtAServer(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Open: true})
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 2}, shards...)
	address := regexp.MustCompile(`^\[(\d+) (?:\S+:\d+|(lua))\]`)
	var seen [2][]string
	for i, at := range []string{plain.Address, p.address} {
		m, c := dial(t, at), dial(t, at)
		m.want("OK", "MONITOR")
		for _, line := range []string{
			"SET k v", "GET k", "get nosuch", "NOSUCH", "GET", "SET k q\"\\\x01\n\xff", "PING", "PING hello", "ECHO x", "TIME", "CLIENT ID",
			"CLIENT SETNAME me", "CLIENT LIST", "CLIENT KILL ID 999999", "CLIENT NO-EVICT ON", "CONFIG GET port", "COMMAND COUNT", "AUTH x", "AUTH a b",
			"HELLO 3 AUTH nosuch secret SETNAME x", "HELLO 2", "SELECT 0", "SELECT 1", "SET k 1", "SELECT 0", "READONLY", "WATCH k", "UNWATCH",
			"MULTI", "SET k 1", "INCR k", "PING", "EXEC", "MULTI", "SET k 1", "DISCARD", "MULTI", "NOSUCH", "EXEC", "MULTI", "EXEC",
			"multi", "set k 1", "exec", "Multi", "get k", "discard", "multi", "nosuch", "Exec",
			"WATCH k", "MULTI", "GET k", "EXEC", "EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 k v", "PUBLISH a b", "SUBSCRIBE a", "RESET", "DBSIZE", "ECHO end",
		} {
			c.send(strings.Fields(line)...)
			c.read()
		}
		for _, line := range m.shown(`"DBSIZE"`, `"ECHO" "end"`) { // of the server, and of the proxy
			seen[i] = append(seen[i], address.ReplaceAllString(line, "[$1 $2]"))
		}
		m.want("RESET", "RESET")
		m.want("PONG", "PING")
	}
	// Lines of the server and of the proxy are merged as they come.
	for i := range seen {
		slices.Sort(seen[i])
	}
	if !slices.Equal(seen[0], seen[1]) {
		t.Errorf("server:\n%s\nproxy:\n%s", strings.Join(seen[0], "\n"), strings.Join(seen[1], "\n"))
	}
	waitFor(t, "the connection for MONITOR is closed", func() bool { return monitored(servers[0]) == 0 })
}

// TestMonitorState: what a monitoring client may do, and how it ends.
func TestMonitorState(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Open: true})
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	var seen [2][]string
	for i, at := range []string{plain.Address, p.address} {
		m := dial(t, at)
		for _, line := range []string{
			"MONITOR", "GET k", "SET k v", "MULTI", "GET k", "EXEC", "PUBLISH a b", "PFCOUNT k", "NOSUCH", "RESET",
			"MULTI", "MONITOR", "EXEC", "PING", "MONITOR x", "MONITOR", "SUBSCRIBE a", "CLIENT INFO", "MONITOR", "QUIT",
		} {
			m.send(strings.Fields(line)...)
			reply := m.read()
			for monitorStamp.MatchString(reply) {
				reply = m.read()
			}
			seen[i] = append(seen[i], line+": "+reply)
		}
	}
	if !slices.Equal(seen[0], seen[1]) {
		t.Errorf("server:\n%s\nproxy:\n%s", strings.Join(seen[0], "\n"), strings.Join(seen[1], "\n"))
	}
	m := p.dial()
	m.write(encode("PING") + encode("MONITOR") + encode("MONITOR") + encode("CLIENT", "REPLY", "SKIP") + encode("MONITOR") + encode("ECHO", "x"))
	for _, want := range []string{"PONG", "OK"} {
		m.wantNext(want)
	}
	for {
		if line := m.read(); line == "x" {
			break
		} else if !strings.Contains(line, `"CLIENT" "REPLY" "SKIP"`) {
			t.Fatalf("a second MONITOR is answered: %q", line)
		}
	}
}

// TestMonitorOfAllShards: the commands at every shard, through every loop and
// every proxy, and nothing that proxies do for themselves.
func TestMonitorOfAllShards(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 2}, shards...)
	q := startProxy(t, reactor.Config{Loops: 2}, shards...)
	monitors := []*client{p.dial(), p.dial(), q.dial()}
	for _, m := range monitors {
		m.want("OK", "MONITOR")
	}
	for i, s := range servers {
		if n := monitored(s); n < 2 || n > 3 {
			t.Errorf("server %d has %d monitoring connections for 3 clients of 2 proxies", i, n)
		}
	}
	var want []string
	clients := []*client{p.dial(), p.dial(), q.dial(), q.dial()}
	for i := range 40 {
		key := fmt.Sprint("key-", i)
		clients[i%4].want("OK", "SET", key, "v")
		want = append(want, fmt.Sprintf("%q %q %q", "SET", key, "v"))
	}
	// New connections, of watching and of subscribing clients.
	clients[0].want("OK", "WATCH", "key-1")
	clients[1].send("SUBSCRIBE", "ch")
	clients[1].read()
	clients[2].want("0", "DEL", "last")
	want = append(want, `"WATCH" "key-1"`)
	time.Sleep(1200 * time.Millisecond) // signs of life
	for _, s := range servers {
		s.MustDo("PING") // as an admin
	}
	for range 3 {
		for _, k := range []string{"a", "b", "c", "d", "e", "f"} {
			clients[3].want("0", "EXISTS", k)
		}
	}
	clients[3].want("0", "DEL", "end")
	for i, m := range monitors {
		var got []string
		for {
			line := m.read()
			if strings.Contains(line, `"DEL" "end"`) {
				break
			}
			_, command, _ := strings.Cut(line, "] ")
			if !strings.Contains(command, `"EXISTS"`) && !strings.Contains(command, `"DEL" "last"`) && !strings.Contains(command, `"SUBSCRIBE"`) {
				got = append(got, command)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("monitor %d: shown\n%s\nwant\n%s", i, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestMonitorFollowsTheMasters: through a new master and a connection that broke.
func TestMonitorFollowsTheMasters(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	next := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{}, shards...)
	m, c := p.dial(), p.dial()
	m.want("OK", "MONITOR")
	appears := func(what string) {
		t.Helper()
		key := ""
		for i := range 100 { // a key of shard 0
			if k := fmt.Sprint(what, i); p.Table().Owner[slot.Of([]byte(k))] == 0 {
				key = k
				break
			}
		}
		waitFor(t, what, func() bool {
			c.do("SET", key, "v")
			_ = m.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			line, err := m.reply()
			_ = m.SetReadDeadline(time.Now().Add(30 * time.Second))
			return err == nil && strings.Contains(line, key)
		})
	}
	appears("at first")
	epoch := p.commit(func(c *routing.Cluster) {
		c.Shards[0].Nodes = append(c.Shards[0].Nodes, routing.Node{ID: "next", Address: next.Address})
		c.Shards[0].Master = "next"
	})
	p.waitAck(epoch)
	appears("at the new master")
	waitFor(t, "the old master is left alone", func() bool { return monitored(servers[0]) == 0 })
	next.MustDo("CLIENT", "KILL", "TYPE", "normal")
	appears("after a broken connection")
}

// TestMonitorWithoutMaster: MONITOR waits, and then says so.
func TestMonitorWithoutMaster(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	shards[1].Master = ""
	p := startProxy(t, reactor.Config{HoldTimeout: 300 * time.Millisecond}, shards...)
	m, gone := p.dial(), p.dial()
	gone.send("MONITOR")
	time.Sleep(20 * time.Millisecond)
	_ = gone.Close()
	began := time.Now()
	m.want("OK", "MONITOR") // of the shard that is there
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("it did not wait for the other shard: %s", took)
	}
	p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" })
	m.want("PONG", "PING")
	late := p.dial()
	late.want("-CLUSTERDOWN no master can be monitored; retry later", "MONITOR")
	late.want("PONG", "PING")
	waiting := p.dial()
	waiting.send("MONITOR")
	p.commit(func(c *routing.Cluster) {
		c.Shards[0].Master, c.Shards[1].Master = "shard-0-0", "shard-1-0"
	})
	waiting.wantNext("OK")
}

// TestSlowMonitor: one that does not read its lines is closed, others go on.
func TestSlowMonitor(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{ClientPubSubBufferBytes: 256 << 10}, shards...)
	slow, good, c := p.dial(), p.dial(), p.dial()
	slow.want("OK", "MONITOR")
	good.want("OK", "MONITOR")
	value := strings.Repeat("v", 100_000)
	waitFor(t, "the slow one is closed", func() bool {
		c.want("OK", "SET", "k", value)
		good.shown(`"k"`)
		return p.Stats().ClientsTooSlow == 1
	})
	good.want("RESET", "RESET")
}

// TestLongLineIsCut: a line is never longer than its bound.
func TestLongLineIsCut(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	m, c := p.dial(), p.dial()
	m.want("OK", "MONITOR")
	value := strings.Repeat("v", 3<<20)
	c.want("OK", "SET", "k", value)
	c.want(value, "ECHO", value)
	c.want("1", "DEL", "k")
	for _, want := range []string{`"SET" "k" "vvv`, `"ECHO" "vvv`, `"DEL"`} {
		line := m.read()
		if !strings.Contains(line[:min(len(line), 100)], want) || len(line) > 1<<20+200 {
			t.Errorf("%d bytes, beginning with %.100s", len(line), line)
		}
	}
}

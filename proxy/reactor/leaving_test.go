package reactor_test

import (
	"fmt"
	"net"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// What clients sent to a shard that is away is not executed any more when they are
// gone by the time it is back: closed, reset, or half closed first and then closed.
// Those that closed only the half by which they send get their replies, whole.
func TestWhatNobodyWaitsForIsNotExecuted(t *testing.T) {
	t.Parallel()
	for _, away := range []string{"frozen", "without a master"} {
		t.Run(away, func(t *testing.T) {
			t.Parallel()
			shards, servers := realShards(t, 2)
			p := startProxy(t, reactor.Config{}, shards...)
			watcher := p.dial()
			watcher.want("OK", "WATCH", "bar")
			watcher.want("OK", "MULTI")
			watcher.want("QUEUED", "SADD", "{bar}l", "watcher")
			half := p.dial()
			half.want("0", "EXISTS", "none{bar}")
			p.waitAck(p.commit(func(c *routing.Cluster) {
				if c.Shards[0].Frozen = true; away != "frozen" {
					c.Shards[0].Master, c.Shards[0].Frozen = "", false
				}
			}))
			closeSend := func(c *client) {
				if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			add := func(c *client, name string) { c.send("SADD", "{bar}l", name) }

			for name, leave := range map[string]func(c *client){
				"closed":                  func(c *client) { _ = c.Close() },
				"closed behind a read":    func(c *client) { c.send("GET", "bar"); c.send("GET", "foo"); _ = c.Close() },
				"reset":                   func(c *client) { _ = c.Conn.(*net.TCPConn).SetLinger(0); _ = c.Close() },
				"half closed, then whole": func(c *client) { closeSend(c); time.Sleep(200 * time.Millisecond); _ = c.Close() },
			} {
				c := p.dial()
				add(c, name)
				if strings.HasPrefix(name, "closed behind") {
					c.send("MSET", "{bar}m", name, "foo", name)
				}
				time.Sleep(50 * time.Millisecond)
				leave(c)

			}
			if away == "frozen" { // else WATCH is lost with the master
				watcher.send("EXEC")
				time.Sleep(50 * time.Millisecond)
				_ = watcher.Close()
			}
			stays := p.dial()
			add(stays, "stays")
			half.send("PING")
			add(half, "half")
			half.send("GET", "none{foo}")
			half.send("SCARD", "{bar}l")
			closeSend(half)
			time.Sleep(300 * time.Millisecond)
			p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[0].Master = false, "shard-0-0" })
			stays.wantNext("1")
			for _, want := range []string{"PONG", "1", "(nil)"} {
				half.wantNext(want)
			}
			if n := half.read(); n != "1" && n != "2" {
				t.Errorf("SCARD: %s", n)
			}
			if rest, err := half.reply(); err == nil {
				t.Errorf("the half closed client got %q too much", rest)
			}
			members := fmt.Sprint(servers[0].MustDo("SMEMBERS", "{bar}l"))
			got := strings.Fields(strings.Trim(members, "[]"))
			sort.Strings(got)
			if strings.Join(got, " ") != "half stays" {
				t.Errorf("executed: %s", members)
			}
			if v := servers[0].MustDo("EXISTS", "{bar}m"); fmt.Sprint(v) != "0" {
				t.Error("the part of MSET was executed")
			}
		})
	}
}

// A worker that had an element, blocks again and leaves takes none along.
func TestABlockedClientThatWasServedBeforeLeaves(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	producer := p.dial()
	worker := p.dial()
	worker.send("BLPOP", "q", "0")
	waitFor(t, "blocked", func() bool { return servers[0].Info("blocked_clients") == "1" })
	producer.want("1", "RPUSH", "q", "first")
	worker.wantNext("[q first]")
	worker.send("BLPOP", "q", "0")
	waitFor(t, "blocked again", func() bool { return servers[0].Info("blocked_clients") == "1" })
	_ = worker.Close()
	waitFor(t, "blocked no more", func() bool { return servers[0].Info("blocked_clients") == "0" })
	producer.want("1", "RPUSH", "q", "second")
	producer.want("1", "LLEN", "q")
}

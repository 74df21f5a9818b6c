package reactor_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// TestDatabases: what was written in one database is seen in that one only, by
// commands of one shard, of several, and of all.
func TestDatabases(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	for _, hello := range []string{"2", "3"} {
		c.do("HELLO", hello)
		for _, db := range []string{"3", "15", "0"} {
			c.want("OK", "SELECT", db)
			c.want("0", "DBSIZE")
			c.want("OK", "MSET", "a", db, "b", db, "c", db, "d", db)
		}
		for _, db := range []string{"0", "15", "3"} {
			c.want("OK", "SELECT", db)
			c.want(fmt.Sprintf("[%s %s %s %s]", db, db, db, db), "MGET", "d", "c", "b", "a")
			c.want("4", "EXISTS", "a", "b", "c", "d")
			c.want("4", "DBSIZE")
			if got := strings.Fields(strings.Trim(c.do("KEYS", "*"), "[]")); len(got) != 4 {
				t.Fatalf("KEYS: %v", got)
			}
			if got := c.do("RANDOMKEY"); !strings.Contains("abcd", got) {
				t.Fatalf("RANDOMKEY: %s", got)
			}
			keys := 0
			for cursor := "0"; ; {
				var page string
				cursor, page, _ = strings.Cut(strings.Trim(c.do("SCAN", cursor), "[]"), " ")
				if keys += len(strings.Fields(strings.Trim(page, "[]"))); cursor == "0" {
					break
				}
			}
			if keys != 4 {
				t.Fatalf("SCAN returns %d keys", keys)
			}
			if info := c.do("CLIENT", "INFO"); !strings.Contains(info, " db="+db+" ") {
				t.Fatalf("CLIENT INFO: %s", info)
			}
			if list := c.do("CLIENT", "LIST"); !strings.Contains(list, " db="+db+" ") {
				t.Fatalf("CLIENT LIST: %s", list)
			}
		}
		c.want("4", "DEL", "a", "b", "c", "d") // of database 3
		c.want("OK", "SELECT", "15")
		c.want("1", "MOVE", "a", "3")
		c.want("1", "COPY", "b", "b", "DB", "3")
		c.want("-ERR DB index is out of range", "MOVE", "b", "16")
		c.want("OK", "FLUSHDB")
		c.want("OK", "SELECT", "3")
		c.want("[15 15 (nil)]", "MGET", "a", "b", "c")
		c.want("OK", "SELECT", "0")
		c.want("4", "DBSIZE")
		c.want("RESET", "RESET")
		c.want("4", "DBSIZE")
		c.want("OK", "FLUSHALL")
	}
}

// TestDatabasesBesideOneServer: many clients change databases in the middle of
// pipelines, in and around transactions and watches; every reply is that of a
// single server.
func TestDatabasesBesideOneServer(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	single := redistest.Start(t, redistest.Options{Open: true})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(n)))
			ours, theirs := p.dial(), dial(t, single.Address)
			for range 60 {
				var raw strings.Builder
				count := 0
				add := func(args ...string) {
					raw.WriteString(encode(args...))
					count++
				}
				db := func() string { return strconv.Itoa(rnd.IntN(5)) }
				for range 1 + rnd.IntN(20) {
					key := fmt.Sprintf("{%d-%d}k", n, rnd.IntN(3))
					same := func() string { return key + strconv.Itoa(rnd.IntN(3)) }
					switch rnd.IntN(12) {
					case 0, 1:
						add("SELECT", db())
					case 2:
						add("SELECT", "16")
					case 3:
						add("MOVE", same(), db())
					case 4:
						add("COPY", same(), same(), "DB", db(), "REPLACE")
					case 5:
						add("DEL", same())
					case 6:
						add("MSET", fmt.Sprintf("%d-a", n), db(), fmt.Sprintf("%d-b", n), db(), fmt.Sprintf("%d-c", n), db())
					case 7:
						add("MGET", fmt.Sprintf("%d-c", n), fmt.Sprintf("%d-b", n), fmt.Sprintf("%d-a", n))
					case 8:
						if rnd.IntN(2) == 0 {
							add("WATCH", same())
							if rnd.IntN(2) == 0 {
								add("SELECT", db())
							}
							if rnd.IntN(2) == 0 {
								add("APPEND", same(), "x")
							}
						}
						add("MULTI")
						for range rnd.IntN(4) {
							add("INCR", same())
							if rnd.IntN(3) == 0 {
								add("SELECT", strconv.Itoa(rnd.IntN(20)))
							}
						}
						add([]string{"EXEC", "EXEC", "EXEC", "DISCARD"}[rnd.IntN(4)])
					case 9:
						add("GET", same())
					default:
						add("INCR", same())
					}
				}
				ours.write(raw.String())
				theirs.write(raw.String())
				for range count {
					if a, b := theirs.read(), ours.read(); a != b {
						t.Errorf("client %d: a server says %q, the proxy %q to one of\n%s", n, a, b, raw.String())
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestSelectInTransaction: it holds for what follows in the transaction, for the
// client behind it, and for nobody else.
func TestSelectInTransaction(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c, other := p.dial(), p.dial()
	c.want("OK", "SELECT", "1")
	other.want("OK", "SELECT", "1")
	c.queued([]string{"SET", "k", "one"}, []string{"SELECT", "2"}, []string{"SET", "k", "two"}, []string{"DBSIZE"},
		[]string{"SELECT", "16"}, []string{"SELECT", "4"}, []string{"DBSIZE"}, []string{"CLIENT", "INFO"}, []string{"SELECT", "x"})
	got := c.do("EXEC")
	if !strings.HasPrefix(got, "[OK OK OK 1 -ERR DB index is out of range OK 0 id=") || !strings.Contains(got, " db=4 ") ||
		!strings.HasSuffix(got, " -ERR value is not an integer or out of range]") {
		t.Fatal(got)
	}
	other.want("one", "GET", "k")
	c.want("(nil)", "GET", "k")
	c.want("OK", "SELECT", "2")
	c.want("two", "GET", "k")
	// FLUSHDB of all shards in the database selected inside.
	c.want("OK", "MSET", "a", "1", "b", "1", "c", "1")
	other.queued([]string{"SELECT", "2"}, []string{"FLUSHDB"}, []string{"SELECT", "1"})
	other.want("[OK OK OK]", "EXEC")
	c.want("0", "DBSIZE")
	other.want("one", "GET", "k")
	// Nothing is selected when nothing is executed.
	for _, end := range []string{"DISCARD", "EXEC"} {
		c.want("OK", "WATCH", "k")
		c.want("OK", "SET", "k", end)
		c.queued([]string{"SELECT", "1"})
		c.do(end)
		c.want(end, "GET", "k")
	}
	c.want("OK", "MULTI")
	c.want("QUEUED", "SELECT", "1")
	if got := c.do("NOSUCH"); !strings.HasPrefix(got, "-ERR unknown command") {
		t.Fatal(got)
	}
	c.do("EXEC")
	c.want("EXEC", "GET", "k")
}

// TestWatchInDatabases: keys of several databases are watched at once, and the
// connection is in database 0 for the next who watches.
func TestWatchInDatabases(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c, other := p.dial(), p.dial()
	for _, touched := range []string{"1", "2", "3"} {
		c.want("OK", "SELECT", "1")
		c.want("OK", "WATCH", "k")
		c.want("OK", "SELECT", "2")
		c.want("OK", "WATCH", "k")
		c.want("OK", "SELECT", "4")
		other.want("OK", "SELECT", touched)
		other.want("OK", "SET", "k", touched)
		c.queued([]string{"SET", "{k}done", touched})
		if touched == "3" {
			c.want("[OK]", "EXEC")
		} else {
			c.want("[]", "EXEC")
		}
	}
	c.want("3", "GET", "{k}done")
	// The connection that is idle now is in database 4.
	other.want("OK", "SELECT", "0")
	other.want("OK", "WATCH", "{k}done")
	other.queued([]string{"GET", "{k}done"}, []string{"SET", "{k}done", "0"})
	other.want("[(nil) OK]", "EXEC")
	c.want("3", "GET", "{k}done")
}

// TestDatabaseIsKept by what is held, re-routed and sent again.
func TestDatabaseIsKept(t *testing.T) {
	t.Parallel()
	old := startFake(t, func(args []string) string {
		if args[0] == "SELECT" {
			return "+OK\r\n"
		}
		return ""
	})
	next := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{Loops: 1}, twoNodes(old.ln.Addr().String(), next.Address))
	c := p.dial()
	c.want("OK", "SELECT", "5")
	c.send("GET", "k")
	if got := fmt.Sprint(old.waitGot(2)); got != "[SELECT 5 GET k]" {
		t.Fatal(got)
	}
	// The read is sent again on another connection.
	old.cut()
	if got := fmt.Sprint(old.waitGot(4)); got != "[SELECT 5 GET k SELECT 5 GET k]" {
		t.Fatal(got)
	}
	zero := p.dial()
	zero.send("GET", "k")
	old.waitGot(5)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	write := p.dial()
	write.want("OK", "SELECT", "5")
	write.send("SET", "k", "five")
	time.Sleep(20 * time.Millisecond)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "b" }))
	c.wantNext("(nil)")
	zero.wantNext("(nil)")
	write.wantNext("OK")
	c.want("five", "GET", "k")
	zero.want("(nil)", "GET", "k")
}

// TestRefusedDatabase: a server with fewer databases, or one that gives no more
// connections, does not delay those who use database 0.
func TestRefusedDatabase(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{Open: true, Config: []string{"databases 4"}})
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, s.Address))
	c, zero := p.dial(), p.dial()
	zero.want("OK", "SET", "k", "v")
	c.want("OK", "SELECT", "3")
	c.want("OK", "SET", "k", "three")
	c.want("OK", "SELECT", "4")
	for range 3 {
		c.send("SET", "k", "four")
		zero.want("v", "GET", "k")
		c.wantNext("-ERR DB index is out of range")
	}
	c.want("-ERR DB index is out of range", "WATCH", "k")
	c.want("OK", "UNWATCH")
	c.want("-ERR DB index is out of range", "BLPOP", "k", "0")
	zero.want("v", "GET", "k")
	c.want("OK", "SELECT", "3")
	c.want("three", "GET", "k")
	p.waitSight("shard-0-0", reactor.SightOK)

	admin := dial(t, s.Address)
	admin.want("OK", "CONFIG", "SET", "maxclients", "3") // of the test, and two of the proxy
	c.want("OK", "SELECT", "2")
	c.send("SET", "k", "two")
	for range 50 {
		zero.want("v", "GET", "k")
	}
	admin.want("OK", "CONFIG", "SET", "maxclients", "1000")
	c.wantNext("OK")
}

// TestBusyServer: a server that is busy with a script while a database is
// selected gets the requests for it later, and in no other database.
func TestBusyServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, s.Address))
	c, script := p.dial(), p.dial()
	s.MustDo("CONFIG", "SET", "busy-reply-threshold", "1")
	script.send("EVAL", "local n = redis.call('TIME') while redis.call('TIME')[1] - n[1] < 2 do end return 'done'", "1", "k")
	time.Sleep(50 * time.Millisecond)
	var set [16]string
	for db := 1; db < 16; db++ {
		set[db] = strconv.Itoa(db)
		c.write(encode("SELECT", set[db]))
		c.wantNext("OK")
		c.write(encode("SET", "k", set[db]))
		if got := c.read(); strings.HasPrefix(got, "-BUSY") {
			set[db] = "(nil)"
		} else if got != "OK" {
			t.Fatal(got)
		}
	}
	script.wantNext("done")
	script.want("(nil)", "GET", "k")
	for db := 1; db < 16; db++ {
		c.want("OK", "SELECT", strconv.Itoa(db))
		c.want(set[db], "GET", "k")
	}
}

// TestUnusedDatabase: a connection to a database that nobody uses is closed, and
// opened again when somebody does.
func TestUnusedDatabase(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{Loops: 1, NodeTimeout: 20 * time.Millisecond}, one(0, 1, s.Address))
	connections := func() int { return p.Stats().Nodes[0].Connections }
	c := p.dial()
	for range 2 {
		for _, db := range []string{"7", "9", "0"} {
			c.want("OK", "SELECT", db)
			c.want("OK", "SET", "k", db)
		}
		if n := connections(); n != 4 { // two in database 0, one of them for bulk
			t.Fatalf("%d connections, not 4", n)
		}
		deadline := time.Now().Add(10 * time.Second)
		for connections() > 2 {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections are left", connections())
			}
			time.Sleep(20 * time.Millisecond)
		}
		c.want("0", "GET", "k")
	}
}

// TestAnyShard: a command without keys is answered as long as one shard serves,
// and waits when none does.
func TestAnyShard(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c := p.dial()
	lolwut := func() {
		t.Helper()
		if got := c.do("LOLWUT", "VERSION", "5", "1", "1", "1"); !strings.Contains(got, "Redis ver. 7.0.15") {
			t.Fatal(got)
		}
	}
	lolwut()
	p.commit(func(c *routing.Cluster) { c.Shards[0].Master, c.Shards[1].Frozen = "", true })
	lolwut()
	p.commit(func(c *routing.Cluster) { c.Shards[2].Frozen = true })
	c.send("XINFO", "HELP")
	c.silent(50 * time.Millisecond)
	p.commit(func(c *routing.Cluster) {
		c.Shards[0].Master, c.Shards[1].Frozen, c.Shards[2].Frozen = "shard-0-0", false, false
	})
	if got := c.read(); !strings.Contains(got, "CONSUMERS <key>") {
		t.Fatal(got)
	}
}

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
	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// twins are the two real servers of a shard, that change places.
type twins struct {
	servers [2]*redistest.Server
	master  int
}

// startTwins starts a master and a replica that follows it.
func startTwins(t *testing.T, i, n int) (*twins, routing.Shard) {
	t.Helper()
	p := &twins{}
	id := fmt.Sprintf("shard-%d", i)
	s := routing.Shard{ID: id, Slots: slot.Even(i, n), Master: id + "-0", Term: 1}
	for k := range p.servers {
		p.servers[k] = redistest.Start(t, redistest.Options{Open: true, Config: []string{"repl-diskless-sync-delay 0"}})
		s.Nodes = append(s.Nodes, routing.Node{ID: fmt.Sprintf("%s-%d", id, k), Address: p.servers[k].Address, Incarnation: p.servers[k].Info("run_id")})
	}
	p.follow(t)
	return p, s
}

// follow makes the other server a replica of the master, and waits for it.
func (p *twins) follow(t *testing.T) {
	t.Helper()
	host, port, _ := strings.Cut(p.servers[p.master].Address, ":")
	replica := p.servers[1-p.master]
	replica.MustDo("REPLICAOF", host, port)
	for deadline := time.Now().Add(20 * time.Second); replica.Info("master_link_status") != "up"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the replica does not follow")
		}
	}
}

// switchover makes the replica of a shard the master, as the Configserver does, at
// all proxies. between is called while the shard is frozen.
func (p *twins) switchover(t *testing.T, i int, between func(), proxies ...*proxy) {
	t.Helper()
	for _, proxy := range proxies {
		proxy.waitAck(proxy.commit(func(c *routing.Cluster) { c.Shards[i].Frozen = true }))
	}
	between()
	p.promote(t, i, proxies...)
	p.follow(t)
}

// failover does so without a freeze: what is in flight is read again.
func (p *twins) failover(t *testing.T, i int, between func(), proxies ...*proxy) {
	t.Helper()
	for _, proxy := range proxies {
		proxy.waitAck(proxy.commit(func(c *routing.Cluster) { c.Shards[i].Master = "" }))
	}
	between()
	p.promote(t, i, proxies...)
	p.follow(t)
}

func (p *twins) promote(t *testing.T, i int, proxies ...*proxy) {
	t.Helper()
	master, replica := p.servers[p.master], p.servers[1-p.master]
	for offset := master.Info("master_repl_offset"); replica.Info("master_repl_offset") != offset; {
		time.Sleep(time.Millisecond)
	}
	replica.MustDo("REPLICAOF", "NO", "ONE")
	p.master = 1 - p.master
	for _, proxy := range proxies {
		proxy.commit(func(c *routing.Cluster) {
			c.Shards[i].Frozen, c.Shards[i].Master = false, c.Shards[i].Nodes[p.master].ID
			c.Shards[i].Term++
		})
	}
}

// TestScanReturnsAll: a SCAN returns every key that exists throughout, while
// others come and go, hash tables grow and shrink, and masters change.
func TestScanReturnsAll(t *testing.T) {
	t.Parallel()
	const stable = 2000
	var shards []routing.Shard
	var pairs []*twins
	for i := range 2 {
		p, s := startTwins(t, i, 2)
		pairs, shards = append(pairs, p), append(shards, s)
	}
	p := startProxy(t, reactor.Config{Loops: 2}, shards...)
	c := p.dial()
	for i := range stable {
		c.send("SET", fmt.Sprintf("stable:%d", i), "v")
	}
	for range stable {
		c.wantNext("OK")
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		w := p.dial()
		rnd := rand.New(rand.NewPCG(3, 3))
		for round := 0; ; round++ {
			select {
			case <-stop:
				return
			default:
			}
			for range 200 { // half of the time it grows, then it shrinks
				key := fmt.Sprintf("other:%d", rnd.IntN(20_000))
				if round/20%2 == 0 {
					w.send("SET", key, "v")
				} else {
					w.send("DEL", key)
				}
			}
			for range 200 {
				if got := w.read(); got != "OK" && got != "0" && got != "1" {
					t.Errorf("a write: %s", got)
					return
				}
			}
		}
	})
	scan := func(between func(page int), options ...string) (pages int) {
		t.Helper()
		seen := map[string]bool{}
		for cursor := "0"; pages == 0 || cursor != "0"; pages++ {
			if between(pages); pages > 20_000 {
				t.Fatal("SCAN does not end")
			}
			var rest string
			cursor, rest, _ = strings.Cut(strings.Trim(c.do(append([]string{"SCAN", cursor}, options...)...), "[]"), " ")
			for key := range strings.FieldsSeq(strings.Trim(rest, "[]")) {
				seen[key] = true
			}
		}
		for i := range stable {
			if !seen[fmt.Sprintf("stable:%d", i)] {
				t.Fatalf("SCAN %v did not return stable:%d, after %d pages", options, i, pages)
			}
		}
		return pages
	}
	for range 2 {
		scan(func(int) {}, "COUNT", "15")
		scan(func(int) {}, "COUNT", "50", "TYPE", "string", "MATCH", "stable:*")
	}
	for shard := range pairs {
		// In the midst of the shard, and while a request waits for its master.
		n := 0
		pages := scan(func(page int) {
			if page%7 == 3 && n < 2 {
				n++
				time.Sleep(5 * time.Millisecond)
				pairs[shard].switchover(t, shard, func() {}, p)
			}
		}, "COUNT", "100")
		if n < 2 {
			t.Fatalf("%d switchovers in %d pages", n, pages)
		}
		done := make(chan struct{})
		wg.Go(func() {
			defer close(done)
			for range 2 {
				pairs[shard].switchover(t, shard, func() {}, p)
			}
		})
		for finished := false; !finished; {
			scan(func(int) {}, "COUNT", "20")
			select {
			case <-done:
				finished = true
			default:
			}
		}
	}
}

// page splits a reply to SCAN and its kin.
func page(reply string) (cursor string, items []string) {
	cursor, rest, _ := strings.Cut(strings.Trim(reply, "[]"), " ")
	return cursor, strings.Fields(strings.Trim(rest, "[]"))
}

// TestIterationsOfKeysReturnAll: HSCAN, SSCAN and ZSCAN return every element, though
// masters change between two pages, and while a request waits for one; through any
// proxy, whatever may serve reads, in and out of transactions.
func TestIterationsOfKeysReturnAll(t *testing.T) {
	t.Parallel()
	const elements = 3000
	twins, shard := startTwins(t, 0, 1)
	for i := range shard.Nodes {
		shard.Nodes[i].InReadSet = true
	}
	p, q := startProxy(t, reactor.Config{Loops: 1}, shard), startProxy(t, reactor.Config{Loops: 1}, shard)
	q.commit(func(c *routing.Cluster) { c.ReadPolicy = routing.ReadReadSet })
	c := p.dial()
	for i := range elements {
		c.send("HSET", "h", fmt.Sprint("e", i), "v")
		c.send("SADD", "s", fmt.Sprint("e", i))
		c.send("ZADD", "z", "1", fmt.Sprint("e", i))
	}
	for range 3 * elements {
		c.wantNext("1")
	}
	twins.follow(t)
	c.want("1", "WAIT", "1", "5000") // replicas are read, too
	readonly, other, tracks := p.dial(), q.dial(), p.dial()
	readonly.want("OK", "READONLY")
	tracks.do("HELLO", "3")
	tracks.want("OK", "CLIENT", "TRACKING", "ON")
	plain := func(c *client) func(args ...string) string { return c.do }
	inside := func(args ...string) string {
		c.want("OK", "MULTI")
		c.want("QUEUED", "EXISTS", args[1])
		c.want("QUEUED", args...)
		reply := strings.TrimPrefix(c.do("EXEC"), "[1 ")
		return strings.TrimSuffix(reply, "]")
	}
	tracked := func(args ...string) string {
		reply := tracks.do(args...)
		for strings.HasPrefix(reply, "[invalidate") { // a new master knows of no reads
			reply = tracks.read()
		}
		return reply
	}
	asks := []func(args ...string) string{plain(c), plain(other), plain(readonly), inside, tracked}
	for round, at := range []struct {
		change func(*testing.T, int, func(), ...*proxy)
		waits  bool // a request, for the new master; else it is between two pages
	}{{twins.switchover, false}, {twins.switchover, true}, {twins.failover, false}, {twins.failover, true}} {
		for _, key := range []string{"h", "s", "z"} {
			seen := map[string]bool{}
			cursor := "0"
			var items []string
			for n := 0; n == 0 || cursor != "0"; n++ {
				args := []string{key + "scan", key, cursor, "COUNT", "100"}
				change := n == 7 || n == 20 // the second one in the midst of what was begun again
				switch {
				case change && at.waits:
					at.change(t, 0, func() { c.send(args...) }, p, q)
					cursor, items = page(c.read())
				case change:
					at.change(t, 0, func() {}, p, q)
					fallthrough
				default:
					cursor, items = page(asks[(n+round)%len(asks)](args...))
				}
				if n > 1000 || strings.HasPrefix(cursor, "-") {
					t.Fatalf("%s, page %d: %s %s", args, n, cursor, items)
				}
				if cursor == "0" && n < 30 {
					t.Fatalf("%s ends on page %d", args, n)
				}
				for _, item := range items {
					seen[item] = true
				}
			}
			missed := 0
			for i := range elements {
				if !seen[fmt.Sprint("e", i)] {
					missed++
				}
			}
			if missed > 0 {
				t.Errorf("change %d: %sscan missed %d of %d elements", round, key, missed, elements)
			}
		}
	}
	// What is small is one page, whatever the cursor; so is what is not there.
	c.want("2", "HSET", "small", "f", "v", "g", "w")
	for _, cursor := range []string{"0", "1", "65", "4711", "18446744073709551615"} {
		c.want("[0 [f v g w]]", "HSCAN", "small", cursor)
		c.want("[0 []]", "HSCAN", "none", cursor)
	}
	c.want("-ERR invalid cursor", "HSCAN", "h", "x")
	c.want("-WRONGTYPE Operation against a key holding the wrong kind of value", "SSCAN", "h", "0")
	// A long page comes in pieces.
	if _, items := page(c.do("HSCAN", "h", "0", "COUNT", "100000")); len(items) != 2*elements {
		t.Errorf("a whole hash has %d words", len(items))
	}
}

// TestSmallScans: what fits on a page is one, as at a single server, wherever the
// keys are; shards without keys cost no call; and cursors are small.
func TestSmallScans(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 5)
	for i := range shards {
		shards[i].Term = 60 // the largest tags
	}
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	c.want("[0 []]", "SCAN", "0")
	key := func(shard, i int) string { return keyAt(p, shard, fmt.Sprint("k", i, ":")) }
	for i := range 9 {
		c.want("OK", "SET", key(i%2*4, i), "v") // in the first and the last one
	}
	scan := func(pages, keys int, options ...string) {
		t.Helper()
		cursor, found, n := "0", 0, 0
		for n == 0 || cursor != "0" {
			var items []string
			cursor, items = page(c.do(append([]string{"SCAN", cursor}, options...)...))
			found, n = found+len(items), n+1
		}
		if n > pages || found != keys {
			t.Errorf("SCAN %v has %d keys on %d pages, want %d on %d", options, found, n, keys, pages)
		}
	}
	scan(1, 9)
	scan(1, 9, "COUNT", "1000")
	scan(1, 1, "MATCH", key(0, 0)+"*")
	scan(1, 0, "MATCH", "nothing*")
	scan(1, 0, "TYPE", "hash")
	scan(9, 9, "COUNT", "1")
	c.want("-ERR syntax error", "SCAN", "0", "MATCH")
	c.want("-ERR value is not an integer or out of range", "SCAN", "0", "COUNT", "x")
	// What follows in a pipeline is not done in between.
	c.send("SCAN", "0")
	c.send("FLUSHALL")
	if _, items := page(c.read()); len(items) != 9 {
		t.Errorf("FLUSHALL overtook a SCAN, which found %v", items)
	}
	c.wantNext("OK")
	for i := range 3000 {
		c.send("SET", fmt.Sprint("key:", i), "v")
	}
	for range 3000 {
		c.wantNext("OK")
	}
	widest := 0
	for cursor, n := "0", 0; n == 0 || cursor != "0"; n++ {
		cursor, _ = page(c.do("SCAN", cursor, "COUNT", "50"))
		at, err := strconv.Atoi(cursor)
		if err != nil {
			t.Fatal(cursor)
		}
		widest = max(widest, at)
	}
	if widest >= 1<<20 { // 1024 buckets, 64 tags, 5 shards and what there is of rounding
		t.Errorf("the widest cursor is %d", widest)
	}
	// Keys that are found do not wait for a shard that is not there.
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[1].Master = "" }))
	cursor, items := page(c.do("SCAN", "0", "COUNT", "1000"))
	if len(items) < 300 || cursor == "0" {
		t.Errorf("before a shard that is away: %d keys, cursor %s", len(items), cursor)
	}
}

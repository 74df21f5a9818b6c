package reactor_test

import (
	"fmt"
	"math/rand/v2"
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
	s := routing.Shard{ID: id, Slots: slot.Even(i, n), Master: id + "-0"}
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

// switchover makes the replica of a shard the master, as the Configserver does.
func (p *twins) switchover(t *testing.T, proxy *proxy, i int) {
	t.Helper()
	proxy.waitAck(proxy.commit(func(c *routing.Cluster) { c.Shards[i].Frozen = true }))
	master, replica := p.servers[p.master], p.servers[1-p.master]
	for offset := master.Info("master_repl_offset"); replica.Info("master_repl_offset") != offset; {
		time.Sleep(time.Millisecond)
	}
	replica.MustDo("REPLICAOF", "NO", "ONE")
	p.master = 1 - p.master
	proxy.commit(func(c *routing.Cluster) {
		c.Shards[i].Frozen, c.Shards[i].Master = false, c.Shards[i].Nodes[p.master].ID
	})
	p.follow(t)
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
				pairs[shard].switchover(t, p, shard)
			}
		}, "COUNT", "100")
		if n < 2 {
			t.Fatalf("%d switchovers in %d pages", n, pages)
		}
		done := make(chan struct{})
		wg.Go(func() {
			defer close(done)
			for range 2 {
				pairs[shard].switchover(t, p, shard)
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
	// A cursor of a shard that is gone begins again.
	if got := c.do("SCAN", "1023"); !strings.Contains(got, ":") {
		t.Errorf("SCAN 1023: %s", got)
	}
}

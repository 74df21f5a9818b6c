package reactor_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// gate stands before a server that lets in few connections: the first is turned
// away, so that it is the one for bulk that waits, then there may be one.
type gate struct {
	server string
	ln     net.Listener
	mu     sync.Mutex
	open   bool
	came   int
	live   []net.Conn
}

func startGate(t *testing.T, server string) *gate {
	t.Helper()
	ln := listen(t)
	g := &gate{server: server, ln: ln}
	t.Cleanup(func() {
		ln.Close()
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, c := range g.live {
			c.Close()
		}
	})
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			g.admit(conn)
		}
	}()
	return g
}

func (g *gate) admit(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.came++; !g.open && (g.came == 1 || len(g.live) > 0) {
		_, _ = io.WriteString(conn, "-ERR max number of clients reached\r\n") // as the server says it
		conn.Close()
		return
	}
	server, err := net.Dial("tcp", g.server)
	if err != nil {
		conn.Close()
		return
	}
	g.live = append(g.live, conn, server)
	for _, way := range [][2]net.Conn{{conn, server}, {server, conn}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			way[0].Close()
		}()
	}
}

// turnedAway waits until connections were turned away n times.
func (g *gate) turnedAway(t *testing.T, n int) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		g.mu.Lock()
		away := g.came - len(g.live)/2
		g.mu.Unlock()
		if away >= n {
			return
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%d connections were turned away", away)
		}
	}
}

// full tells if one connection is there, and no other.
func (g *gate) full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.live) < 4
}

func (g *gate) letIn() {
	g.mu.Lock()
	g.open = true
	g.mu.Unlock()
}

// TestNoConnectionForBulk: when a server lets in no connection for bulk, what
// belongs there goes over the ordinary one, at once and in order.
func TestNoConnectionForBulk(t *testing.T) {
	shards, servers := realShards(t, 2)
	g := startGate(t, servers[1].Address)
	shards[1] = one(1, 2, g.ln.Addr().String())
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	near, far := "bar", "foo" // in the first shard, and in the second
	c := p.dial()
	begin := time.Now()
	c.want("OK", "MSET", near, "1", far, "2")
	g.turnedAway(t, 2)
	large := strings.Repeat("x", 100_000)
	c.want("OK", "SET", far, large)
	c.want("OK", "SET", near, large)
	c.want("["+large+" "+large+"]", "MGET", near, far)
	// In bulk for one shard, and then for both.
	var deep strings.Builder
	for range 300 {
		deep.WriteString(encode("GET", near))
	}
	for range 100 {
		deep.WriteString(encode("MGET", near, far))
		deep.WriteString(encode("DEL", near, far))
	}
	c.write(deep.String())
	for range 300 {
		c.wantNext(large)
	}
	c.wantNext("[" + large + " " + large + "]")
	c.wantNext("2")
	for range 99 {
		c.wantNext("[(nil) (nil)]")
		c.wantNext("0")
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestDivertedKeepsOrder: the connection for bulk comes while clients are at work.
func TestDivertedKeepsOrder(t *testing.T) {
	for round := range uint64(3) {
		shards, servers := realShards(t, 2)
		g := startGate(t, servers[1].Address)
		shards[1] = one(1, 2, g.ln.Addr().String())
		p := startProxy(t, reactor.Config{Loops: 1}, shards...)
		p.dial().want("OK", "MSET", "bar", "1", "foo", "2")
		g.turnedAway(t, 2)
		var clients sync.WaitGroup
		for id := range uint64(4) {
			c := p.dial()
			clients.Go(func() {
				r := rand.New(rand.NewPCG(id, round))
				m := model{}
				for turn := range 12 {
					var stream strings.Builder
					var wants []string
					for range 1 + r.IntN(200) {
						step := m.step
						if r.IntN(8) == 0 {
							step = m.bulkStep
						}
						args, want := step(r, fmt.Sprintf("c%d-", id))
						stream.WriteString(encode(args...))
						wants = append(wants, want)
					}
					go c.writePieces(stream.String(), rand.New(rand.NewPCG(uint64(turn), id)))
					for i, want := range wants {
						if got := c.read(); got != want {
							t.Errorf("client %d, turn %d, reply %d: %.60q (%d bytes), want %.60q (%d bytes)", id, turn, i, got, len(got), want, len(want))
							return
						}
					}
					if turn == 4 {
						g.letIn()
					}
				}
			})
		}
		clients.Wait()
	}
}

// TestNothingOvertakesTheDiverted: what follows a request that was diverted waits
// for it, also when there is a connection for bulk meanwhile.
func TestNothingOvertakesTheDiverted(t *testing.T) {
	ok := func([]string) string { return "+OK\r\n" }
	a, b := startFake(t, ok), startFake(t, ok)
	g := startGate(t, b.ln.Addr().String())
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 2, a.ln.Addr().String()), one(1, 2, g.ln.Addr().String()))
	near, far := "bar", "foo"
	p.dial().want("OK", "SET", far, "0")
	g.turnedAway(t, 2)
	c := p.dial()
	c.want("OK", "SET", near, strings.Repeat("x", 100_000))
	before := a.set(never)
	c.send("GET", near) // in bulk, for the slot holds something large
	a.waitGot(before + 1)
	n := b.set(never)
	c.send("SET", far, "1")
	b.waitGot(n + 1)
	g.letIn()
	for begin := time.Now(); g.full(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("no connection for bulk comes")
		}
	}
	c.silent(50 * time.Millisecond) // it takes requests now
	c.send("SET", far, "2")
	c.silent(50 * time.Millisecond)
	if got := b.waitGot(n + 1); len(got) != n+1 {
		t.Errorf("overtaken: %q", got[n:])
	}
}

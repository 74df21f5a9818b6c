package reactor_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// bulkStep is a step of the model with sizes that belong to bulk.
func (m model) bulkStep(r *rand.Rand, prefix string) (args []string, want string) {
	if r.IntN(12) > 0 {
		return m.step(r, prefix)
	}
	k := fmt.Sprintf("%s%d", prefix, r.IntN(20))
	m[k] = strings.Repeat(string(rune('A'+r.IntN(26))), []int{1, 50_000, 65_400, 70_000, 150_000, 600_000}[r.IntN(6)])
	return []string{"SET", k, m[k]}, "OK"
}

// TestBulkKeepsOrder: whatever sizes, depths of pipelines and epochs make a
// client change over, each reply is the right one, in its place.
func TestBulkKeepsOrder(t *testing.T) {
	const seed = 20
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{}, shards...)
	var clients sync.WaitGroup
	for id := range 6 {
		c := p.dial()
		clients.Go(func() {
			r := rand.New(rand.NewPCG(uint64(id), seed))
			m := model{}
			if id%2 == 1 {
				c.do("HELLO", "3")
			}
			for round := range 80 {
				depth := 1 + r.IntN(20)
				if r.IntN(4) == 0 {
					depth = 1 + r.IntN(700)
				}
				var stream strings.Builder
				var wants []string
				for range depth {
					step := m.step
					if depth < 100 || r.IntN(20) == 0 {
						step = m.bulkStep
					}
					args, want := step(r, fmt.Sprintf("c%d-", id))
					stream.WriteString(encode(args...))
					wants = append(wants, want)
				}
				go c.writePieces(stream.String(), rand.New(rand.NewPCG(uint64(round), uint64(id))))
				for i, want := range wants {
					if got := c.read(); got != want {
						t.Errorf("client %d, round %d, reply %d of %d: %.60q (%d bytes), want %.60q (%d bytes)", id, round, i, depth, got, len(got), want, len(want))
						return
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	r := rand.New(rand.NewPCG(0, seed))
	for epochs := 0; ; epochs++ {
		select {
		case <-done:
			if epochs < 5 {
				t.Errorf("only %d epochs while clients were at work", epochs)
			}
			if s := p.Stats(); s.MemoryBytes > 8<<20 || s.Held != 0 {
				t.Errorf("%d bytes in use, %d held when nothing is going on", s.MemoryBytes, s.Held)
			}
			return
		case <-time.After(time.Duration(r.IntN(20)) * time.Millisecond):
		}
		i := r.IntN(len(shards))
		if r.IntN(2) == 0 {
			p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[i].Generation++ }))
			continue
		}
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[i].Frozen = true }))
		time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
		p.commit(func(c *routing.Cluster) { c.Shards[i].Frozen = false })
	}
}

// writePieces writes in pieces of random sizes.
func (c *client) writePieces(text string, r *rand.Rand) {
	for len(text) > 0 {
		n := min(len(text), 1+r.IntN(len(text)/2+64))
		if _, err := c.Write([]byte(text[:n])); err != nil {
			return
		}
		text = text[n:]
	}
}

// silence is the word in requests that a fake server of these tests does not
// answer.
const silence = "hush"

// hushed starts a proxy before a fake server that answers everything but what
// has to do with silence: replies behind it on the same connection are not read
// by anybody either.
func hushed(t *testing.T) (*proxy, *fake) {
	var mu sync.Mutex
	mu.Lock()
	f := startFake(t, nil)
	f.set(func(args []string) string {
		if len(args) > 1 && strings.HasPrefix(args[1], silence) {
			mu.Lock() // until the test ends: its connection says nothing more
		}
		return "+OK\r\n"
	})
	t.Cleanup(mu.Unlock)
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	// Without a connection for bulk, what belongs there goes over the ordinary one.
	waitFor(t, "two connections to the server", func() bool { return p.Stats().Nodes[0].Connections == 2 })
	return p, f
}

// TestLargeRequestsDelayNobody: what stands behind a large request that is not
// answered waits; other clients do not, and neither do small requests to a slot
// that holds nothing large.
func TestLargeRequestsDelayNobody(t *testing.T) {
	t.Parallel()
	p, f := hushed(t)
	other, greedy := p.dial(), p.dial()
	other.want("OK", "SET", "k", "v")
	greedy.send("SET", silence, strings.Repeat("x", 100_000))
	f.waitGot(2)
	greedy.send("GET", "k")
	for range 100 {
		other.want("OK", "GET", "k")
	}
	greedy.silent(20 * time.Millisecond)
}

// TestDeepPipelinesDelayNobody: the same for a client with many requests in
// flight.
func TestDeepPipelinesDelayNobody(t *testing.T) {
	t.Parallel()
	p, f := hushed(t)
	other, greedy := p.dial(), p.dial()
	other.want("OK", "SET", "k", "v")
	var deep strings.Builder
	for range 100 {
		deep.WriteString(encode("GET", "k"))
	}
	greedy.write(deep.String())
	for range 100 {
		greedy.wantNext("OK")
	}
	greedy.send("GET", silence)
	f.waitGot(102)
	for range 100 {
		other.want("OK", "GET", "k")
	}
	greedy.silent(20 * time.Millisecond)
}

// TestSlowReadersDoNotFillMemory: what a client takes slowly stays in the
// server, nobody else waits for it but large replies, and an epoch does not.
func TestSlowReadersDoNotFillMemory(t *testing.T) {
	shards, _ := realShards(t, 1)
	const budget, size = 64 << 20, 100 << 20
	p := startProxy(t, reactor.Config{Loops: 1, MemoryBudgetBytes: budget}, shards...)
	other := p.dial()
	other.want("104857600", "SETRANGE", "big", strconv.Itoa(size-1), "x")
	slow := p.dial()
	if n := len(slow.do("GETRANGE", "big", "1", "100000")); n != 100_000 {
		t.Fatal(n)
	}
	slow.send("GET", "big") // now the proxy knows that it may be large
	var most int64
	var longest time.Duration
	piece := make([]byte, 256<<10)
	read := func(n int) {
		for ; n > 0; n -= len(piece) {
			if _, err := io.ReadFull(slow.r, piece[:min(n, len(piece))]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			if n/len(piece)%10 == 0 {
				most = max(most, p.Stats().MemoryBytes)
				asked := time.Now()
				other.want("OK", "SET", "k", "v")
				longest = max(longest, time.Since(asked))
			}
		}
	}
	read(len("$104857600\r\n") + size/2)
	if most > budget/2 {
		t.Errorf("%d bytes were in use", most)
	}
	// The epoch takes all that is in flight.
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true }))
	p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = false })
	read(size/2 + 2)
	slow.want("OK", "SET", "k", "v")
	t.Logf("at most %d MiB, another client waited %v", most>>20, longest)
	if most > budget {
		t.Errorf("%d bytes were in use", most)
	}
	if s := p.Stats(); s.ClientsEvicted+s.ClientsTooSlow > 0 {
		t.Errorf("%d clients were closed", s.ClientsEvicted+s.ClientsTooSlow)
	}
}

// TestWholePipelineBeforeReading: a client that sends far more than sockets hold
// before it reads anything gets its replies, as from a server.
func TestWholePipelineBeforeReading(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	c := p.dial()
	const n = 20_000
	value := strings.Repeat("v", 2000)
	var b strings.Builder
	for i := range n {
		k := fmt.Sprintf("k%d", i%100)
		b.WriteString(encode("SET", k, value))
		b.WriteString(encode("GET", k))
	}
	if err := c.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c.write(b.String())
	for range n {
		c.wantNext("OK")
		c.wantNext(value)
	}
}

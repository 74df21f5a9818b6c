package reactor_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// modal is a client that keeps what it reads, and changes what CLIENT TRACKING says.
type modal struct {
	*client
	random *rand.Rand
	// kept are values by key, in database 1 behind "1/".
	kept map[string]string
	// asked take the replies to come.
	asked []func(reply string)
	batch strings.Builder
	said  []string

	tracks, resp3 bool
	noloop        bool // always
	db            string
	mode          int
	prefix        string // the next
}

func (m *modal) ask(take func(reply string), args ...string) {
	m.batch.WriteString(encode(args...))
	m.asked = append(m.asked, take)
	m.said = append(m.said, strings.Join(args, " "))
}

// forget is for what lets the client miss changes at a server as well.
func (m *modal) forget(args ...string) {
	m.ask(func(reply string) {
		if reply[0] == '-' {
			m.t.Errorf("%q: %q", args, reply)
		}
		clear(m.kept)
	}, args...)
}

func (m *modal) ok(args ...string) {
	m.ask(func(reply string) {
		if reply != "+OK\r\n" {
			m.t.Errorf("%q: %q", args, reply)
		}
	}, args...)
}

// say asks for one thing.
func (m *modal) say(key string) {
	switch n := m.random.IntN(40); {
	case n == 0 && m.tracks:
		m.forget("CLIENT", "TRACKING", "off")
		m.tracks = false
	case n == 1:
		m.forget("RESET")
		m.forget("HELLO", "3")
		m.tracks, m.resp3, m.db = false, true, ""
	case n == 2:
		m.resp3 = !m.resp3
		m.forget("HELLO", map[bool]string{false: "2", true: "3"}[m.resp3])
	case n == 3:
		if m.db == "" {
			m.db = "1/"
			m.ok("SELECT", "1")
		} else {
			m.db = ""
			m.ok("SELECT", "0")
		}
	case n > 3 && n < 7:
		if !m.tracks {
			m.tracks, m.mode, m.prefix = true, m.random.IntN(4), "k"
		}
		words := []string{"CLIENT", "TRACKING", "on"}
		switch m.mode {
		case 0:
			words = append(words, "bcast")
		case 1: // each time other prefixes, which no key has but the first
			words = append(words, "bcast", "prefix", m.prefix)
			m.prefix = fmt.Sprintf("x%d.", m.random.Int())
		}
		if m.noloop || m.random.IntN(2) == 0 {
			words = append(words, "noloop")
		}
		m.ok(words...)
	case n == 7:
		m.ask(func(string) { delete(m.kept, key) }, "SET", strings.TrimPrefix(key, m.db), "own")
	default:
		keep := m.tracks && m.resp3
		m.ask(func(reply string) {
			switch lines := strings.Split(reply, "\r\n"); {
			case !keep:
			case reply[0] == '_':
				m.kept[key] = "(nil)"
			case reply[0] == '$':
				m.kept[key] = lines[1]
			case reply[0] != '-': // of a connection that was cut
				m.t.Errorf("GET %s: %q", key, reply)
			}
		}, "GET", strings.TrimPrefix(key, m.db))
	}
}

// take takes one reply or push.
func (m *modal) take() {
	reply := m.raw()
	switch {
	case reply == ">2\r\n$10\r\ninvalidate\r\n_\r\n":
		clear(m.kept)
	case strings.HasPrefix(reply, ">2\r\n$10\r\ninvalidate\r\n*"):
		lines := strings.Split(reply, "\r\n")
		for i := 5; i < len(lines); i += 2 {
			delete(m.kept, lines[i])
			delete(m.kept, "1/"+lines[i])
		}
	case strings.HasSuffix(reply, "<EOF>"):
		m.t.Fatalf("%q: closed", m.said)
	default:
		m.asked[0](reply)
		m.asked = m.asked[1:]
	}
}

// takeUntil takes pushes until something is true.
func (m *modal) takeUntil(what string, so func() bool) {
	m.t.Helper()
	if err := m.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	for !so() {
		if _, err := m.r.Peek(1); err != nil {
			m.t.Fatalf("%s keeps %v; it said %q", what, m.kept, m.said)
		}
		m.take()
	}
	if err := m.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.t.Fatal(err)
	}
}

// TestNothingStaleInChangingModes: however a client changes from one mode of CLIENT
// TRACKING to another, with NOLOOP and without, and whatever happens to servers
// meanwhile, it is told when what it keeps changes; and no connection of its own is left
// when it is gone.
func TestNothingStaleInChangingModes(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 3)
	// Room for a lane of each reader, shard and database, and some more.
	const readers, pinned = 8, 60
	p := startProxy(t, reactor.Config{Loops: 1, NodeTimeout: 100 * time.Millisecond, MaxPinned: pinned}, shards...)
	const keys = 20
	all := make([]*modal, readers)
	for i := range all {
		m := &modal{client: p.dial(), random: rand.New(rand.NewPCG(uint64(i), 6)), kept: map[string]string{}}
		m.forget("HELLO", "3")
		all[i], m.resp3, m.noloop = m, true, i%2 == 0
	}
	writers := []*client{p.dial(), p.dial()}
	writers[1].do("SELECT", "1")
	r, kept := rand.New(rand.NewPCG(1, 7)), 0
	for round := range 60 {
		var busy sync.WaitGroup
		for _, m := range all {
			busy.Go(func() {
				for range 1 + m.random.IntN(4) {
					for range 1 + m.random.IntN(8) {
						m.say(m.db + fmt.Sprint("k", m.random.IntN(keys)))
					}
					m.write(m.batch.String())
					m.batch.Reset()
					for len(m.asked) > 0 {
						m.take()
					}
				}
			})
		}
		late, moved := round%2 == 0, false
		busy.Go(func() {
			if !late {
				moved = disturb(p, servers, r)
			}
		})
		for i, w := range writers {
			busy.Go(func() {
				for n := range keys {
					w.do("SET", fmt.Sprint("k", (n*7+round)%keys), fmt.Sprint(round, "-", i)) // its connection may be cut
				}
			})
		}
		busy.Wait()
		if late {
			moved = disturb(p, servers, r)
		}
		// What changed meanwhile is told.
		now := map[string]string{}
		for i, w := range writers {
			for n := range keys {
				key := fmt.Sprint("k", n)
				now[[]string{"", "1/"}[i]+key] = w.do("GET", key)
			}
		}
		for i, m := range all {
			m.takeUntil(fmt.Sprintf("round %d: reader %d", round, i), func() bool {
				for key, v := range m.kept {
					if v != now[key] && !moved {
						return false
					}
				}
				return true
			})
			kept += len(m.kept)
		}
		// Everything changes: whoever keeps something is told.
		for _, w := range writers {
			for n := range keys {
				w.want("OK", "SET", fmt.Sprint("k", n), fmt.Sprint(round))
			}
		}
		for i, m := range all {
			m.takeUntil(fmt.Sprintf("everything changed in round %d: reader %d", round, i), func() bool { return len(m.kept) == 0 })
			m.said = m.said[max(0, len(m.said)-40):]
		}
	}
	if kept < 50 {
		t.Errorf("%d values were kept, so little was tested", kept)
	}
	for _, m := range all {
		m.Close()
	}
	// As many as at the beginning have room again, and no more.
	clients := []*client{}
	for range pinned / 3 {
		c := p.dial()
		c.do("HELLO", "3")
		clients = append(clients, c)
		waitFor(t, "there is room", func() bool { return c.do("CLIENT", "TRACKING", "on", "bcast", "noloop") == "OK" })
	}
	p.dial().want(tooManyOwn, "CLIENT", "TRACKING", "on", "bcast", "noloop")
	for _, c := range clients {
		c.Close()
	}
}

// disturb does something to the servers, or nothing. It tells if keys have other values
// now, for their slots moved without them.
func disturb(p *proxy, servers []*redistest.Server, r *rand.Rand) (moved bool) {
	a, b := r.IntN(3), r.IntN(3)
	switch n := r.IntN(6); n {
	case 0, 1:
		servers[a].MustDo("CLIENT", "KILL", "TYPE", []string{"normal", "pubsub"}[n], "SKIPME", "yes")
	case 2: // two shards change their slots
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[a].Frozen, c.Shards[b].Frozen = true, true }))
		p.waitAck(p.commit(func(c *routing.Cluster) {
			c.Shards[a].Frozen, c.Shards[b].Frozen = false, false
			c.Shards[a].Slots, c.Shards[b].Slots = c.Shards[b].Slots, c.Shards[a].Slots
		}))
		return true
	case 3: // other credentials
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[a].Generation++ }))
	case 4: // no master for a while
		master := p.cluster.Shards[a].Master
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[a].Master = "" }))
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[a].Master = master }))
	}
	return false
}

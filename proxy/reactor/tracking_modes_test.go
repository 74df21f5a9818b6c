package reactor_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// modal is a client that keeps what it reads, and changes what CLIENT TRACKING says.
type modal struct {
	*client
	r *rand.Rand
	// kept are values by key, in database 1 behind "1/".
	kept map[string]string
	// asked take the replies to come.
	asked []func(reply string)
	batch strings.Builder
	said  []string

	tracks, resp3 bool
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
	switch n := m.r.IntN(24); {
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
	case n < 7:
		if !m.tracks {
			m.tracks, m.mode, m.prefix = true, m.r.IntN(4), "k"
		}
		words := []string{"CLIENT", "TRACKING", "on"}
		switch m.mode {
		case 0:
			words = append(words, "bcast")
		case 1: // each time other prefixes, which no key has but the first
			words = append(words, "bcast", "prefix", m.prefix)
			m.prefix = fmt.Sprintf("x%d.", m.r.Int())
		}
		if m.r.IntN(2) == 0 {
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
				m.kept[key] = ""
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

// TestNothingStaleInChangingModes: however a client changes from one mode of CLIENT
// TRACKING to another, with NOLOOP and without, and whatever happens to servers
// meanwhile, in the end it keeps only what they have; and no connection of its own is
// left when it is gone.
func TestNothingStaleInChangingModes(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 3)
	// Room for a lane of each reader, shard and database, and some more.
	const readers, pinned = 8, 60
	p := startProxy(t, reactor.Config{Loops: 1, NodeTimeout: 100 * time.Millisecond, MaxPinned: pinned}, shards...)
	const keys = 30
	stop := make(chan struct{})
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	var busy sync.WaitGroup
	for w := range 2 {
		c, r := p.dial(), rand.New(rand.NewPCG(uint64(w), 5))
		c.do("SELECT", fmt.Sprint(w))
		busy.Go(func() {
			for n := 0; !stopped(); n++ {
				c.do("SET", fmt.Sprint("k", r.IntN(keys)), fmt.Sprint(w, ".", n))
			}
		})
	}
	all := make([]*modal, readers)
	for i := range all {
		m := &modal{client: p.dial(), r: rand.New(rand.NewPCG(uint64(i), 6)), kept: map[string]string{}}
		all[i] = m
		m.forget("HELLO", "3")
		m.resp3 = true
		busy.Go(func() {
			for last := 3; last > 0; {
				if stopped() {
					last--
				}
				for range 1 + m.r.IntN(6) {
					m.say(m.db + fmt.Sprint("k", m.r.IntN(keys)))
				}
				m.write(m.batch.String())
				m.batch.Reset()
				for len(m.asked) > 0 {
					m.take()
				}
				m.said = nil
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 7))
	for begin := time.Now(); time.Since(begin) < 2*time.Second; {
		time.Sleep(20 * time.Millisecond)
		switch n := r.IntN(5); n {
		case 0, 1:
			servers[r.IntN(3)].MustDo("CLIENT", "KILL", "TYPE", []string{"normal", "pubsub"}[n], "SKIPME", "yes")
		case 2: // two shards change their slots
			a, b := r.IntN(3), r.IntN(3)
			p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[a].Frozen, c.Shards[b].Frozen = true, true }))
			p.waitAck(p.commit(func(c *routing.Cluster) {
				c.Shards[a].Frozen, c.Shards[b].Frozen = false, false
				c.Shards[a].Slots, c.Shards[b].Slots = c.Shards[b].Slots, c.Shards[a].Slots
			}))
		case 3: // other credentials
			p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[r.IntN(3)].Generation++ }))
		case 4: // no master for a while
			i := r.IntN(3)
			master := p.cluster.Shards[i].Master
			p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[i].Master = "" }))
			p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[i].Master = master }))
		}
	}
	time.Sleep(200 * time.Millisecond)
	close(stop)
	busy.Wait()
	// What is on its way has half a second to come.
	time.Sleep(500 * time.Millisecond)
	kept := 0
	check := p.dial()
	for i, m := range all {
		m.send("ECHO", "end")
		for end := false; !end; {
			m.asked = append(m.asked[:0], func(string) { end = true })
			m.take()
		}
		for _, db := range []string{"", "1/"} {
			check.want("OK", "SELECT", map[string]string{"": "0", "1/": "1"}[db])
			for n := range keys {
				key := fmt.Sprint("k", n)
				v, here := m.kept[db+key]
				if !here {
					continue
				}
				kept++
				if now := strings.Replace(check.do("GET", key), "(nil)", "", 1); now != v {
					t.Errorf("reader %d keeps %s%s = %q, it is %q", i, db, key, v, now)
				}
			}
		}
		m.Close()
	}
	if kept == 0 {
		t.Error("nothing is kept, so nothing was tested")
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

package pubsub

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// server is a master with one connection: it does what is asked when the test
// lets it, in order.
type server struct {
	link  *Link
	up    bool
	has   map[string]bool // "subscribe name"
	queue []asked
}

type asked struct {
	raw   []byte
	batch *Batch
}

func (s *server) Send(raw []byte, b *Batch) { s.queue = append(s.queue, asked{raw, b}) }

// serve does the oldest thing asked.
func (s *server) serve(t *testing.T) {
	q := s.queue[0]
	s.queue = s.queue[1:]
	raw := q.raw
	for len(raw) > 0 {
		var scan resp.Scanner
		lim := resp.DefaultLimits()
		n, err := scan.Scan(raw, &lim, true)
		if err != nil || n == 0 {
			t.Fatalf("%q: %v", raw, err)
		}
		args, _ := resp.Args(raw[:n], nil)
		raw = raw[n:]
		verb := string(args[0])
		for _, name := range args[1:] {
			if on, ok := strings.CutPrefix(verb, "un"); ok {
				delete(s.has, on+" "+string(name))
			} else if strings.Contains(verb, "un") {
				delete(s.has, strings.Replace(verb, "un", "", 1)+" "+string(name))
			} else {
				s.has[verb+" "+string(name)] = true
			}
		}
	}
	q.batch.Done()
}

// fail ends the connection as backend.Conn does: first what was asked, then the
// link.
func (s *server) fail() {
	queue := s.queue
	s.queue, s.up, s.has = nil, false, map[string]bool{}
	for _, q := range queue {
		q.batch.Lost()
	}
	s.link.Down()
}

func (s *server) connect() {
	s.up = true
	s.link.Up(s)
}

// listener is a client with what it should be subscribed to.
type listener struct {
	*Member
	proto int
	wants [kinds]map[string]bool
	busy  bool
	got   int
}

func (l *listener) Proto() int      { return l.proto }
func (l *listener) Push(m *Message) { l.got++ }

func newListener(r *rand.Rand) *listener {
	l := &listener{proto: 2 + r.IntN(2)}
	l.Member = NewMember(l)
	for k := range l.wants {
		l.wants[k] = map[string]bool{}
	}
	return l
}

// TestRefcounts: whatever clients, connections and epochs do in whatever order,
// in the end every server is subscribed to exactly what clients listen to, every
// operation was answered once, and nothing is left when everybody has left.
func TestRefcounts(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		var now int64
		var pool buffer.Pool
		dir := NewDirectory()
		h := NewHub(dir, &pool, &now)
		h.Patience, h.Limit = 1<<40, 1<<40
		servers := make([]*server, 1+r.IntN(4))
		links := make([]*Link, len(servers))
		for i := range servers {
			servers[i] = &server{link: h.NewLink(), has: map[string]bool{}}
			links[i] = servers[i].link
		}
		epoch := func() {
			table := &routing.Table{}
			for i := range table.Owner {
				table.Owner[i] = uint16(r.IntN(len(servers)))
			}
			h.Apply(table, links)
		}
		epoch()
		var clients []*listener
		for range 6 {
			clients = append(clients, newListener(r))
		}
		answers := 0
		operate := func(c *listener) {
			k := Kind(r.IntN(int(kinds)))
			var names [][]byte
			for range 1 + r.IntN(3) {
				names = append(names, fmt.Appendf(nil, "n%d", r.IntN(6)))
			}
			c.busy = true
			listen := r.IntN(2) == 0
			if !listen && r.IntN(3) == 0 {
				names = nil
			}
			want := max(len(names), 1)
			if !listen && len(names) == 0 {
				want = max(len(c.wants[k]), 1)
			}
			done := func(reply []byte) {
				if answers++; !c.busy {
					t.Fatal("answered twice")
				}
				c.busy = false
				if reply != nil && bytes.Count(reply, []byte("subscribe\r\n")) != want {
					t.Fatalf("%q confirms another number than %d", reply, want)
				}
			}
			if listen {
				for _, name := range names {
					c.wants[k][string(name)] = true
				}
				h.Subscribe(c.Member, k, names, done)
				return
			}
			for _, name := range names {
				delete(c.wants[k], string(name))
			}
			if len(names) == 0 {
				clear(c.wants[k])
			}
			if r.IntN(2) == 0 {
				h.Depart(c.Member, k, names)
			}
			h.Unsubscribe(c.Member, k, names, done)
		}
		step := func() {
			s := servers[r.IntN(len(servers))]
			switch n := r.IntN(100); {
			case n < 35:
				i := r.IntN(len(clients))
				if c := clients[i]; !c.busy {
					operate(c)
				} else if r.IntN(20) == 0 {
					h.Leave(c.Member)
					if c.busy || c.Total() != 0 {
						t.Fatal("a client that left waits or listens")
					}
					clients[i] = newListener(r)
				}
			case n < 85:
				if len(s.queue) > 0 {
					s.serve(t)
				}
			case n < 90 && s.up:
				s.fail()
			case n < 97 && !s.up:
				s.connect()
			case n == 99:
				epoch()
			}
			now++
		}
		quiet := func() {
			for _, s := range servers {
				if !s.up {
					s.connect()
				}
			}
			for busy := true; busy; {
				busy = false
				for _, s := range servers {
					for len(s.queue) > 0 {
						s.serve(t)
						busy = true
					}
				}
			}
		}
		check := func() {
			t.Helper()
			want := make([]map[string]bool, len(servers))
			for i := range want {
				want[i] = map[string]bool{}
			}
			listening := map[string]int{}
			for _, c := range clients {
				if c.busy {
					t.Fatalf("seed %d: a client waits while everything is up", seed)
				}
				for k, names := range c.wants {
					if c.Count(Kind(k)) != len(names) {
						t.Fatalf("seed %d: kind %d: %d names, want %v", seed, k, c.Count(Kind(k)), names)
					}
					for name := range names {
						listening[fmt.Sprint(k, name)]++
						for i, s := range servers {
							if Kind(k) != Shard || h.linkOf(slot.Of([]byte(name))) == s.link {
								want[i][verbs[k].on+" "+name] = true
							}
						}
					}
				}
			}
			var patterns signature
			tells := func(link *Link, name string) {
				for i, s := range servers {
					if s.link == link {
						want[i]["subscribe "+name] = true
					}
				}
			}
			for k := range kinds {
				for n := range 6 {
					name := fmt.Sprintf("n%d", n)
					surplus := listening[fmt.Sprint(int(k), name)] - 1
					if surplus < 1 {
						continue
					}
					if k == Pattern {
						patterns.change(name, true)
					}
					eachBit(bitsOf(surplus), func(bit int) { tells(h.publishedAt(k, []byte(name)), bitName(k, bit, name)) })
				}
			}
			eachBit(patterns.bits(), func(bit int) { tells(h.publishedAt(Pattern, nil), signatureName(bit)) })
			for i, s := range servers {
				if !maps.Equal(want[i], s.has) {
					t.Fatalf("seed %d: server %d has %v, want %v", seed, i, slices.Sorted(maps.Keys(s.has)), slices.Sorted(maps.Keys(want[i])))
				}
			}
			for k := range h.topics {
				for n := range 6 {
					name := fmt.Sprintf("n%d", n)
					in := listening[fmt.Sprint(k, name)]
					counted := int64(min(in, 1)) // what a server would say
					if got, others := dir.Subscribers(Kind(k), name, counted); others || got != int64(in) {
						t.Fatalf("seed %d: %d subscribers of %d %s, want %d", seed, got, k, name, in)
					}
					for _, c := range clients {
						c.got = 0
					}
					frame := appendBulk(appendBulk([]byte(">3\r\n"), []string{"message", "pmessage", "smessage"}[k]), name)
					h.Deliver(appendBulk(frame, "text"), nil)
					for _, c := range clients {
						if (c.got == 1) != c.wants[k][name] || c.got > 1 {
							t.Fatalf("seed %d: a client got %d messages of %s", seed, c.got, name)
						}
					}
				}
			}
		}
		for range 4 {
			for range 400 {
				step()
			}
			quiet()
			check()
		}
		for _, c := range clients {
			h.Leave(c.Member)
			for k := range c.wants {
				clear(c.wants[k])
			}
		}
		quiet()
		check()
		if s := h.Stats(); h.Active() || h.Memory() != 0 || !dir.Empty() || s.Subscribers != 0 || s.Subscriptions != 0 || answers == 0 {
			t.Fatalf("seed %d: something is left: %+v, %d bytes", seed, s, h.Memory())
		}
	}
}

// TestClassify: only messages are for clients, and what is no push of that kind
// harms nobody.
func TestClassify(t *testing.T) {
	for frame, want := range map[string]string{
		">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\ny\r\n":              "0 x",
		">4\r\n$8\r\npmessage\r\n$2\r\nx*\r\n$1\r\nx\r\n$1\r\ny\r\n": "1 x*",
		">3\r\n$8\r\nsmessage\r\n$0\r\n\r\n$1\r\ny\r\n":              "2 ",
		">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n":                 "no",
		">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nx\r\n":               "no",
		">3\r\n$7\r\nmessage\r\n$99999999999999999999\r\nx\r\n":      "no",
		">3\r\n$7\r\nmessage\r\n$5\r\nx\r\n":                         "no",
		">1\r\n:1\r\n":                                               "no", "": "no", ">": "no", ">0\r\n": "no", ">3\r\n$7\r\nmessage\r\n_\r\n": "no",
	} {
		got := "no"
		if k, name, ok := classify([]byte(frame)); ok {
			got = fmt.Sprintf("%d %s", k, name)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", frame, got, want)
		}
	}
}

// TestReceivers: the numbers of servers become numbers of clients.
func TestReceivers(t *testing.T) {
	d := NewDirectory()
	d.add(Channel, "news", 5, 2, 3)
	d.add(Pattern, "n*", 3, 1, 2)
	d.add(Pattern, "x*", 9, 1, 8)
	d.add(Shard, "news", 4, 1, 3)
	for _, tc := range []struct {
		kind          Kind
		name          string
		counted, want int64
		others        bool
	}{
		{Channel, "news", 3, 8, false}, // two loops and one of a pattern
		{Channel, "news", 5, 10, true}, // and two of another proxy
		{Channel, "new", 1, 3, false},
		{Channel, "old", 0, 0, false},
		{Channel, "old", 1, 1, true},
		{Shard, "news", 1, 4, false},
		{Channel, "x", 0, 8, false},
	} {
		if got, others := d.Receivers(tc.kind, []byte(tc.name), tc.counted); got != tc.want || others != tc.others {
			t.Errorf("%d %s: %d, others %v, want %d, %v", tc.kind, tc.name, got, others, tc.want, tc.others)
		}
	}
	d.add(Channel, "slow", 0, 1, 0)
	if got, _ := d.Receivers(Channel, []byte("slow"), 0); got != 0 {
		t.Errorf("%d receivers", got)
	}
}

// TestDepart: who asked to unsubscribe is not counted any more, though it still
// gets what was published before.
func TestDepart(t *testing.T) {
	var now int64
	var pool buffer.Pool
	dir := NewDirectory()
	h := NewHub(dir, &pool, &now)
	s := &server{link: h.NewLink(), has: map[string]bool{}}
	h.Apply(&routing.Table{}, []*Link{s.link})
	s.connect()
	serve := func() {
		for len(s.queue) > 0 {
			s.serve(t)
		}
	}
	serve()
	r := rand.New(rand.NewPCG(1, 1))
	goes, stays := newListener(r), newListener(r)
	for _, l := range []*listener{goes, stays} {
		h.Subscribe(l.Member, Channel, [][]byte{[]byte("a"), []byte("b")}, func([]byte) {})
	}
	serve()
	receivers := func(want int64) {
		t.Helper()
		if got, _ := dir.Receivers(Channel, []byte("a"), 1); got != want {
			t.Errorf("%d receivers, want %d", got, want)
		}
	}
	receivers(2)
	for range 2 {
		h.Depart(goes.Member, Channel, [][]byte{[]byte("a"), []byte("unknown")})
		receivers(1)
	}
	h.Deliver([]byte(">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n"), nil)
	if goes.got != 1 || stays.got != 1 {
		t.Errorf("%d and %d messages", goes.got, stays.got)
	}
	h.Unsubscribe(goes.Member, Channel, [][]byte{[]byte("a")}, func([]byte) {})
	receivers(1)
	h.Depart(goes.Member, Channel, nil)
	h.Depart(stays.Member, Channel, nil)
	receivers(0)
	h.Leave(goes.Member)
	h.Leave(stays.Member)
	serve()
	if !dir.Empty() || h.Active() {
		t.Error("something is left")
	}
}

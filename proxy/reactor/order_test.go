package reactor_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// model is the oracle: what one client's keys hold.
type model map[string]string

// step makes a random command on keys of one client and says what must be
// answered.
func (m model) step(r *rand.Rand, prefix string) (args []string, want string) {
	key := func() string { return prefix + strconv.Itoa(r.IntN(20)) }
	get := func(k string) string {
		if v, ok := m[k]; ok {
			return v
		}
		return "(nil)"
	}
	k := key()
	switch r.IntN(12) {
	case 0, 1, 2:
		m[k] = strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(300))
		if r.IntN(100) == 0 {
			m[k] = strings.Repeat("L", 1+r.IntN(300000))
		}
		return []string{"SET", k, m[k]}, "OK"
	case 3, 4, 5:
		return []string{"GET", k}, get(k)
	case 6:
		args, values := []string{"MGET"}, []string{}
		for range 1 + r.IntN(8) {
			k := key()
			args = append(args, k)
			values = append(values, get(k))
		}
		return args, "[" + strings.Join(values, " ") + "]"
	case 7:
		args := []string{"MSET"}
		for range 1 + r.IntN(8) {
			k := key()
			m[k] = strconv.Itoa(r.IntN(1000))
			args = append(args, k, m[k])
		}
		return args, "OK"
	case 8:
		args, n := []string{"DEL"}, 0
		for range 1 + r.IntN(4) {
			k := key()
			if _, ok := m[k]; ok {
				n++
			}
			delete(m, k)
			args = append(args, k)
		}
		return args, strconv.Itoa(n)
	case 9:
		args, n := []string{"EXISTS"}, 0
		for range 1 + r.IntN(4) {
			k := key()
			if _, ok := m[k]; ok {
				n++
			}
			args = append(args, k)
		}
		return args, strconv.Itoa(n)
	case 10:
		m[k] = get(k)
		if m[k] == "(nil)" {
			m[k] = ""
		}
		m[k] += "+"
		return []string{"APPEND", k, "+"}, strconv.Itoa(len(m[k]))
	default:
		return []string{"ECHO", k}, k
	}
}

// TestOrder: many clients pipeline random commands over many shards, in random
// pieces; every reply is the right one, in its place.
func TestOrder(t *testing.T) {
	shards, _ := realShards(t, 4)
	p := startProxy(t, reactor.Config{}, shards...)
	var clients sync.WaitGroup
	for id := range 8 {
		c := p.dial()
		clients.Add(1)
		go func() {
			defer clients.Done()
			r := rand.New(rand.NewPCG(uint64(id), 7))
			m := model{}
			for round := range 60 {
				var stream strings.Builder
				var wants []string
				var sent [][]string
				for range 1 + r.IntN(60) {
					args, want := m.step(r, fmt.Sprintf("c%d-", id))
					stream.WriteString(encode(args...))
					wants = append(wants, want)
					sent = append(sent, args)
				}
				go func(text string) {
					for len(text) > 0 {
						n := min(len(text), 1+r.IntN(len(text)/2+64))
						if _, err := c.Write([]byte(text[:n])); err != nil {
							return
						}
						text = text[n:]
					}
				}(stream.String())
				for i, want := range wants {
					if got := c.read(); got != want {
						t.Errorf("client %d, round %d, reply %d to %.60q: %.60q, want %.60q", id, round, i, sent[i], got, want)
						return
					}
				}
			}
		}()
	}
	clients.Wait()
	if s := p.Stats(); s.MemoryBytes > 4<<20 || s.Held != 0 {
		t.Errorf("%d bytes in use, %d held when nothing is going on", s.MemoryBytes, s.Held)
	}
}

// TestHalfClose: what a client sent before it closed its side is answered.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	var raw strings.Builder
	for i := range 3000 {
		raw.WriteString(encode("SET", fmt.Sprintf("k%d", i), "v"))
	}
	c.write(raw.String())
	if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		c.wantNext("OK")
	}
	c.wantNext("EOF")
}

// TestLargeValues: values far beyond any buffer pass, in both directions, and
// do not stay in memory.
func TestLargeValues(t *testing.T) {
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	for _, size := range []int{8 << 10, 32<<10 - 20, 64 << 10, 100_000, 1 << 20, 3 << 20, 40 << 20} {
		value := strings.Repeat("0123456789abcdef", size/16)
		go c.write(encode("SET", "big", value) + encode("GET", "big") + encode("STRLEN", "big") + encode("MGET", "big", "{x}other", "big2"))
		c.wantNext("OK")
		if got := c.read(); got != value {
			t.Fatalf("%d bytes: %d came back", size, len(got))
		}
		c.wantNext(strconv.Itoa(len(value)))
		if got := c.read(); got != "["+value+" (nil) (nil)]" {
			t.Fatalf("MGET of %d bytes: %d came back", size, len(got))
		}
	}
	time.Sleep(50 * time.Millisecond)
	if s := p.Stats(); s.MemoryBytes > 4<<20 {
		t.Errorf("%d bytes in use afterwards", s.MemoryBytes)
	}
}

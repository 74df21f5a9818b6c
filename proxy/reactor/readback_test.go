package reactor_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// knowledge is what one client's keys may hold, as far as its replies tell: a
// write that may or may not have been executed leaves more than one possibility,
// until the key is read.
type knowledge map[string][]string

func (k knowledge) of(key string) []string {
	if k[key] == nil {
		return []string{"(nil)"}
	}
	return k[key]
}

// outcome of a reply.
type outcome int

const (
	answered outcome = iota
	inDoubt
	notExecuted
)

func outcomeOf(reply string) outcome {
	switch {
	case reply == lost:
		return inDoubt
	case strings.HasPrefix(reply, "-CLUSTERDOWN "):
		return notExecuted
	}
	return answered
}

// wrote learns from the reply to a write that makes value of a key's value; want
// makes the reply of it.
func (k knowledge) wrote(reply, key string, value, want func(old string) string) string {
	var after []string
	switch outcomeOf(reply) {
	case notExecuted:
		return ""
	case inDoubt:
		for _, old := range k.of(key) {
			after = append(after, old, value(old))
		}
	default:
		for _, old := range k.of(key) {
			if want(old) == reply {
				after = append(after, value(old))
			}
		}
		if after == nil {
			return fmt.Sprintf("%.80q (%d bytes) to a write, when %s held %.300q", reply, len(reply), key, k.of(key))
		}
	}
	slices.Sort(after)
	k[key] = slices.Compact(after)
	return ""
}

// read learns from the value of a key.
func (k knowledge) read(value, key string) string {
	if !slices.Contains(k.of(key), value) {
		return fmt.Sprintf("%s is %.80q (%d bytes), it held %.300q", key, value, len(value), k.of(key))
	}
	k[key] = []string{value}
	return ""
}

// asked is what is sent, and what looks at the replies when they are there: it
// tells what is wrong.
type asked struct {
	raw     string
	replies int
	check   func(replies []string) string
}

// ask makes a random command on the keys of a client. unique tells values apart.
func (k knowledge) ask(r *rand.Rand, prefix string, unique int) asked {
	keys := []string{prefix + strconv.Itoa(r.IntN(30)), prefix + strconv.Itoa(r.IntN(30))}
	key, value := keys[0], strconv.Itoa(unique)
	if size := []int{0, 0, 0, 0, 100, 2_000, 40_000, 66_000, 200_000}[r.IntN(9)]; size < 3_000 || r.IntN(20) == 0 {
		value += strings.Repeat("x", size)
	}
	same := func(reply string) func(string) string { return func(string) string { return reply } }
	one := func(check func(reply string) string, args ...string) asked {
		return asked{encode(args...), 1, func(replies []string) string { return check(replies[0]) }}
	}
	counter := "n" + key
	switch r.IntN(20) {
	case 0:
		return one(func(reply string) string { return k.wrote(reply, key, same("(nil)"), gone) }, "DEL", key)
	case 1:
		return one(func(reply string) string { return k.wrote(reply, counter, plusOne, plusOne) }, "INCR", counter)
	case 2:
		return one(func(reply string) string {
			if outcomeOf(reply) == notExecuted {
				reply = lost // the other part may have been
			}
			return k.wrote(reply, keys[0], same(value), same("OK")) + k.wrote(reply, keys[1], same(value), same("OK"))
		}, "MSET", keys[0], value, keys[1], value)
	case 3:
		return one(func(reply string) string {
			if outcomeOf(reply) != answered {
				return ""
			}
			values := strings.Split(strings.Trim(reply, "[]"), " ")
			if len(values) != 2 {
				return fmt.Sprintf("%.80q to MGET of two keys", reply)
			}
			return k.read(values[0], keys[0]) + k.read(values[1], keys[1])
		}, "MGET", keys[0], keys[1])
	case 4:
		return one(func(reply string) string { return k.wrote(reply, key, same(value), same("OK")) },
			"EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", key, value)
	case 5:
		raw := encode("MULTI") + encode("SET", key, value) + encode("GET", key) + encode("EXEC")
		return asked{raw, 4, func(replies []string) string {
			return k.wrote(replies[3], key, same(value), same("[OK "+value+"]"))
		}}
	case 6, 7, 8:
		return one(func(reply string) string { return k.wrote(reply, key, same(value), same("OK")) }, "SET", key, value)
	case 9, 10, 11:
		return one(func(reply string) string {
			if outcomeOf(reply) != answered {
				return ""
			}
			return k.read(reply, key)
		}, "GET", key)
	default:
		return asked{encode("SET", key, value) + encode("GET", key), 2, func(replies []string) string {
			wrong := k.wrote(replies[0], key, same(value), same("OK"))
			if outcomeOf(replies[1]) == answered {
				wrong += k.read(replies[1], key)
			}
			return wrong
		}}
	}
}

func plusOne(old string) string {
	n, _ := strconv.Atoi(old)
	return strconv.Itoa(n + 1)
}

// gone is the reply to DEL.
func gone(old string) string {
	if old == "(nil)" {
		return "0"
	}
	return "1"
}

// readBack is what several clients do at once, while others disturb them.
type readBack struct {
	p                     *proxy
	replies, doubts, ends atomic.Int64
	stop                  atomic.Bool
}

// work sends pipelines until it is told to stop.
func (b *readBack) work(t *testing.T, id uint64) {
	r := rand.New(rand.NewPCG(id, 3))
	for life := 0; !b.stop.Load(); life++ {
		b.live(t, r, id, life)
	}
}

// live is one connection: it ends early when half of a large reply was lost.
func (b *readBack) live(t *testing.T, r *rand.Rand, id uint64, life int) {
	c := b.p.dial()
	defer c.Close()
	if id%3 == 2 {
		c.do("HELLO", "3")
	}
	if id%2 == 1 {
		c.want("OK", "SELECT", "9")
	}
	k, prefix := knowledge{}, fmt.Sprintf("c%d.%d-", id, life)
	for unique := 0; ; {
		stopping := b.stop.Load() // then it is the last turn
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Error(err)
			return
		}
		var stream strings.Builder
		var all []asked
		for range 1 + r.IntN([]int{1, 30, 500, 1500}[r.IntN(4)]) {
			unique++
			a := k.ask(r, prefix, unique)
			stream.WriteString(a.raw)
			all = append(all, a)
		}
		go c.writePieces(stream.String(), rand.New(rand.NewPCG(id, uint64(unique))))
		for i, a := range all {
			replies := make([]string, a.replies)
			for j := range replies {
				if replies[j] = c.read(); replies[j] == "EOF" {
					b.ends.Add(1)
					return
				}
				if outcomeOf(replies[j]) != answered {
					b.doubts.Add(1)
				}
			}
			b.replies.Add(1)
			if wrong := a.check(replies); wrong != "" {
				t.Errorf("client %d.%d, request %d of %d: %s", id, life, i, len(all), wrong)
				b.stop.Store(true)
				return
			}
		}
		if stopping {
			return
		}
	}
}

// disturb does something that may cost replies, and nothing else. admins are
// connections to the servers that stay.
func (b *readBack) disturb(r *rand.Rand, servers []*redistest.Server, admins []*client) {
	which := r.IntN(len(servers))
	s, admin := servers[which], admins[which]
	if err := admin.SetDeadline(time.Now().Add(patience)); err != nil {
		b.p.t.Fatal(err)
	}
	at := r.IntN(len(servers))
	change := func(of func(shard *routing.Shard)) uint64 {
		return b.p.commit(func(c *routing.Cluster) { of(&c.Shards[at]) })
	}
	pause := time.Duration(r.IntN(30)) * time.Millisecond
	switch r.IntN(8) {
	case 0, 1:
		admin.do("CLIENT", "KILL", "TYPE", "normal")
	case 2, 3: // one connection
		list := strings.Split(strings.TrimSpace(admin.do("CLIENT", "LIST", "TYPE", "normal")), "\n")
		victim := strings.TrimPrefix(strings.Fields(list[r.IntN(len(list))])[0], "id=")
		admin.do("CLIENT", "KILL", "ID", victim, "SKIPME", "yes")
	case 4:
		change(func(shard *routing.Shard) { shard.Frozen = true })
		time.Sleep(pause)
		change(func(shard *routing.Shard) { shard.Frozen = false })
	case 5:
		change(func(shard *routing.Shard) { shard.Generation++ })
	case 6: // it hangs
		s.Pause()
		time.Sleep(pause)
		s.Resume()
	case 7: // there is no room for all connections for a time
		admin.want("OK", "CONFIG", "SET", "maxclients", strconv.Itoa(3+r.IntN(6)))
		admin.do("CLIENT", "KILL", "TYPE", "normal")
		time.Sleep(3 * pause)
		admin.want("OK", "CONFIG", "SET", "maxclients", "10000")
	}
}

// TestReadBack: whatever happens to connections, shards and epochs, a client reads
// what it wrote: behind a write that was answered its value, behind one that may
// or may not have been executed one of the two; and nothing is executed twice.
func TestReadBack(t *testing.T) {
	t.Parallel()
	const disturbances, clients = 40, 6
	shards, servers := realShards(t, 2)
	b := &readBack{p: startProxy(t, reactor.Config{}, shards...)}
	var work sync.WaitGroup
	for id := range uint64(clients) {
		work.Go(func() { b.work(t, id) })
	}
	var admins []*client
	for _, s := range servers {
		admins = append(admins, dial(t, s.Address))
	}
	r := rand.New(rand.NewPCG(5, 5))
	for range disturbances {
		// Some replies first, so that there is something to disturb.
		for before, begin := b.replies.Load(), time.Now(); b.replies.Load() < before+200 && time.Since(begin) < 10*time.Second && !b.stop.Load(); {
			time.Sleep(time.Millisecond)
		}
		b.disturb(r, servers, admins)
	}
	b.stop.Store(true)
	work.Wait()
	if b.doubts.Load() == 0 || b.replies.Load() < 200*disturbances {
		t.Errorf("%d replies, %d of them errors", b.replies.Load(), b.doubts.Load())
	}
	t.Logf("%d replies, %d of them errors, %d connections ended", b.replies.Load(), b.doubts.Load(), b.ends.Load())
}

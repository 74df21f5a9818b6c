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

// trackingScripts are what clients do with CLIENT TRACKING. A line that begins
// with "!" is sent by another client. Keys share a slot where the order of
// invalidations matters.
var trackingScripts = map[string]string{
	"off":          "CLIENT TRACKINGINFO|CLIENT GETREDIR|CLIENT CACHING yes|CLIENT TRACKING off|GET a|!SET a 1",
	"default":      "CLIENT TRACKING on|CLIENT TRACKINGINFO|CLIENT GETREDIR|GET a|!SET a 1|!SET a 2|GET a|GET a|!DEL a|SET a 3|GET a|SET a 4|!SET a 5",
	"many":         "CLIENT TRACKING on|MGET {t}a {t}b {t}c|!MSET {t}b 1 {t}x 2|EXISTS {t}a|TTL {t}x|!DEL {t}x|!EXPIRE {t}b 100|HGETALL h|!HSET h f v",
	"several":      "CLIENT TRACKING on|MGET a b c d|!SET a 1|!SET d 1|!SET b 1|!SET c 1|!SET a 2",
	"flush":        "CLIENT TRACKING on|GET a|GET b|!FLUSHALL|GET a|!SET a 1|!FLUSHDB",
	"transaction":  "CLIENT TRACKING on|MULTI|GET {t}m|SET {t}n 1|EXEC|!SET {t}m 1|!SET {t}n 2|GET {t}n|MULTI|SET {t}n 3|EXEC",
	"with others":  "CLIENT TRACKING on|MULTI|GET {t}m|CLIENT GETNAME|EXEC|!SET {t}m 1",
	"script":       "CLIENT TRACKING on|EVAL return(redis.call('get',KEYS[1])) 1 e|!SET e 1|!SET e 2",
	"script sha":   "CLIENT TRACKING on|SCRIPT LOAD return(redis.call('get',KEYS[1]))|EVALSHA c77382aa965ed715a9230ae8a1d2409e254c2b00 1 e|!SET e 1|!SET e 2",
	"optin":        "CLIENT TRACKING on optin|GET a|!SET a 1|CLIENT CACHING no|CLIENT CACHING maybe|CLIENT CACHING yes|GET a|GET b|!SET b 1|!SET a 2",
	"optin multi":  "CLIENT TRACKING on optin|CLIENT CACHING yes|MULTI|GET {t}a|GET {t}b|EXEC|GET {t}c|!SET {t}c 1|!SET {t}b 1|!SET {t}a 1",
	"optout":       "CLIENT TRACKING on optout|CLIENT CACHING yes|CLIENT CACHING no|GET a|GET b|!SET a 1|!SET b 1|CLIENT TRACKING on optin",
	"bcast":        "CLIENT TRACKING on bcast prefix user: prefix item:|CLIENT TRACKINGINFO|!SET user:1 1|!SET other 1|GET other|!DEL other|!SET item:1 1|CLIENT TRACKING on bcast prefix k|!SET k1 1|CLIENT TRACKING on|CLIENT CACHING yes",
	"bcast all":    "CLIENT TRACKING on bcast|CLIENT TRACKINGINFO|!SET x 1|!SET y 1|CLIENT TRACKING off|!SET x 2|GET x",
	"again":        "CLIENT TRACKING on bcast|CLIENT TRACKING off|CLIENT TRACKING on|GET a|!SET a 1|CLIENT TRACKING off|CLIENT TRACKING on bcast|!SET a 2",
	"noloop":       "CLIENT TRACKING on noloop|CLIENT TRACKINGINFO|GET a|SET a 1|!SET a 2|GET a|!SET a 3|!SET a 4|GET a|GET b|DEL a b|!MSET a 1 b 1|SET a 2",
	"noloop many":  "CLIENT TRACKING on noloop|MGET a b c d|MSET a 1 b 1 c 1 d 1|!SET a 2|MGET a b c|!SET b 1|DEL a b c|MULTI|GET {t}m|SET {t}m 1|EXEC|GET {t}m|!SET {t}m 2|EVAL return(redis.call('get',KEYS[1])) 1 e|EVAL redis.call('set',KEYS[1],1) 1 e|GET e|!SET e 2",
	"noloop optin": "CLIENT TRACKING on optin noloop|GET a|CLIENT CACHING yes|GET b|SET b 1|CLIENT CACHING yes|GET b|!SET b 1|!SET a 1|CLIENT TRACKING on noloop|GET a|SET a 1|GET a|!SET a 2|CLIENT TRACKING off|!SET a 1",
	"noloop flush": "CLIENT TRACKING on noloop|GET a|!FLUSHALL|GET a|!SET a 1|RESET|HELLO 3|!SET a 1|CLIENT TRACKINGINFO",
	"noloop bcast": "CLIENT TRACKING on bcast noloop prefix {t}a prefix b|CLIENT TRACKINGINFO|!SET {t}a1 1|SET {t}a1 2|SET b1 1|!SET b1 2|!SET c 1|!MSET {t}a1 1 {t}a2 2|MSET {t}a1 1 {t}a2 2|MULTI|SET b1 1|EXEC|GET b1|CLIENT TRACKING on bcast noloop prefix {t}a prefix b|CLIENT TRACKING on noloop|!DEL b1|CLIENT TRACKING off|!SET b1 1",
	"noloop all":   "CLIENT TRACKING on bcast noloop|!SET a 1|SET a 1|DEL a b|EVAL return(redis.call('set',KEYS[1],1)) 1 e|!SET e 2|CLIENT TRACKINGINFO",
	"noloop pipes": "CLIENT TRACKING on noloop|HELLO 2|GET a|SET a 1|!SET a 2|HELLO 2|CLIENT TRACKINGINFO",
	"reset":        "CLIENT TRACKING on|GET a|RESET|HELLO 3|!SET a 1|CLIENT TRACKINGINFO",
	"mistakes":     "CLIENT TRACKING|CLIENT TRACKING maybe|CLIENT TRACKING on foo|CLIENT TRACKING on prefix x|CLIENT TRACKING on optin optout|CLIENT TRACKING on bcast optin|CLIENT TRACKING on bcast prefix ab prefix a|CLIENT TRACKING on prefix|CLIENT CACHING|CLIENT TRACKINGINFO x",
	"prefixes":     "CLIENT TRACKING on bcast prefix item:|CLIENT TRACKING on bcast prefix item:9|CLIENT TRACKING on bcast prefix i|CLIENT TRACKING on bcast prefix zz|CLIENT TRACKINGINFO",
	"prefix, all":  "CLIENT TRACKING on bcast prefix a|CLIENT TRACKING on bcast|CLIENT TRACKINGINFO|!SET a1 1|!SET b1 1|!MSET {t}1 1 {t}2 2|CLIENT TRACKING on bcast|CLIENT TRACKINGINFO|!DEL a1|CLIENT TRACKING on bcast prefix b",
	"two prefixes": "CLIENT TRACKING on bcast prefix x{t} prefix a{t}|CLIENT TRACKING on bcast prefix m{t}|!MSET x{t}1 1 a{t}2 1 a{t}1 1 n{t} 1|!DEL m{t} x{t}1 a{t}1",
	"subscribed":   "SUBSCRIBE ch|CLIENT TRACKING on|GET a|!PUBLISH ch 1|!SET a 1|UNSUBSCRIBE ch|GET a|!SET a 2",
	"not in RESP2": "HELLO 2|CLIENT TRACKING on|GET a|!SET a 1|CLIENT TRACKINGINFO|GET a",
}

// TestTrackingAsAtAServer: what a client that tracks sees is, byte for byte,
// what it sees at a plain server.
func TestTrackingAsAtAServer(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Open: true})
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 2}, shards...)
	for name, script := range trackingScripts {
		t.Run(name, func(t *testing.T) {
			here, there := p.dial(), dial(t, plain.Address)
			defer here.Close()
			defer there.Close()
			otherHere, otherThere := p.dial(), dial(t, plain.Address)
			defer otherHere.Close()
			defer otherThere.Close()
			otherHere.do("FLUSHALL")
			otherThere.do("FLUSHALL")
			multi := false
			for _, line := range append([]string{"HELLO 3", "DBSIZE"}, strings.Split(script, "|")...) {
				word, other := strings.CutPrefix(line, "!")
				args := strings.Fields(word)
				if other {
					if got, want := otherHere.do(args...), otherThere.do(args...); got != want {
						t.Fatalf("%s: %q, want %q", line, got, want)
					}
				} else {
					here.send(args...)
					there.send(args...)
					if multi = multi && line != "EXEC" || line == "MULTI"; multi || strings.HasPrefix(line, "CLIENT CACHING") {
						// A marker would be queued, or be the command that is cached.
						if got, want := here.raw(), there.raw(); got != want {
							t.Fatalf("%s: %q, want %q", line, got, want)
						}
						continue
					}
				}
				// A server sends its pushes before it answers the next request; DBSIZE
				// at the beginning waits for those of FLUSHALL.
				there.send("ECHO", "marker")
				for {
					want := clientID.ReplaceAllString(there.raw(), "id\r\n:0")
					if strings.HasSuffix(want, "\r\nmarker\r\n") {
						break
					}
					if got := clientID.ReplaceAllString(here.raw(), "id\r\n:0"); got != want {
						t.Fatalf("%s: %q, want %q", line, got, want)
					}
				}
			}
			here.want("end", "ECHO", "end")
			here.silent(20 * time.Millisecond)
		})
	}
}

// trackingWords are what random sequences are made of.
var trackingWords = []string{
	"CLIENT TRACKING on", "CLIENT TRACKING off", "CLIENT TRACKING on optin", "CLIENT TRACKING on optout",
	"CLIENT TRACKING on bcast", "CLIENT TRACKING on bcast prefix {c}a", "CLIENT TRACKING on bcast prefix {c}b prefix x", "CLIENT TRACKING on noloop",
	"CLIENT TRACKING on bcast noloop", "CLIENT TRACKING on prefix {c}a", "CLIENT TRACKING on optin optout", "CLIENT TRACKING maybe", "CLIENT TRACKING off bcast",
	"CLIENT CACHING yes", "CLIENT CACHING no", "CLIENT CACHING", "CLIENT CACHING maybe", "CLIENT GETREDIR", "CLIENT TRACKINGINFO", "CLIENT TRACKINGINFO",
	"CLIENT", "CLIENT NOSUCH", "NOSUCH", "GET", "GET {c}a", "GET {c}a", "GET {c}c", "MGET {c}a {c}b", "ECHO 1", "SET {c}b 1", "MULTI", "MULTI", "EXEC", "DISCARD", "HELLO 2", "HELLO 3", "HELLO 3", "RESET",
	"!SET {c}c 1", "!SET {c}a 1", "!SET {c}b 1", "!MSET {c}a 1 {c}b 1", "!SET {c}a 2", "!DEL {c}a {c}b {c}c",
}

// TestTrackingSequences: whatever CLIENT TRACKING and CACHING a client sends,
// and with whatever mistakes, it sees what it would see at a plain server.
func TestTrackingSequences(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Open: true})
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	const marker = "-ERR No such client\r\n"
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 3))
		here, there, otherHere, otherThere := p.dial(), dial(t, plain.Address), p.dial(), dial(t, plain.Address)
		otherHere.do("FLUSHALL") // the server forgets what the last client read
		otherThere.do("FLUSHALL")
		var said []string
		multi, resp3, tracks, noloop, bcast := false, false, false, false, false
		for range 40 {
			line := trackingWords[r.IntN(len(trackingWords))]
			word, other := strings.CutPrefix(line, "!")
			switch {
			case !resp3 && strings.Contains(line, "GET "):
				continue // TestReadsInRESP2
			case other && multi:
				continue // what is pushed may come in front of QUEUED, or behind it
			case bcast && !noloop && !other && strings.HasPrefix(line, "SET"):
				continue // it is told of that before the reply or after it
			case noloop && (line == "RESET" || strings.HasPrefix(line, "CLIENT TRACKING o")), tracks && strings.HasSuffix(line, "noloop"):
				continue // TestFromAndToNoLoop
			case multi && strings.HasPrefix(line, "HELLO"), multi && strings.HasPrefix(line, "CLIENT TRACKING on"):
				continue
			}
			said = append(said, line)
			args := strings.Fields(word)
			if other {
				if got, want := otherHere.do(args...), otherThere.do(args...); got != want {
					t.Fatalf("%q: %q, want %q", said, got, want)
				}
			} else {
				here.send(args...)
				there.send(args...)
				got, want := clientID.ReplaceAllString(here.raw(), "id\r\n:0"), clientID.ReplaceAllString(there.raw(), "id\r\n:0")
				if got != want {
					t.Fatalf("%q: %q, want %q", said, got, want)
				}
				ok := want == "+OK\r\n"
				switch line {
				case "MULTI":
					multi = true
				case "EXEC", "DISCARD", "RESET":
					multi = false
				}
				switch {
				case line == "RESET":
					resp3, tracks, noloop, bcast = false, false, false, false
				case strings.HasPrefix(line, "HELLO"):
					resp3 = line == "HELLO 3"
				case ok && strings.HasPrefix(line, "CLIENT TRACKING o"):
					tracks = tracks || !strings.Contains(line, "off")
					noloop, bcast = strings.Contains(line, "noloop"), strings.Contains(line, "on bcast")
				}
			}
			if multi {
				continue
			}
			there.send("CLIENT", "KILL", "1.2.3.4:5")
			for {
				want := there.raw()
				if want == marker {
					break
				}
				if got := here.raw(); got != want {
					t.Fatalf("%q: pushed %q, want %q", said, got, want)
				}
			}
		}
		if multi {
			here.want("OK", "DISCARD")
		}
		here.want("end", "ECHO", "end")
		for _, c := range []*client{here, there, otherHere, otherThere} {
			c.Close()
		}
	}
}

// TestReadsInRESP2: what was read before HELLO 3 may have changed.
func TestReadsInRESP2(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	c := startProxy(t, reactor.Config{Loops: 1}, shards...).dial()
	c.want("OK", "CLIENT", "TRACKING", "on")
	c.want("(nil)", "GET", "k")
	c.do("HELLO", "3")
	c.wantNext("[invalidate (nil)]")
	c.do("HELLO", "2")
	c.do("HELLO", "3")
	c.want("OK", "CLIENT", "TRACKING", "off")
}

// cache is a client that keeps what it read, as caching libraries do.
type cache struct {
	*client
	kept map[string]string
	// asked are the keys of the replies to come, behind "!" if they are changed.
	asked []string
	// own begins the keys that nobody else changes; with NOLOOP it is told of none.
	own string
}

// take takes one reply or push. It returns false for the reply to ECHO.
func (c *cache) take(t *testing.T) bool {
	t.Helper()
	reply := c.raw()
	switch {
	case reply == ">2\r\n$10\r\ninvalidate\r\n_\r\n":
		clear(c.kept)
	case strings.HasPrefix(reply, ">2\r\n$10\r\ninvalidate\r\n*"):
		lines := strings.Split(reply, "\r\n")
		for i := 5; i < len(lines); i += 2 {
			if c.own != "" && strings.HasPrefix(lines[i], c.own) {
				t.Errorf("told of its own change of %s", lines[i])
			}
			delete(c.kept, lines[i])
		}
	case reply == "$3\r\nend\r\n":
		return false
	case strings.HasPrefix(c.asked[0], "!"): // a change: what it is now, it knows
		for _, key := range strings.Fields(c.asked[0][1:]) {
			delete(c.kept, key)
		}
		c.asked = c.asked[1:]
	default:
		key := c.asked[0]
		c.asked = c.asked[1:]
		lines := strings.Split(reply, "\r\n")
		switch {
		case lines[0] == "_":
			c.kept[key] = ""
		case lines[0][0] == '$':
			c.kept[key] = lines[1]
		case lines[0][0] == '*': // MGET of key and its successor
			values := []string{}
			for i := 1; i < len(lines)-1; i++ {
				if lines[i] == "_" {
					values = append(values, "")
				} else {
					i++
					values = append(values, lines[i])
				}
			}
			a, b, _ := strings.Cut(key, " ")
			c.kept[a], c.kept[b] = values[0], values[1]
		case lines[0][0] == '-': // of a connection that was cut: nothing to keep
		default:
			t.Fatalf("reply to GET %s: %q", key, reply)
		}
	}
	return true
}

// TestNothingStaleIsKept: whatever is written meanwhile, and whatever breaks,
// in the end a client that keeps what it reads has only what the servers have.
func TestNothingStaleIsKept(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 2}, shards...)
	const keys = 40
	key := func(r *rand.Rand) string { return fmt.Sprint("k", r.IntN(keys)) }
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 3 {
		c := p.dial()
		r := rand.New(rand.NewPCG(uint64(w), 1))
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				switch r.IntN(12) {
				case 0:
					c.do("DEL", key(r), key(r))
				case 1:
					c.do("MSET", key(r), fmt.Sprint(w, ":", n), key(r), fmt.Sprint(w, "-", n))
				default:
					c.do("SET", key(r), fmt.Sprint(w, ".", n))
				}
			}
		})
	}
	var readers sync.WaitGroup
	for n, mode := range []string{"on", "on optout", "on", "on bcast", "on noloop", "on optout noloop", "on noloop", "on bcast noloop"} {
		c := &cache{client: p.dial(), kept: map[string]string{}}
		c.do("HELLO", "3")
		c.do(strings.Fields("CLIENT TRACKING " + mode)...)
		if strings.HasSuffix(mode, "noloop") {
			c.own = fmt.Sprint("own", n)
		}
		r := rand.New(rand.NewPCG(uint64(n), 2))
		readers.Go(func() {
			for last := 3; last > 0; {
				select {
				case <-stop: // a few reads more, so that something is kept
					last--
				default:
				}
				var batch strings.Builder
				for range 1 + r.IntN(8) {
					a, b := key(r), key(r)
					if c.own != "" && r.IntN(2) == 0 {
						a, b = c.own+a, c.own+b
					}
					if c.own != "" && r.IntN(3) == 0 {
						switch kind := r.IntN(5); {
						case kind == 0:
							batch.WriteString(encode("MSET", a, "1", b, "2"))
						case kind == 1:
							batch.WriteString(encode("MULTI") + encode("APPEND", a, "x") + encode("GET", a) + encode("EXEC"))
							c.asked = append(c.asked, "!", "!", "!")
						case kind == 2 && !strings.Contains(mode, "bcast"): // what a script changes, a server tells it in BCAST mode
							batch.WriteString(encode("EVAL", "redis.call('get',KEYS[1]) redis.call('set',KEYS[1],'s')", "1", a))
						case kind == 3:
							batch.WriteString(encode("DEL", a, b))
						default:
							batch.WriteString(encode("SET", a, "own"))
						}
						c.asked = append(c.asked, "!"+a+" "+b)
						continue
					}
					if r.IntN(3) == 0 && a != b {
						batch.WriteString(encode("MGET", a, b))
						c.asked = append(c.asked, a+" "+b)
					} else {
						batch.WriteString(encode("GET", a))
						c.asked = append(c.asked, a)
					}
				}
				c.write(batch.String())
				for len(c.asked) > 0 {
					c.take(t)
				}
			}
		})
		t.Cleanup(func() {
			if t.Failed() {
				return
			}
			// What is on its way has half a second to come.
			time.Sleep(500 * time.Millisecond)
			c.send("ECHO", "end")
			for c.take(t) {
			}
			check := p.dial()
			for k, v := range c.kept {
				if now := strings.Replace(check.do("GET", k), "(nil)", "", 1); now != v {
					t.Errorf("reader %d keeps %s = %q, it is %q", n, k, v, now)
				}
			}
			if len(c.kept) == 0 {
				t.Errorf("reader %d keeps nothing, so nothing was tested", n)
			}
		})
	}
	// Connections break meanwhile.
	for i := range 6 {
		time.Sleep(60 * time.Millisecond)
		servers[i%3].MustDo("CLIENT", "KILL", "TYPE", []string{"normal", "pubsub"}[i%2], "SKIPME", "yes")
	}
	time.Sleep(200 * time.Millisecond)
	close(stop)
	writers.Wait()
	readers.Wait()
}

// TestTrackingAndEpochs: a client is told to forget everything when the master
// of what it read is replaced, and is told of changes at the new one.
func TestTrackingAndEpochs(t *testing.T) {
	t.Parallel()
	p, a, b := watchPair(t)
	for _, mode := range []string{"", "bcast", "noloop", "bcast noloop"} {
		c := p.dial()
		c.do("HELLO", "3")
		c.want("OK", strings.Fields("CLIENT TRACKING on "+mode)...)
		a.MustDo("SET", "k", "1")
		b.MustDo("SET", "k", "1")
		if strings.HasPrefix(mode, "bcast") {
			c.wantNext("[invalidate [k]]")
		}
		c.want("1", "GET", "k")
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "b" }))
		c.wantNext("[invalidate (nil)]")
		c.want("1", "GET", "k")
		b.MustDo("SET", "k", "2")
		c.wantNext("[invalidate [k]]")
		if strings.HasSuffix(mode, "noloop") {
			c.want("2", "GET", "k")
			c.want("OK", "SET", "k", "3")
			c.want("3", "GET", "k")
			// What is held for a frozen shard, goes the same way.
			p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true }))
			c.send("SET", "k", "4")
			c.silent(20 * time.Millisecond)
			p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = false }))
			c.wantNext("OK")
			c.want("4", "GET", "k")
			// Other credentials are other connections.
			p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Generation++ }))
			c.wantNext("[invalidate (nil)]")
			c.want("4", "GET", "k")
			c.want("OK", "SET", "k", "5")
			c.silent(20 * time.Millisecond)
			c.want("5", "GET", "k")
		}
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "a" }))
		c.wantNext("[invalidate (nil)]")
		c.Close()
	}
}

// TestBroadcastOfMastersToCome: a client in BCAST mode is told to forget everything
// when a master begins to tell of changes that had none, or is new: they may have been
// missed until then.
func TestBroadcastOfMastersToCome(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{Loops: 1, HoldTimeout: 200 * time.Millisecond}, shards[:2]...)
	for _, mode := range []string{"bcast", "bcast noloop"} {
		var master string
		p.waitAck(p.commit(func(c *routing.Cluster) { master, c.Shards[1].Master = c.Shards[1].Master, "" }))
		c := p.dial()
		c.do("HELLO", "3")
		c.want("OK", strings.Fields("CLIENT TRACKING on "+mode)...)
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[1].Master = master }))
		c.wantNext("[invalidate (nil)]")
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards = shards }))
		c.wantNext("[invalidate (nil)]")
		p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards = shards[:2] }))
		if info := c.do("CLIENT", "INFO"); !strings.Contains(info, " flags=tB ") {
			t.Error(info)
		}
		c.want("OK", "CLIENT", "TRACKING", "off")
		if info := c.do("CLIENT", "INFO"); !strings.Contains(info, " flags=N ") {
			t.Error(info)
		}
		c.Close()
	}
}

// TestReadsThatAreNotTracked: what is read through a connection of the client's
// own is not tracked, so the client is told not to keep it.
func TestReadsThatAreNotTracked(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	c := startProxy(t, reactor.Config{Loops: 1}, shards...).dial()
	c.do("HELLO", "3")
	c.want("OK", "CLIENT", "TRACKING", "on")
	c.want("OK", "WATCH", "k")
	c.want("OK", "MULTI")
	c.want("QUEUED", "GET", "k")
	c.want("[(nil)]", "EXEC")
	c.wantNext("[invalidate [k]]")
	c.want("1-1", "XADD", "s", "1-1", "f", "v")
	c.want("[s [[1-1 [f v]]]]", "XREAD", "BLOCK", "1000", "STREAMS", "s", "0")
	c.wantNext("[invalidate [s]]")
}

// TestTrackingAndBrokenConnections: a server forgets what was read through a
// connection that ended, so its client must forget it, too.
func TestTrackingAndBrokenConnections(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	for _, mode := range []string{"on", "on bcast", "on noloop", "on bcast noloop"} {
		c := p.dial()
		c.do("HELLO", "3")
		c.want("OK", strings.Fields("CLIENT TRACKING "+mode)...)
		c.want("(nil)", "GET", "k")
		servers[0].MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		c.wantNext("[invalidate (nil)]")
		c.want("(nil)", "GET", "k")
		servers[0].MustDo("SET", "k", "1")
		c.wantNext("[invalidate [k]]")
		servers[0].MustDo("DEL", "k")
		if strings.HasPrefix(mode, "on bcast") {
			c.wantNext("[invalidate [k]]")
		}
		c.Close()
	}
}

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
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// raw reads one reply as the bytes it is.
func (c *client) raw() string {
	c.t.Helper()
	var f resp.Framer
	var reply []byte
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return string(reply) + "<EOF>"
		}
		reply = append(reply, b)
		if _, done, err := f.Feed(reply[len(reply)-1:]); err != nil {
			c.t.Fatalf("%q: %v", reply, err)
		} else if done {
			return string(reply)
		}
	}
}

// pair is a client of the proxy and one of a plain server that are told the same.
type pair struct{ proxied, plain *client }

func (p *pair) do(t *testing.T, args ...string) string {
	t.Helper()
	p.proxied.send(args...)
	p.plain.send(args...)
	got, want := p.proxied.raw(), p.plain.raw()
	if got != want {
		t.Fatalf("%q: %q, want %q", args, got, want)
	}
	return got
}

// sessions are what clients do with transactions. A line begins with the number
// of the client when it is not the first; "_" stands for an empty argument.
var sessions = map[string]string{
	"plain":         "MULTI|SET {t}a 1|INCR {t}a|GET {t}a|EXEC|GET {t}a",
	"empty":         "MULTI|EXEC",
	"no multi":      "EXEC|DISCARD|UNWATCH",
	"discard":       "MULTI|SET {t}a 1|DISCARD|GET {t}a|EXEC",
	"nested":        "MULTI|MULTI|SET {t}a 1|EXEC",
	"watch inside":  "MULTI|WATCH {t}a|SET {t}a 1|EXEC",
	"unknown":       "MULTI|NOPE a b|SET {t}a 1|EXEC|GET {t}a|MULTI|EXEC",
	"arity":         "MULTI|GET|SET {t}a 1|EXEC|EXISTS {t}a",
	"subcommand":    "MULTI|CLIENT NOPE|EXEC",
	"exec arity":    "EXEC x|MULTI|SET {t}a 1|EXEC x|EXEC",
	"others' arity": "MULTI x|MULTI|MULTI x|EXEC|MULTI|DISCARD x|DISCARD|DISCARD|MULTI|UNWATCH x|EXEC|WATCH",
	"not allowed":   "MULTI|SAVE x|SYNC|MULTI|EXEC|MULTI|SAVE|SET {t}a 1|EXEC",
	"runtime error": "SET {t}s x|MULTI|INCR {t}s|LPUSH {t}s x|SET {t}a 2|GET {t}a|EXEC",
	"no keys":       "MULTI|PING|PING x|ECHO hi|EXEC|MULTI|PING a b|EXEC",
	"ping too":      "MULTI|PING|SET {t}a 1|ECHO x|EXEC",
	"unwatch":       "MULTI|UNWATCH|SET {t}a 1|EXEC|UNWATCH",
	"split":         "MULTI|MSET {t}a 1 {t}b 2|MGET {t}a {t}b {t}c|DEL {t}a {t}b|EXISTS {t}a {t}b|EXEC",
	"malformed":     "MULTI|EVAL x 5 a|SET {t}a 1|XREAD COUNT 1 a|EXEC",
	"script":        "MULTI|EVAL redis.call('set',KEYS[1],'v') 1 {t}a|EVAL return{1,{2,'x'}} 1 {t}a|EXEC|GET {t}a",
	"nested reply":  "HSET {t}h f v|MULTI|HGETALL {t}h|SMEMBERS {t}none|ZRANGE {t}none 0 -1|GET {t}none|EXEC",
	"inline":        "~MULTI|~SET {t}a 1|~GET {t}a|~EXEC",
	"reset":         "MULTI|SET {t}a 1|RESET|EXEC|GET {t}a",
	"quit":          "MULTI|SET {t}a 1|QUIT",
	"hello":         "MULTI|HELLO 9|SET {t}a 1|EXEC",
	"select":        "MULTI|SELECT 0|SET {t}a 1|SELECT x|GET {t}a|EXEC",
	"client":        "MULTI|CLIENT SETNAME bob|SET {t}a 1|CLIENT GETNAME|CLIENT SETNAME a\x01b|EXEC|CLIENT GETNAME",
	"dbsize":        "SET {t}a 1|MULTI|DBSIZE|SET {t}b 1|DBSIZE|FLUSHALL|DBSIZE|SET {t}c 1|KEYS *|EXEC|DBSIZE|MULTI|DBSIZE|FLUSHDB|EXEC",
	"flushed":       "SET {t}a 1|MULTI|FLUSHALL NOPE|SET {t}c 1|EXEC",

	"watch":                  "WATCH {t}a|GET {t}a|MULTI|SET {t}a 1|EXEC|GET {t}a",
	"watch touched":          "WATCH {t}a {t}b|2:SET {t}b 1|MULTI|SET {t}a 1|EXEC|GET {t}a|MULTI|SET {t}a 1|EXEC",
	"watch own":              "WATCH {t}a|SET {t}a 0|MULTI|SET {t}a 1|EXEC|GET {t}a",
	"watch unwatched":        "WATCH {t}a|2:SET {t}a 0|UNWATCH|MULTI|SET {t}a 1|EXEC",
	"watch discarded":        "WATCH {t}a|2:SET {t}a 0|MULTI|DISCARD|MULTI|SET {t}a 1|EXEC",
	"watch empty":            "WATCH {t}a|2:SET {t}a 0|MULTI|EXEC|MULTI|EXEC|WATCH {t}a|MULTI|EXEC",
	"watch twice":            "WATCH {t}a|WATCH {t}b|2:DEL {t}none|MULTI|GET {t}a|EXEC|WATCH {t}a|WATCH {t}b|2:SET {t}a 7|MULTI|PING|EXEC",
	"watch aborted":          "WATCH {t}a|2:SET {t}a 0|MULTI|NOPE|EXEC|MULTI|GET {t}a|EXEC",
	"watch exec x":           "WATCH {t}a|2:SET {t}a 0|EXEC x|MULTI|GET {t}a|EXEC",
	"watch reset":            "WATCH {t}a|2:SET {t}a 0|RESET|MULTI|GET {t}a|EXEC",
	"watch flushed":          "SET {t}a 0|WATCH {t}a|2:FLUSHALL|MULTI|GET {t}a|EXEC",
	"watch aside":            "WATCH {t}a|MULTI|CLIENT GETNAME|GET {t}a|EXEC|WATCH {t}a|SET {t}a 1|MULTI|CLIENT SETNAME x|EXEC|CLIENT GETNAME",
	"watch expiring":         "SET {t}a 0 PX 500|WATCH {t}a|sleep|MULTI|GET {t}a|EXEC",
	"watch unwatch in multi": "WATCH {t}a|2:SET {t}a 0|MULTI|UNWATCH|EXEC",
	"watch hello":            "WATCH {t}a|2:SET {t}a 0|HELLO 3 SETNAME x|MULTI|PING|EXEC|WATCH {t}a|HELLO 2|MULTI|HGETALL {t}none|EXEC",
}

// TestTransactionsEqualRedis: every reply is, byte for byte, that of a plain
// server, for one shard and several, in both protocols.
func TestTransactionsEqualRedis(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Open: true})
	for _, n := range []int{1, 3} {
		shards, _ := realShards(t, n)
		p := startProxy(t, reactor.Config{}, shards...)
		for name, script := range sessions {
			for _, proto := range []string{"2", "3"} {
				t.Run(fmt.Sprintf("%d shards/%s/RESP%s", n, name, proto), func(t *testing.T) {
					pairs := map[string]*pair{}
					for _, id := range []string{"1", "2"} {
						pairs[id] = &pair{dial(t, p.address), dial(t, plain.Address)}
						pairs[id].proxied.do("HELLO", proto)
						pairs[id].plain.do("HELLO", proto)
					}
					pairs["1"].do(t, "FLUSHALL")
					for _, line := range strings.Split(script, "|") {
						id, rest, found := strings.Cut(line, ":")
						if !found {
							id, rest = "1", line
						}
						args := strings.Fields(rest)
						for i := range args {
							args[i] = strings.ReplaceAll(args[i], "\x01", " ")
						}
						switch {
						case args[0] == "sleep":
							time.Sleep(550 * time.Millisecond) // what expires in half a second has expired
						case args[0] == "HELLO" && len(args) > 1 && args[1] != "9": // its reply tells ids
							pairs[id].proxied.do(args...)
							pairs[id].plain.do(args...)
						case args[0][0] == '~':
							pairs[id].proxied.write(rest[1:] + "\r\n")
							pairs[id].plain.write(rest[1:] + "\r\n")
							if got, want := pairs[id].proxied.raw(), pairs[id].plain.raw(); got != want {
								t.Fatalf("%s: %q, want %q", rest, got, want)
							}
						default:
							pairs[id].do(t, args...)
						}
					}
				})
			}
		}
		if s := p.Stats(); s.Held != 0 {
			t.Errorf("%d requests are held", s.Held)
		}
	}
}

// randomLine makes a command of a random session with transactions.
func randomLine(r *rand.Rand) []string {
	key := func() string { return "{t}" + string(rune('a'+r.IntN(4))) }
	switch r.IntN(22) {
	case 0, 1, 2:
		return []string{"MULTI"}
	case 3, 4, 5, 6:
		return []string{"EXEC"}
	case 7:
		return []string{"DISCARD"}
	case 8, 9:
		return []string{"WATCH", key(), key()}
	case 10:
		return []string{"UNWATCH"}
	case 11:
		return [][]string{{"NOPE", "x"}, {"GET"}, {"EXEC", "x"}, {"SAVE", "x"}, {"CLIENT", "NOPE"}, {"SET", "{t}a"}}[r.IntN(6)]
	case 12:
		return []string{"LPUSH", key(), "x"}
	case 13:
		return []string{"PING"}
	case 14:
		return [][]string{{"DBSIZE"}, {"CLIENT", "GETNAME"}, {"SELECT", "0"}, {"FLUSHALL"}}[r.IntN(4)]
	case 15:
		return []string{"MGET", key(), key()}
	case 16:
		return []string{"GET", key()}
	case 17:
		return []string{"DEL", key()}
	default:
		return []string{"APPEND", key(), strings.Repeat("v", r.IntN(200))}
	}
}

// TestRandomTransactions: random sequences of three clients, one command at a
// time, are answered as by a plain server.
func TestRandomTransactions(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{}, shards...)
	plain := redistest.Start(t, redistest.Options{Open: true})
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		var pairs []*pair
		for range 3 {
			pairs = append(pairs, &pair{dial(t, p.address), dial(t, plain.Address)})
		}
		pairs[0].do(t, "FLUSHALL")
		for range 400 {
			c := pairs[r.IntN(len(pairs))]
			if r.IntN(60) == 0 { // one leaves and another comes
				c.proxied.Close()
				c.plain.Close()
				*c = pair{dial(t, p.address), dial(t, plain.Address)}
			}
			c.do(t, randomLine(r)...)
		}
	}
}

// TestPipelinedTransactions: the same in pipelines, cut at random places, of one
// client with CLIENT REPLY modes.
func TestPipelinedTransactions(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	p := startProxy(t, reactor.Config{}, shards...)
	plain := redistest.Start(t, redistest.Options{Open: true})
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		c := pair{dial(t, p.address), dial(t, plain.Address)}
		c.do(t, "FLUSHALL")
		var text strings.Builder
		for range 300 {
			if r.IntN(25) == 0 {
				text.WriteString(encode("CLIENT", "REPLY", []string{"SKIP", "OFF", "ON", "ON"}[r.IntN(4)]))
				// Inside MULTI it is refused, so leave it there.
				text.WriteString(encode("DISCARD"))
			}
			line := randomLine(r)
			if line[0] == "MULTI" {
				text.WriteString(encode("DISCARD"))
			}
			text.WriteString(encode(line...))
		}
		text.WriteString(encode("DISCARD") + encode("CLIENT", "REPLY", "ON") + encode("ECHO", "end"))
		script := strings.ReplaceAll(text.String(), encode("CLIENT", "REPLY", "SKIP"), encode("DISCARD")+encode("CLIENT", "REPLY", "SKIP"))
		script = strings.ReplaceAll(script, encode("CLIENT", "REPLY", "OFF"), encode("DISCARD")+encode("CLIENT", "REPLY", "OFF"))
		script = strings.ReplaceAll(script, encode("CLIENT", "REPLY", "ON"), encode("DISCARD")+encode("CLIENT", "REPLY", "ON"))
		for _, to := range []*client{c.proxied, c.plain} {
			go func() {
				r := rand.New(rand.NewPCG(seed, 3))
				for rest := script; rest != ""; {
					n := min(len(rest), 1+r.IntN(2000))
					if _, err := to.Write([]byte(rest[:n])); err != nil {
						return
					}
					rest = rest[n:]
				}
			}()
		}
		for i := 0; ; i++ {
			got, want := c.proxied.raw(), c.plain.raw()
			if got != want {
				t.Fatalf("seed %d, reply %d: %q, want %q", seed, i, got, want)
			}
			if got == "$3\r\nend\r\n" {
				break
			}
		}
	}
}

// TestCrossSlot: all keys of a transaction are in one slot, watched ones too.
func TestTransactionCrossSlot(t *testing.T) {
	t.Parallel()
	const cross = `-CROSSSLOT Keys in request don't hash to the same slot: "foo" is in slot 12182, "bar" in 5061; use one {tag} in all of its keys`
	const inTransaction = `-CROSSSLOT Keys in request don't hash to the same slot: the transaction is in slot 12182, "bar" in 5061; use one {tag} in all of its keys`
	const aborted = "-EXECABORT Transaction discarded because of previous errors."
	shards, servers := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	c.want("OK", "MULTI")
	c.want("QUEUED", "SET", "foo", "1")
	c.want(inTransaction, "SET", "bar", "1")
	c.want("QUEUED", "SET", "foo", "2")
	c.want(aborted, "EXEC")
	c.want("OK", "MULTI")
	c.want(cross, "MGET", "foo", "bar")
	c.want(aborted, "EXEC")
	c.want("OK", "WATCH", "foo")
	c.want(inTransaction, "WATCH", "bar")
	c.want(cross, "WATCH", "foo", "bar")
	c.want("OK", "MULTI")
	c.want(inTransaction, "SET", "bar", "1")
	c.want(aborted, "EXEC")
	c.want("OK", "WATCH", "bar")
	c.want("OK", "UNWATCH")
	for _, s := range servers {
		if got := fmt.Sprint(s.MustDo("DBSIZE")); got != "0" {
			t.Errorf("%s keys", got)
		}
	}
	// What cannot be in a transaction says so.
	c.want("OK", "MULTI")
	c.want("-ERR CLIENT REPLY is not supported inside MULTI behind the proxy: the reply of EXEC would be cut short", "CLIENT", "REPLY", "ON")
	c.want(aborted, "EXEC")
	c.want("OK", "MULTI")
	c.want("-ERR HELLO that changes the protocol is not supported inside MULTI behind the proxy: send it before", "HELLO", "3")
	c.want(aborted, "EXEC")
}

// TestTransactionOverAllShards: commands about all shards inside MULTI.
func TestTransactionOverAllShards(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 3)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	for i := range 100 {
		c.want("OK", "SET", fmt.Sprintf("k%d", i), "v")
	}
	c.want("OK", "MULTI")
	for _, args := range [][]string{{"SET", "k0", "w"}, {"DBSIZE"}, {"FLUSHALL"}, {"SET", "k0", "x"}, {"DBSIZE"}, {"KEYS", "*"}, {"RANDOMKEY"}, {"CLIENT", "SETNAME", "me"}, {"SCAN", "0", "COUNT", "1000"}} {
		c.want("QUEUED", args...)
	}
	got := c.do("EXEC")
	if !strings.HasPrefix(got, "[OK 100 OK OK 1 [k0] k0 OK [") {
		t.Fatalf("EXEC: %q", got)
	}
	c.want("me", "CLIENT", "GETNAME")
	total := 0
	for _, s := range servers {
		total += int(s.MustDo("DBSIZE").(int64))
	}
	if total != 1 {
		t.Errorf("%d keys after FLUSHALL in a transaction", total)
	}
	// Nothing happens when EXEC does not.
	c.want("OK", "WATCH", "k0")
	c.want("OK", "SET", "k0", "touched")
	c.want("OK", "SET", "k1", "v")
	c.want("OK", "SET", "k2", "v")
	c.want("OK", "MULTI")
	c.want("QUEUED", "FLUSHALL")
	c.want("QUEUED", "CLIENT", "SETNAME", "other")
	c.want("[]", "EXEC") // a null array
	c.want("3", "DBSIZE")
	c.want("me", "CLIENT", "GETNAME")
}

// TestRefusedByTheServer: what the server does not queue is told at once to a
// client that waits for it, and at EXEC in a pipeline.
func TestRefusedByTheServer(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	servers[0].MustDo("CONFIG", "SET", "maxmemory", "1")
	c := p.dial()
	c.want("OK", "MULTI")
	c.want("-OOM command not allowed when used memory > 'maxmemory'.", "GET", "a") // queueing takes memory
	c.want("-OOM command not allowed when used memory > 'maxmemory'.", "SET", "a", "1")
	c.want("-EXECABORT Transaction discarded because of previous errors.", "EXEC")
	c.write("*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*1\r\n$4\r\nEXEC\r\n")
	for _, want := range []string{"+OK", "+QUEUED", "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'."} {
		if got := c.raw(); got != want+"\r\n" {
			t.Fatalf("pipeline: %q, want %q", got, want)
		}
	}
	servers[0].MustDo("CONFIG", "SET", "maxmemory", "0")
	c.want("(nil)", "GET", "a")
	c.want("OK", "MULTI")
	c.want("QUEUED", "SET", "a", "1")
	c.want("[OK]", "EXEC")
}

// TestTransactionsAreAtomic: many clients change two keys in transactions, large
// and small, over shared connections, while epochs come; nobody ever sees one
// changed without the other, and nothing is done twice.
func TestTransactionsAreAtomic(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{}, shards...)
	var clients sync.WaitGroup
	failed := make(chan string, 16)
	const rounds = 150
	for id := range 6 {
		c := p.dial()
		clients.Add(1)
		go func() {
			defer clients.Done()
			filler := strings.Repeat("x", 1+id*id*4000)
			for n := 1; n <= rounds; n++ {
				c.write(encode("MULTI") + encode("INCR", "{t}a") + encode("SET", fmt.Sprintf("{t}f%d", id), filler) + encode("INCR", "{t}b") + encode("INCR", fmt.Sprintf("{t}own%d", id)) + encode("EXEC"))
				for range 5 {
					c.read()
				}
				got := strings.Fields(strings.Trim(c.read(), "[]"))
				if len(got) != 4 || got[0] != got[2] || got[3] != fmt.Sprint(n) {
					failed <- fmt.Sprintf("client %d: %v in round %d", id, got, n)
					return
				}
			}
		}()
	}
	watcher := p.dial()
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(2 * time.Millisecond):
			if got := strings.Fields(strings.Trim(watcher.do("MGET", "{t}a", "{t}b"), "[]")); got[0] != got[1] {
				t.Fatalf("a and b are %v", got)
			}
			p.commit(func(c *routing.Cluster) {
				for i := range c.Shards {
					c.Shards[i].Frozen = c.Epoch%3 == 0
					c.Shards[i].Generation = c.Epoch / 5
				}
			})
			if p.cluster.Shards[0].Frozen {
				time.Sleep(time.Millisecond)
				p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[1].Frozen = false, false })
			}
		}
	}
	close(failed)
	for text := range failed {
		t.Error(text)
	}
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen, c.Shards[1].Frozen = false, false }))
	watcher.want(fmt.Sprint(6*rounds), "GET", "{t}a")
}

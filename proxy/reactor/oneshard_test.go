package reactor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/session"
)

// crossing are sessions over several slots: a is in 15495, b in 3300, c in 7365. A line
// begins with the number of the client when it is not the first; "return_" and "_return_" have spaces for "_".
var crossing = map[string]string{
	"rename":       "SET a 1|RENAME a b|RENAMENX b c|COPY c a|GET a|MSETNX a 1 d 2|MSETNX d 1 e 2|MGET a b c d e",
	"sets":         "SADD a 1 2 3|SADD b 2 3 4|SINTER a b|SUNIONSTORE c a b|SDIFF a b|SMOVE a b 1|SINTERCARD 2 a b",
	"sorted sets":  "ZADD a 1 x 2 y|ZADD b 3 x|ZUNIONSTORE c 2 a b|ZRANGESTORE d c 0 -1|ZRANGE d 0 -1 WITHSCORES|ZMPOP 2 e a MIN",
	"strings":      "SET a abc|SET b abd|BITOP AND c a b|GET c|LCS a b|PFADD a:h 1|PFADD b:h 2|PFMERGE c:h a:h b:h|PFCOUNT a:h b:h",
	"lists":        "RPUSH a 1 2|LMOVE a b LEFT RIGHT|RPOPLPUSH a b|LRANGE b 0 -1|LMPOP 2 a b LEFT|BLPOP a b 0|BLMPOP 0.01 2 a b LEFT|BLMOVE b a LEFT LEFT 0.01|BZPOPMIN a:z b:z 0.01",
	"geo":          "GEOADD a 13.361389 38.115556 x|GEOSEARCHSTORE b a FROMMEMBER x BYRADIUS 1 km|ZCARD b|GEORADIUS a 13 38 100 km STORE c|ZCARD c",
	"sort":         "RPUSH a 2 1 3|MSET w_1 9 w_2 8 w_3 7 o_1 x o_2 y|SORT a BY w_*|SORT a GET o_* GET #|SORT a STORE b|LRANGE b 0 -1|SORT_RO a BY w_* GET o_*",
	"streams":      "XADD a 1-1 f v|XADD b 1-2 f v|XREAD STREAMS a b 0 0|XREAD BLOCK 10 STREAMS a b $ $|XGROUP CREATE a g 0|XGROUP CREATE b g 0|XREADGROUP GROUP g me STREAMS a b > >",
	"split":        "MSET a 1 b 2 c 3|MGET a b c d|EXISTS a b d|TOUCH a b|UNLINK a b d|DEL c d|MSET a 1 b",
	"eval":         "EVAL redis.call('set',KEYS[1],1)_return_redis.call('incr',KEYS[2]) 2 a b|EVAL return_redis.call('get','b') 0|EVAL return_redis.call('incr','c') 1 a|EVALSHA 5ba0c0c1ba1fff3fd4fc5e2a5bfc1b3fb2d0f5a6 2 a b|EVAL_RO return_redis.call('mget',KEYS[1],KEYS[2]) 2 a b",
	"multi":        "MULTI|SET a 1|INCR b|RENAME b c|MGET a b c|EVAL return_redis.call('get','c') 0|SPUBLISH d x|EXEC|GET c|MULTI|SET a 2|NOPE|SET b 1|EXEC|GET a|MULTI|SET a 3|SET b 3|DISCARD",
	"watch":        "WATCH a b|MULTI|SET c 1|EXEC|WATCH a|WATCH b c|2:SET c 2|MULTI|SET a 1|EXEC|GET a|WATCH a b|UNWATCH|2:SET a 3|MULTI|GET a|GET b|EXEC",
	"error inside": "SET b x|MULTI|SET a 1|INCR b|SET c 1|EXEC|MGET a b c",
	"pipeline":     "~MULTI|~SET a 1|~SET b 1|~EXEC|~RENAME a c",
	"aside":        "MULTI|SET a 1|SET b 1|DBSIZE|CLIENT GETNAME|SELECT 1|SET a 2|EXEC|DBSIZE",
}

// TestOneShardNeedsNoTags: with one shard every reply is that of a plain server,
// whatever slots the keys are in.
func TestOneShardNeedsNoTags(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t, redistest.Options{Open: true})
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.CrossSlot = true }))
	for name, script := range crossing {
		for _, proto := range []string{"2", "3"} {
			t.Run(name+"/RESP"+proto, func(t *testing.T) {
				pairs := map[string]*pair{}
				for _, id := range []string{"1", "2"} {
					pairs[id] = &pair{dial(t, p.address), dial(t, plain.Address)}
					pairs[id].proxied.do("HELLO", proto)
					pairs[id].plain.do("HELLO", proto)
				}
				pairs["1"].do(t, "FLUSHALL")
				for line := range strings.SplitSeq(script, "|") {
					id, rest, found := strings.Cut(line, ":")
					if !found || len(id) > 1 {
						id, rest = "1", line
					}
					if rest, inline := strings.CutPrefix(rest, "~"); inline {
						pairs[id].proxied.write(rest + "\r\n")
						pairs[id].plain.write(rest + "\r\n")
						if got, want := pairs[id].proxied.raw(), pairs[id].plain.raw(); got != want {
							t.Fatalf("%s: %q, want %q", rest, got, want)
						}
						continue
					}
					args := strings.Fields(rest)
					for i := range args {
						args[i] = strings.ReplaceAll(args[i], "_return_", " return ")
						args[i] = strings.ReplaceAll(args[i], "return_", "return ")
					}
					pairs[id].do(t, args...)
				}
			})
		}
	}
}

// TestOneShardManyKeys: very many keys of all slots are one atomic command at one shard.
func TestOneShardManyKeys(t *testing.T) {
	t.Parallel()
	const n = 20_000
	shards, servers := realShards(t, 1)
	p := startProxy(t, reactor.Config{Loops: 1}, shards...)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.CrossSlot = true }))
	c := p.dial()
	key := func(i int) string { return fmt.Sprintf("key:%d", i/2) }
	go c.write(longRequest("MSET", 2*n, key) + longRequest("DEL", 2*n, key) +
		longRequest("EVAL", n+2, func(i int) string {
			switch i {
			case 0:
				return "return #KEYS"
			case 1:
				return fmt.Sprint(n)
			}
			return fmt.Sprintf("key:%d", i)
		}))
	c.wantNext("OK")
	c.wantNext(fmt.Sprint(n))
	c.wantNext(fmt.Sprint(n))
	for _, line := range []string{"cmdstat_mset:calls=1,", "cmdstat_del:calls=1,"} {
		if stats := fmt.Sprint(servers[0].MustDo("INFO", "commandstats")); !strings.Contains(stats, line) {
			t.Errorf("%q is not in %s", line, stats)
		}
	}
}

// TestCrossSlotPolicy: what is refused without the policy, and how both are counted.
func TestCrossSlotPolicy(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	p := startProxy(t, reactor.Config{}, shards...)
	c := p.dial()
	const refused = `-CROSSSLOT Keys in request don't hash to the same slot: "a" is in slot 15495, "b" in 3300; use one {tag} in all of its keys`
	c.want(refused, "RENAME", "a", "b")
	c.want("OK", "MSET", "a", "1", "b", "2") // it is split otherwise, and needs no policy
	c.want("-ERR BY option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.", "SORT", "a", "BY", "w_*")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.CrossSlot = true }))
	c.want("OK", "CLIENT", "SETNAME", "worker")
	c.want("OK", "RENAME", "a", "b")
	for range 3 {
		c.want("OK", "MULTI")
		c.want("QUEUED", "SET", "a", "1")
		c.want("QUEUED", "SET", "b", "1")
		c.want("[OK OK]", "EXEC")
	}
	c.want("OK", "MULTI")
	c.want("QUEUED", "SET", "a", "1")
	c.want("QUEUED", "SET", "b", "2")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.CrossSlot = false }))
	c.want("-EXECABORT Transaction discarded because of: CROSSSLOT Keys in request don't hash to the same slot: they had to when it was executed; use one {tag} in all of its keys", "EXEC")
	c.want("1", "GET", "b")
	counts := map[session.Crossing]uint64{}
	for _, k := range []struct {
		command, client string
		n               uint64
	}{{"rename", "", 1}, {"sort", "", 1}, {"rename", "worker", 1}, {"multi", "worker", 4}} {
		counts[session.Crossing{Command: command.ByName(k.command).ID, Client: k.client}] = k.n
	}
	if got := p.Stats().Crossings; fmt.Sprint(got) != fmt.Sprint(counts) {
		t.Errorf("counted %v, want %v", got, counts)
	}
	// Names are the clients', and bounded.
	for i := range 1000 {
		c.want("OK", "CLIENT", "SETNAME", fmt.Sprintf("job-%d", i))
		c.do("RENAME", "a", "b")
	}
	got := p.Stats().Crossings
	if others := got[session.Crossing{Command: command.ByName("rename").ID, Client: session.OtherClients}]; len(got) > 200 || others < 800 {
		t.Errorf("%d names are counted, and %d requests of others", len(got), others)
	}
}

// addShard gives the upper half of the slots to a second shard.
func addShard(address string) func(c *routing.Cluster) {
	return func(c *routing.Cluster) {
		second := one(1, 2, address)
		c.Shards[0].Slots, c.Shards[0].Frozen = slot.Even(0, 2), false
		c.Shards = append(c.Shards[:1:1], second)
	}
}

// TestAShardIsAdded: what was accepted while there was one shard is answered, refused or
// ended, and nothing of it is executed at a shard that has only some of its keys.
func TestAShardIsAdded(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 1)
	next := redistest.Start(t, redistest.Options{Open: true})
	p := startProxy(t, reactor.Config{}, shards...)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.CrossSlot = true }))
	const (
		crosses = "-CROSSSLOT Keys in request don't hash to the same slot: there are several shards now; use one {tag} in all of its keys"
		again   = "-TRYAGAIN the number of shards has just changed, and the request was not executed; send it again"
		aborted = "-EXECABORT Transaction discarded because of: CROSSSLOT Keys in request don't hash to the same slot: they had to when it was executed; use one {tag} in all of its keys"
	)
	blocked := p.dial()
	blocked.send("BLPOP", "a", "b", "0")
	blockedNow(t, servers[0], 1)
	watching, queued, held := p.dial(), p.dial(), p.dial()
	watching.want("OK", "WATCH", "a", "b")
	watching.want("OK", "MULTI")
	watching.want("QUEUED", "SET", "a", "1")
	queued.want("OK", "MULTI")
	queued.want("QUEUED", "SET", "a", "1")
	queued.want("QUEUED", "SET", "b", "1")
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true }))
	held.write(encode("RENAME", "a", "b") + encode("MSET", "a", "1", "b", "1") + encode("EVAL", "return redis.call('set', KEYS[1], 1)", "2", "a", "b") +
		encode("MULTI") + encode("SET", "a", "1") + encode("SET", "b", "1") + encode("EXEC") + encode("SET", "b", "alone"))
	waiting := p.dial()
	waiting.send("BRPOP", "a", "b", "0")
	waitFor(t, "all is held", func() bool { s := p.Stats(); return s.Held == 5 && s.ClientsBlocked == 2 })
	p.waitAck(p.commit(addShard(next.Address)))
	for _, want := range []string{crosses, again, crosses, "OK", "QUEUED", "QUEUED", crosses, "OK"} {
		held.wantNext(want)
	}
	blocked.wantNext(crosses)
	waiting.wantNext(crosses)
	watching.want(aborted, "EXEC")
	queued.want(aborted, "EXEC")
	for _, s := range []*redistest.Server{servers[0], next} {
		if got := fmt.Sprint(s.MustDo("KEYS", "*")); got != "[]" && got != "[b]" {
			t.Errorf("keys: %s", got)
		}
	}
	if s := p.Stats(); s.Held != 0 || s.HeldBytes != 0 || s.Pinned != 0 {
		t.Errorf("%d held, %d bytes, %d pinned", s.Held, s.HeldBytes, s.Pinned)
	}
	held.want("OK", "MSET", "a", "1", "b", "1") // split, now
}

// TestInFlightWhileAShardIsAdded: the ack of the freeze waits for what crosses slots as for
// all else, and a read that is sent again behind it is refused when there are two shards.
func TestInFlightWhileAShardIsAdded(t *testing.T) {
	t.Parallel()
	f := startFake(t, never)
	p := startProxy(t, reactor.Config{Loops: 1}, one(0, 1, f.ln.Addr().String()))
	p.waitAck(p.commit(func(c *routing.Cluster) { c.CrossSlot = true }))
	c := p.dial()
	c.write(encode("SINTER", "a", "b") + encode("SET", "b", "1"))
	f.waitGot(2)
	frozen := p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = true })
	time.Sleep(50 * time.Millisecond)
	if p.ackedNow() >= frozen {
		t.Fatal("acked while a request is in flight")
	}
	f.cut()
	// The write behind it may have been executed, to one of its slots.
	c.wantNext(lost)
	c.wantNext(lost)
	p.waitAck(frozen)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Frozen = false }))
	c.send("SINTER", "a", "b")
	f.waitGot(3)
	p.waitAck(p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" }))
	next := redistest.Start(t, redistest.Options{Open: true})
	p.commit(func(c *routing.Cluster) {
		addShard(next.Address)(c)
		c.Shards[0].Master = "shard-0-0"
	})
	c.wantNext("-CROSSSLOT Keys in request don't hash to the same slot: there are several shards now; use one {tag} in all of its keys")
}

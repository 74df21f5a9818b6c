package command

import (
	"strings"
	"testing"
)

// quick are the commands that servers execute and that take no time worth speaking of,
// however large the values are and whatever the arguments say.
const quick = `append bitfield bitfield_ro blmove blpop brpop brpoplpush bzpopmax bzpopmin config|get config|help config|resetstat dbsize decr decrby
	exists expire expireat expiretime function|dump function|help function|kill function|list function|stats
	hexpire hexpireat hexpiretime hpersist hpexpire hpexpireat hpexpiretime hpttl httl
	geoadd geodist geohash geopos get getbit getdel getex getrange getset hdel hexists hget hincrby hincrbyfloat hlen hmget hmset hset hsetnx hstrlen
	incr incrby incrbyfloat info lastsave latency|doctor latency|graph latency|help latency|histogram latency|history latency|latest latency|reset lindex llen
	lmove lolwut lpush lpushx lset memory|help memory|malloc-stats mget module|help module|list mset msetnx object|encoding object|freq object|help object|idletime
	object|refcount persist pexpire pexpireat pexpiretime pfadd pfcount pfdebug pfmerge pfselftest psetex pttl randomkey role rpoplpush rpush rpushx sadd scard
	command|help script|exists script|help script|kill script|load set setbit setex setnx setrange sismember slowlog|get slowlog|help slowlog|len slowlog|reset smismember smove srem strlen substr touch
	ttl type unlink xack xadd xclaim xdel xgroup|create xgroup|createconsumer xgroup|help xgroup|setid xinfo|groups xinfo|help xlen xsetid zadd zcard zcount
	zincrby zlexcount zmscore zrank zrem zrevrank zscore`

// Every command that servers execute is known to be quick, or as one that may not be.
func TestEveryCommandIsKnownToBeQuickOrNot(t *testing.T) {
	known := map[string]bool{}
	for _, name := range strings.Fields(quick) {
		if ByName(name) == nil {
			t.Errorf("there is no command %s", name)
		}
		known[name] = true
	}
	for name := range long {
		if ByName(name) == nil {
			t.Errorf("there is no command %s", name)
		}
		if known[name] {
			t.Errorf("%s is in both lists", name)
		}
		known[name] = true
	}
	for id := range Count() {
		switch s := ByID(id); s.Kind {
		case Keyed, Split, AllShards, AnyShard, Script, ScriptAdmin:
			if !s.IsContainer() && !known[s.Name] {
				t.Errorf("%s is in neither list", s.Name)
			}
		}
	}
}

func TestMayTakeLong(t *testing.T) {
	for request, want := range map[string]bool{
		"GET k": false, "SET k v": false, "INCR k": false, "UNLINK k": false, "BLPOP k 0": false, "MGET a b c": false,
		"SORT k": true, "KEYS *": true, "DEL k": true, "SUNION a b": true, "SMEMBERS k": true, "EVALSHA x 0": true, "FLUSHALL": true, "DEBUG SLEEP 8": true,
		"LRANGE k 0 -1": true, "LRANGE k 0 99": false, "LRANGE k -100 -1": false, "LRANGE k 0 1000000": true, "LRANGE k a b": true,
		"ZRANGE k 0 10 REV": false, "ZRANGE k 0 10 BYSCORE": true, "ZRANGE k 0 10 BYSCORE LIMIT 0 10": false,
		"ZRANGEBYSCORE k 0 1": true, "ZRANGEBYSCORE k 0 1 LIMIT 0 10": false, "ZRANGEBYSCORE k 0 1 LIMIT 0 -1": true,
		"XRANGE s - +": true, "XRANGE s - + COUNT 10": false, "XREAD STREAMS count 0": true, "XREAD COUNT 10 STREAMS s 0": false,
		"SCAN 0": false, "SCAN 0 COUNT 100000000": true, "HSCAN h 0 COUNT 10": false,
		"LPOP k": false, "SPOP k 10": false, "SPOP k 10000000": true, "SRANDMEMBER k -10000000": true, "HRANDFIELD k 5 WITHVALUES": false,
	} {
		var args [][]byte
		for _, word := range strings.Fields(request) {
			args = append(args, []byte(word))
		}
		s, line := Lookup(args)
		if line != nil {
			t.Fatalf("%s: %s", request, line)
		}
		if got := s.MayTakeLong(args, len(args), len(request)); got != want {
			t.Errorf("%s may take long: %v", request, got)
		}
	}
	s := ByName("set")
	if !s.MayTakeLong([][]byte{[]byte("SET"), []byte("k"), nil}, 3, 64<<20) || !ByName("sadd").MayTakeLong(nil, 1_000_000, 9<<20) {
		t.Error("a request of 64 MiB and one of a million members are quick")
	}
}

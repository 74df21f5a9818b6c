package command

// What takes long.
//
// A server executes one command at a time. While that takes seconds it answers nobody,
// as if it hung; who sent it what may take so long can tell the two apart. This is
// judged by the request alone: the proxy does not know how large a value is. Commands
// whose work is bounded by a small number, or by that of their arguments, are quick.

const (
	// manyElements is from how many elements on, written as a number in the request, a
	// command may take long. A million are handled within a second.
	manyElements = 100_000
	// manyArgs: from so many arguments on, any command may.
	manyArgs = 50_000
	// LongRequest is from how many bytes on any command may.
	LongRequest = 1 << 20
)

// long lists the commands whose work grows with the value of a key, with the number of
// keys, or is anything a client likes. The value says where the request bounds it: 0
// nowhere; see bounded.
var long = map[string]bound{
	// Whole values.
	"bitcount": 0, "bitop": 0, "bitpos": 0, "copy": 0, "del": 0, "dump": 0, "hgetall": 0, "hkeys": 0, "hvals": 0,
	"lcs": 0, "linsert": 0, "lpos": 0, "lrem": 0, "ltrim": 0, "move": 0, "rename": 0, "renamenx": 0, "restore": 0,
	"sdiff": 0, "sdiffstore": 0, "sinter": 0, "sintercard": 0, "sinterstore": 0, "smembers": 0, "sort": 0, "sort_ro": 0,
	"sunion": 0, "sunionstore": 0, "memory|usage": 0,
	"xinfo|stream": 0, "xinfo|consumers": 0, "xtrim": 0, "xgroup|destroy": 0, "xgroup|delconsumer": 0, "xautoclaim": 0, "xpending": 0,
	"zdiff": 0, "zdiffstore": 0, "zinter": 0, "zintercard": 0, "zinterstore": 0, "zrangestore": 0,
	"zremrangebylex": 0, "zremrangebyrank": 0, "zremrangebyscore": 0, "zunion": 0, "zunionstore": 0,
	"georadius": 0, "georadius_ro": 0, "georadiusbymember": 0, "georadiusbymember_ro": 0, "geosearch": 0, "geosearchstore": 0,
	// Parts of values.
	"lrange": boundRange, "zrange": boundRange, "zrevrange": boundRange,
	"zrangebylex": boundLimit, "zrangebyscore": boundLimit, "zrevrangebylex": boundLimit, "zrevrangebyscore": boundLimit,
	"xrange": boundCount, "xrevrange": boundCount, "xread": boundCount, "xreadgroup": boundCount,
	"hscan": boundCount1, "sscan": boundCount1, "zscan": boundCount1, "scan": boundCount1,
	"lmpop": boundCount1, "zmpop": boundCount1, "blmpop": boundCount1, "bzmpop": boundCount1,
	"lpop": boundLast, "rpop": boundLast, "spop": boundLast, "srandmember": boundLast, "zpopmax": boundLast, "zpopmin": boundLast,
	"hrandfield": boundThird, "zrandmember": boundThird,
	// All keys.
	"bgrewriteaof": 0, "bgsave": 0, "cluster|countkeysinslot": 0, "cluster|getkeysinslot": 0, "config|set": 0, "debug": 0, "flushall": 0, "flushdb": 0, "keys": 0, "save": 0,
	"memory|doctor": 0, "memory|purge": 0, "memory|stats": 0,
	// Code of the client's own.
	"eval": 0, "eval_ro": 0, "evalsha": 0, "evalsha_ro": 0, "fcall": 0, "fcall_ro": 0,
	"function|delete": 0, "function|flush": 0, "function|load": 0, "function|restore": 0, "script|flush": 0,
}

// bound is where a request says how many elements it is about.
type bound uint8

const (
	// boundRange: two indexes behind the key.
	boundRange bound = iota + 1
	// boundLimit: LIMIT offset count, boundCount: COUNT n, and without it there is no
	// bound; boundCount1: without it, it is small.
	boundLimit
	boundCount
	boundCount1
	// boundLast, boundThird: the last, the third argument if there is one.
	boundLast
	boundThird
)

// MayTakeLong tells if a server may be silent for seconds because of a request, of
// which these are the first arguments; count is how many there are, size is its length
// in bytes.
func (s *Spec) MayTakeLong(args [][]byte, count, size int) bool {
	if count >= manyArgs || size >= LongRequest {
		return true
	}
	where, is := long[s.Name]
	if !is {
		return false
	}
	if where == 0 || len(args) < count {
		return true
	}
	n, bounded := s.elements(where, args)
	return !bounded || n >= manyElements || n <= -manyElements
}

// elements is how many elements a request is about, as it says itself.
func (s *Spec) elements(where bound, args [][]byte) (n int64, bounded bool) {
	switch where {
	case boundRange:
		if len(args) < 4 {
			return 0, false
		}
		from, ok1 := Integer(args[2])
		to, ok2 := Integer(args[3])
		for _, option := range args[4:] {
			if isWord(option, "BYSCORE") || isWord(option, "BYLEX") {
				return s.elements(boundLimit, args)
			}
		}
		return to - from, ok1 && ok2 && (from < 0) == (to < 0)
	case boundLast:
		if len(args) == 2 {
			return 1, true
		}
		return Integer(args[len(args)-1])
	case boundThird:
		if len(args) == 2 {
			return 1, true
		}
		return Integer(args[2])
	case boundLimit:
		for i := 4; i+2 < len(args); i++ {
			if isWord(args[i], "LIMIT") {
				skip, ok1 := Integer(args[i+1])
				n, ok2 := Integer(args[i+2])
				return skip + n, ok1 && ok2 && n >= 0
			}
		}
		return 0, false
	default:
		for i := 1; i+1 < len(args) && !isWord(args[i], "STREAMS"); i++ {
			if isWord(args[i], "COUNT") {
				return Integer(args[i+1])
			}
		}
		return 1, where == boundCount1
	}
}

package session

import (
	"bytes"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
)

// DEBUG, when the proxy's settings allow it. A server has a say as well, with
// enable-debug-command.

// debugWay is what becomes of a subcommand of DEBUG.
type debugWay uint8

const (
	debugNever debugWay = iota
	debugKey            // to the shard of the key that follows
	debugKeys           // each of the keys that follow to its shard
	debugOne            // to one shard: it is about no data
	debugAll            // to all, which answer OK
	debugTexts
	debugDigest
	debugReload
	debugLoadAOF
)

var debugWays = map[string]debugWay{
	"object": debugKey, "sdslen": debugKey, "listpack": debugKey, "quicklist": debugKey, "htstats-key": debugKey,
	"digest-value": debugKeys, "digest": debugDigest, "htstats": debugTexts, "structsize": debugTexts,
	"help": debugOne, "protocol": debugOne, "error": debugOne,
	"sleep": debugAll, "set-active-expire": debugAll, "quicklist-packed-threshold": debugAll, "log": debugAll,
	"set-skip-checksum-validation": debugAll, "set-disable-deny-scripts": debugAll, "pause-cron": debugAll, "replybuffer": debugAll,
	"reload": debugReload, "loadaof": debugLoadAOF,
}

// debugReasons are why others stay refused.
var debugReasons = map[string]string{
	"segfault": "it ends a server", "panic": "it ends a server", "assert": "it ends a server", "oom": "it ends a server",
	"restart": "it ends a server", "crash-and-recover": "it ends a server", "leak": "it uses up the memory of the servers",
	"change-repl-id":   "no replica could become master until it has copied everything",
	"replicate":        "replicas must have what their master has",
	"stringmatch-test": "it keeps a server busy for seconds",
	"populate":         "it makes keys at shards that do not own them",
	"reload":           "with options it loads what replicas do not have; without, it works",
	"loadaof":          "the servers have no append-only file (appendonly no), so it would empty them",
}

var lineNoDebug = []byte("-ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local connection, " +
	"otherwise you need to set this option in the configuration file, and then restart the server.\r\n")

func debugRefused(name string) []byte {
	reason := debugReasons[name]
	if reason == "" {
		reason = "it looks inside one server, connect to that one as its admin"
	}
	return []byte("-ERR DEBUG " + name + " is not supported behind the proxy: " + reason + "\r\n")
}

func (c *Client) debug(spec *command.Spec, args [][]byte) {
	sh := c.sh
	if !sh.Debug {
		c.answer(spec, lineNoDebug)
		return
	}
	name := string(bytes.ToLower(args[1]))
	raw := appendCommand(nil, args)
	switch debugWays[name] {
	case debugKey:
		if len(args) < 3 {
			c.askOne(spec, sh.servingShard(), raw) // which says what is wrong
			return
		}
		sh.Router.Route(c.forward(spec, int(slot.Of(args[2]))), raw)
	case debugKeys:
		c.digestValues(spec, args)
	case debugOne:
		c.askOne(spec, sh.servingShard(), raw)
	case debugAll:
		c.gather(spec, args, same).deadline = 0
	case debugTexts:
		c.gather(spec, args, texts)
	case debugDigest:
		c.gather(spec, args, func(m *merge, dst []byte) ([]byte, error) { return fanout.Digest(dst, m.replies) })
	case debugReload:
		if len(args) > 2 {
			c.answer(spec, debugRefused(name))
			return
		}
		c.gather(spec, args, same).deadline = 0
	case debugLoadAOF:
		c.loadAppendOnly(spec, raw)
	default:
		if _, known := debugReasons[name]; known {
			c.answer(spec, debugRefused(name))
			return
		}
		c.answer(spec, command.ErrorLine("unknown subcommand or wrong number of arguments for '", args[1], "'. Try DEBUG HELP."))
	}
}

// same passes on what all shards say.
func same(m *merge, dst []byte) ([]byte, error) {
	for _, reply := range m.replies[1:] {
		if !bytes.Equal(reply, m.replies[0]) {
			return dst, fanout.ErrReply
		}
	}
	return append(dst, m.replies[0]...), nil
}

// digestValues asks for the digest of each key where it is.
func (c *Client) digestValues(spec *command.Spec, args [][]byte) {
	keys := args[2:]
	if len(keys) == 0 {
		c.answer(spec, lineEmpty)
		return
	}
	m := c.newMerge(spec, len(keys), func(m *merge, dst []byte) ([]byte, error) { return fanout.Concat(dst, m.replies) })
	m.whole.ReadOnly = true
	for i, key := range keys {
		m.send(i, max(c.sh.ownerOf(int(slot.Of(key))), 0), appendCommand(nil, [][]byte{args[0], args[1], key}))
	}
}

// loadAppendOnly serves DEBUG LOADAOF. A server that has no whole append-only
// file would be empty afterwards, or end: so all are asked for one first.
func (c *Client) loadAppendOnly(spec *command.Spec, raw []byte) {
	c.gather(spec, [][]byte{[]byte("INFO"), []byte("persistence")}, func(m *merge, _ []byte) ([]byte, error) {
		for _, reply := range m.replies {
			if !bytes.Contains(reply, []byte("\r\naof_enabled:1\r\n")) {
				return debugRefused("loadaof"), nil
			}
			for _, whole := range []string{"aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "aof_last_bgrewrite_status:ok"} {
				if !bytes.Contains(reply, []byte("\r\n"+whole+"\r\n")) {
					return []byte("-ERR DEBUG loadaof: a server is writing its append-only file anew; try again when that has ended\r\n"), nil
				}
			}
		}
		n := min(len(m.nodes), len(m.sh.Table.Shards))
		next := &merge{sh: m.sh, client: c, whole: m.whole, replies: make([][]byte, n), waiting: n, nodes: m.nodes, join: same}
		for i := range n {
			next.send(i, i, raw)
		}
		return nil, nil
	})
}

package session

import (
	"bytes"
	"math"
	"strconv"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
)

// Administration over all shards: SLOWLOG, LATENCY, MEMORY, CONFIG, and INFO of
// one shard.
//
// Each asks the master of every shard over the connections that all clients
// share, so an answer is about everything that the client did before. Answers
// are gathered within bounds: what does not come in time, or is too long, ends
// the command with an error (gather).
//
// Parameters are the same at all servers, for they are set at all (CONFIG SET
// goes to the Configserver, see reactor.Config), so one shard that serves tells
// them.

// administer serves the commands of this file; it returns false for others.
func (c *Client) administer(spec *command.Spec, args [][]byte) bool {
	switch spec.Name {
	case "slowlog|get", "slowlog|len":
		c.slowLog(spec, args)
	case "latency|reset":
		c.gather(spec, args, func(m *merge, dst []byte) ([]byte, error) { return fanout.Sum(dst, m.replies) })
	case "slowlog|reset":
		c.gather(spec, args, func(m *merge, dst []byte) ([]byte, error) {
			m.sh.Router.ForgetSlow()
			return fanout.OK(dst, m.replies)
		})
	case "memory|purge":
		c.gather(spec, args, func(m *merge, dst []byte) ([]byte, error) { return fanout.OK(dst, m.replies) })
	case "latency|latest":
		c.gather(spec, args, func(m *merge, dst []byte) ([]byte, error) { return fanout.LatencyLatest(dst, m.replies) })
	case "latency|history":
		c.gather(spec, args, func(m *merge, dst []byte) ([]byte, error) { return fanout.LatencyHistory(dst, m.replies) })
	case "latency|histogram":
		own := CloneArgs(args)
		c.gather(spec, args, func(m *merge, _ []byte) ([]byte, error) {
			m.sh.Router.Histograms(c, m.whole, own[2:], m.replies)
			return nil, nil
		})
	case "latency|graph":
		c.gather(spec, args, graphs).tolerant = true
	case "latency|doctor", "memory|doctor", "memory|malloc-stats":
		c.gather(spec, args, texts)
	case "memory|stats":
		c.gather(spec, args, func(m *merge, dst []byte) ([]byte, error) {
			return fanout.MemoryStats(dst, m.replies, m.whole.Proto)
		})
	case "config|get":
		c.parameters(spec, args)
	case "config|resetstat":
		c.gather(spec, args, func(m *merge, dst []byte) ([]byte, error) {
			reply, err := fanout.OK(dst, m.replies)
			if err != nil {
				return nil, err
			}
			m.sh.Router.ResetStats(func() { c.Complete(m.whole, reply) })
			return nil, nil
		})
	case "debug":
		c.debug(spec, args)
	default:
		return false
	}
	return true
}

// texts joins texts for people.
func texts(m *merge, dst []byte) ([]byte, error) {
	return fanout.Texts(dst, m.replies, m.nodes, m.whole.Proto)
}

// noSamples begins what a server says to LATENCY GRAPH of an event that never
// happened there.
var noSamples = []byte("-ERR No samples available")

// graphs joins those of the shards where the event happened.
func graphs(m *merge, dst []byte) ([]byte, error) {
	for _, reply := range m.replies {
		if fanout.FirstError([][]byte{reply}) != nil && !bytes.HasPrefix(reply, noSamples) {
			return append(dst, reply...), nil
		}
	}
	return texts(m, dst)
}

var lineSlowCount = []byte("-ERR count should be greater than or equal to -1\r\n")

// moreSlow is how many entries more than are wanted every shard is asked for: some
// are left out.
const moreSlow = 1000

var rawSlowParameters = appendCommand(nil, [][]byte{[]byte("CONFIG"), []byte("GET"), []byte("slowlog-*")})

// slowLog serves SLOWLOG GET and LEN. Every shard is asked for as many entries as
// are wanted: all of them may be the newest.
func (c *Client) slowLog(spec *command.Spec, args [][]byte) {
	count, ask, isLen := int64(10), int64(-1), spec.Name == "slowlog|len"
	switch {
	case len(args) == 2:
	case len(args) == 3:
		n, ok := command.Integer(args[2])
		if !ok || n < -1 {
			c.answer(spec, lineSlowCount)
			return
		}
		count = n
	default:
		c.answer(spec, command.ErrorLine("unknown subcommand or wrong number of arguments for '", args[1], "'. Try SLOWLOG HELP."))
		return
	}
	if !isLen && count >= 0 && count < math.MaxInt64-moreSlow {
		ask = count + moreSlow
	}
	sh := c.sh
	shards := len(sh.Table.Shards)
	m := c.newMerge(spec, shards+1, func(m *merge, dst []byte) ([]byte, error) {
		words, err := fanout.Parameters(m.replies[shards])
		if err != nil {
			return dst, err
		}
		most := int64(-1)
		for i := 0; i+1 < len(words); i += 2 {
			if n, ok := command.Integer([]byte(words[i+1])); ok && words[i] == "slowlog-max-len" {
				most = n
			} else if ok && words[i] == "slowlog-log-slower-than" {
				m.sh.Router.SlowFrom(n, func() {})
			}
		}
		log, err := fanout.Slow(m.replies[:shards], m.nodes, m.sh.Router.SeenSlow(), most)
		if err != nil {
			return dst, err
		}
		if isLen {
			return redcon.AppendInt(dst, int64(log.Len())), nil
		}
		return log.Append(dst, count), nil
	})
	m.whole.ReadOnly = true
	serving := sh.servingShard()
	nodes := make([]string, shards, shards+1)
	for i := range nodes {
		nodes[i] = sh.nodeOf(i)
	}
	m.bound(append(nodes, sh.nodeOf(serving)))
	raw := appendCommand(nil, [][]byte{[]byte("SLOWLOG"), []byte("GET"), strconv.AppendInt(nil, ask, 10)})
	for i := range shards {
		m.send(i, i, raw)
	}
	m.send(shards, serving, rawSlowParameters)
}

// parameters serves CONFIG GET: what a server says, and the proxy's own.
func (c *Client) parameters(spec *command.Spec, args [][]byte) {
	own := CloneArgs(args)
	m := c.newMerge(spec, 1, func(m *merge, _ []byte) ([]byte, error) {
		words, err := fanout.Parameters(m.replies[0])
		if err == nil {
			m.sh.Router.Parameters(c, m.whole, own, words)
		}
		return nil, err
	})
	m.whole.ReadOnly = true
	shard := c.sh.servingShard()
	m.bound([]string{c.sh.nodeOf(shard)})
	m.send(0, shard, appendCommand(nil, args))
}

// infoOfShard serves INFO that names a shard: what its master says. It returns
// false when no shard is named.
func (c *Client) infoOfShard(spec *command.Spec, args [][]byte) bool {
	for at := 1; at < len(args); at++ {
		for i := range c.sh.Table.Shards {
			if c.sh.Table.Shards[i].ID == string(args[at]) {
				rest := append(append([][]byte{}, args[:at]...), args[at+1:]...)
				c.askOne(spec, i, appendCommand(nil, rest))
				return true
			}
		}
	}
	return false
}

// askOne has one shard answer.
func (c *Client) askOne(spec *command.Spec, shard int, raw []byte) {
	r := c.begin(spec)
	r.Slot, r.Shard, r.ReadOnly = -1, int32(shard), true
	c.sh.Router.Route(r, raw)
}

// nodeOf names a shard's master, or the shard while it has none.
func (s *Shared) nodeOf(shard int) string {
	ts := &s.Table.Shards[shard]
	if i := ts.MasterIndex; i >= 0 && i < len(ts.Nodes) {
		return ts.Nodes[i].ID
	}
	return ts.ID
}

// What is only read may be read again when a connection broke.
func readsOnly(spec *command.Spec) bool {
	switch spec.Name {
	case "slowlog|reset", "latency|reset", "memory|purge", "config|resetstat", "debug":
		return false
	}
	return true
}

// gather sends a command to every shard and joins the answers, within bounds.
func (c *Client) gather(spec *command.Spec, args [][]byte, join func(*merge, []byte) ([]byte, error)) *merge {
	sh := c.sh
	m := c.newMerge(spec, len(sh.Table.Shards), join)
	m.whole.ReadOnly = readsOnly(spec)
	nodes := make([]string, len(sh.Table.Shards))
	for i := range nodes {
		nodes[i] = sh.nodeOf(i)
	}
	m.bound(nodes)
	raw := appendCommand(nil, args)
	for i := range sh.Table.Shards {
		m.send(i, i, raw)
	}
	return m
}

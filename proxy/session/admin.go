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
// are gathered within bounds, and without a shard that is not there (gather.go).
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
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) { return fanout.Sum(dst, m.replies) })
	case "slowlog|reset":
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) {
			m.sh.Router.ForgetSlow()
			return fanout.OK(dst, m.replies)
		})
	case "memory|purge":
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) { return fanout.OK(dst, m.replies) })
	case "latency|latest":
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) { return fanout.LatencyLatest(dst, m.replies) })
	case "latency|history":
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) { return fanout.LatencyHistory(dst, m.replies) })
	case "latency|histogram":
		own := CloneArgs(args)
		c.survey(spec, args, func(m *merge, _ []byte) ([]byte, error) {
			m.sh.Router.Histograms(c, m.whole, own[2:], m.replies)
			return nil, nil
		})
	case "latency|graph":
		c.survey(spec, args, graphs).tolerant = true
	case "latency|doctor", "memory|doctor", "memory|malloc-stats":
		c.survey(spec, args, texts)
	case "memory|stats":
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) {
			return fanout.MemoryStats(dst, m.replies, m.whole.Proto)
		})
	case "config|get":
		c.parameters(spec, args)
	case "config|resetstat":
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) {
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
	for _, node := range m.missing {
		m.replies, m.nodes = append(m.replies, noAnswer), append(m.nodes, node)
	}
	return fanout.Texts(dst, m.replies, m.nodes, m.whole.Proto)
}

// noAnswer stands for the text of a shard that is not there.
var noAnswer = redcon.AppendBulkString(nil, "no answer\n")

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
	m := c.newSurvey(spec, shards+1, func(m *merge, dst []byte) ([]byte, error) {
		if line := m.nobody(shards); line != nil {
			return line, nil
		}
		most := int64(-1)
		if m.replies[shards] != nil {
			words, err := fanout.Parameters(m.replies[shards])
			if err != nil {
				return dst, err
			}
			for i := 0; i+1 < len(words); i += 2 {
				if n, ok := command.Integer([]byte(words[i+1])); ok && words[i] == "slowlog-max-len" {
					most = n
				} else if ok && words[i] == "slowlog-log-slower-than" {
					m.sh.Router.SlowFrom(n, func() {})
				}
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
	raw := appendCommand(nil, [][]byte{[]byte("SLOWLOG"), []byte("GET"), strconv.AppendInt(nil, ask, 10)})
	for i := range shards {
		m.ask(i, i, raw)
	}
	m.ask(shards, sh.servingShard(), rawSlowParameters)
}

// parameters serves CONFIG GET: what a server says, and the proxy's own.
func (c *Client) parameters(spec *command.Spec, args [][]byte) {
	own := CloneArgs(args)
	c.oneOf(c.begin(spec), appendCommand(nil, args), func(m *merge, reply []byte) ([]byte, error) {
		if reply[0] == '-' {
			return reply, nil
		}
		words, err := fanout.Parameters(reply)
		if err == nil {
			m.sh.Router.Parameters(c, m.whole, own, words)
		}
		return nil, err
	})
}

// info serves INFO. Whoever answers, the proxy does: a client that asks for INFO
// before anything else is to get as far as its own keys.
func (c *Client) info(spec *command.Spec, args [][]byte) {
	sh := c.sh
	own := CloneArgs(args)
	ids := make([]string, len(sh.Table.Shards))
	for i := range ids {
		ids[i] = sh.Table.Shards[i].ID
	}
	m := c.newSurvey(spec, len(ids), func(m *merge, _ []byte) ([]byte, error) {
		texts := make([][]byte, len(ids))
		var missing []string
		for i, reply := range m.replies {
			if reply == nil {
				missing = append(missing, ids[i])
			} else {
				texts[i], _ = fanout.Bulk(reply)
			}
		}
		if len(missing) == len(ids) && bytes.HasPrefix(m.failed, prefixBusy) {
			return m.failed, nil
		}
		sh.Router.Info(c, m.whole, own, texts, missing)
		return nil, nil
	})
	raw := appendCommand(nil, args)
	for i := range ids {
		m.ask(i, i, raw)
	}
}

// infoOfShard serves INFO that names a shard: what its master says. It returns
// false when no shard is named.
func (c *Client) infoOfShard(spec *command.Spec, args [][]byte) bool {
	for at := 1; at < len(args); at++ {
		for i := range c.sh.Table.Shards {
			if c.sh.Table.Shards[i].ID == string(args[at]) {
				rest := append(append([][]byte{}, args[:at]...), args[at+1:]...)
				m := c.newSurvey(spec, 1, func(m *merge, dst []byte) ([]byte, error) {
					if line := m.leaveOut(); line != nil {
						return line, nil
					}
					return append(dst, m.replies[0]...), nil
				})
				m.ask(0, i, appendCommand(nil, rest))
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

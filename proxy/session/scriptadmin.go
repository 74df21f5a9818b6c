package session

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// SCRIPT and FUNCTION.
//
// What changes scripts or functions goes to the masters of all shards. Servers
// replicate and persist functions themselves; the sources of scripts are kept by
// the Configserver (script.go).
//
// There is no transaction over shards. When one shard fails after others have
// done it, the error says which, and what to do: SCRIPT and FUNCTION FLUSH may be
// repeated, FUNCTION LOAD and RESTORE with REPLACE; FUNCTION DELETE succeeds when
// a shard had the library and the others have none. Two clients that load
// different code under one name at the same time may leave different code on
// different shards: load it again. A shard that is added later has no functions
// until somebody loads them there; a master is never replaced by an empty one.
//
// KILL and FUNCTION STATS go out on connections of their own, for the shared one
// waits behind the script. All others wait until the client's earlier commands
// are answered, and delay its later ones.

var (
	lineFlushMode = []byte("-ERR SCRIPT FLUSH only support SYNC|ASYNC option\r\n")
	lineNotBusy   = []byte("-NOTBUSY No scripts in execution right now.\r\n")
	lineTooLarge  = fmt.Appendf(nil, "-ERR the script is longer than %d bytes, the most that is kept for EVALSHA behind the proxy: split it, or send it with EVAL each time\r\n", scripts.MaxBytes)
)

// scriptHandling is how a transaction deals with a ScriptAdmin command.
func scriptHandling(spec *command.Spec) handling {
	switch spec.Name {
	case "script|load", "function|load", "function|delete", "function|flush", "function|restore":
		return alsoOthers
	case "function|list", "function|dump":
		return served
	}
	return aloneAfter
}

// scriptAdmin serves SCRIPT and FUNCTION.
func (c *Client) scriptAdmin(spec *command.Spec, args [][]byte) {
	sh := c.sh
	if len(sh.Table.Shards) == 0 {
		c.answer(spec, noShards)
		return
	}
	switch spec.Name {
	case "script|load":
		if len(args[2]) > scripts.MaxBytes {
			c.answer(spec, lineTooLarge)
			return
		}
		c.toMasters(spec, args)
	case "script|exists":
		c.scriptExists(spec, args)
	case "script|flush":
		c.scriptFlush(spec, args)
	case "script|kill", "function|kill", "function|stats":
		c.overTaken(spec, args)
	case "function|list", "function|dump":
		c.oneOf(c.begin(spec), appendCommand(nil, args), func(_ *merge, reply []byte) ([]byte, error) { return reply, nil })
	default: // function|load delete flush restore
		c.toMasters(spec, args)
	}
}

// toMasters sends a command to all masters and joins their replies.
func (c *Client) toMasters(spec *command.Spec, args [][]byte) {
	c.finishAtMasters(c.begin(spec), args)
}

// finishAtMasters does so for a request that has its place already.
func (c *Client) finishAtMasters(whole *backend.Request, args [][]byte) {
	sh := c.sh
	if whole.Spec.Write {
		c.touchAll()
	}
	args = CloneArgs(args)
	shards := make([]int, len(sh.Table.Shards))
	for i := range shards {
		shards[i] = i
	}
	m := &merge{sh: sh, client: c, whole: whole, replies: make([][]byte, len(shards)), waiting: len(shards), tolerant: true}
	m.join = func(m *merge, _ []byte) ([]byte, error) { return joinScripts(m, args, shards) }
	m.toScripts(shards, appendCommand(nil, args))
}

// toScripts sends a command that changes scripts or functions to shards. SCRIPT LOAD
// does without one that is not there: EVALSHA finds the source at the Configserver.
func (m *merge) toScripts(shards []int, raw []byte) {
	if m.whole.Spec.Name == "script|load" {
		m.partly()
		m.whole.ReadOnly = true // to load it twice does no harm
		for i, shard := range shards {
			m.ask(i, shard, raw)
		}
		return
	}
	for i, shard := range shards {
		m.send(i, shard, raw)
	}
}

// joinScripts joins the replies of all masters to a command that changes scripts
// or functions; shards are the indexes of those that sent them.
func joinScripts(m *merge, args [][]byte, shards []int) ([]byte, error) {
	name := m.whole.Spec.Name
	var good, bad []byte
	worst, failures := -1, 0
	for i, reply := range m.replies {
		switch {
		case reply == nil:
			if bad == nil {
				bad = lineAllAway
			}
		case reply[0] != '-':
			good = reply
		case name == "function|delete" && bytes.Equal(reply, lineNoLibrary):
			if bad == nil {
				bad = reply
			}
		default:
			if worst < 0 {
				bad, worst = reply, i
			}
			failures++
		}
	}
	switch {
	case good == nil:
		return bad, nil
	case name == "script|load":
		m.keepScript(string(args[2]), good, bad)
		return nil, nil
	case failures > 0:
		return partly(m.sh, m.whole.Spec, bad, shards[worst], failures, len(m.replies)), nil
	}
	return good, nil
}

var lineNoLibrary = []byte("-ERR Library not found\r\n")

// partly is the error of a command that not all shards did.
func partly(sh *Shared, spec *command.Spec, reply []byte, shard, failures, of int) []byte {
	id := "?"
	if shard < len(sh.Table.Shards) {
		id = sh.Table.Shards[shard].ID
	}
	advice := "repeat it"
	switch spec.Name {
	case "function|load":
		advice = "repeat it with REPLACE"
	case "function|restore":
		advice = "repeat it with REPLACE or FLUSH"
	}
	title := strings.ToUpper(strings.ReplaceAll(spec.Name, "|", " "))
	return fmt.Appendf(nil, "-ERR %s failed at %d of %d shards and was done at the others, %s; at %s: %s\r\n",
		title, failures, of, advice, id, bytes.TrimRight(reply[1:], "\r\n"))
}

// keepScript has a source kept by the Configserver and completes SCRIPT LOAD.
// Either all shards have it or the Configserver does: then EVALSHA works.
func (m *merge) keepScript(source string, good, bad []byte) {
	sh, library := m.sh, m.sh.Scripts
	var err error
	sh.Router.Async(func() {
		ctx, cancel := context.WithTimeout(context.Background(), keepTimeout)
		defer cancel()
		err = library.Keep(ctx, source)
	}, func() {
		if err != nil && bad != nil {
			m.client.Complete(m.whole, bad)
			return
		}
		m.client.Complete(m.whole, good)
	})
}

// scriptExists serves SCRIPT EXISTS: a script exists if EVALSHA finds it
// anywhere, as far as the shards are there.
func (c *Client) scriptExists(spec *command.Spec, args [][]byte) {
	sh := c.sh
	shas, asked := make([]string, len(args)-2), []string(nil)
	for i, arg := range args[2:] {
		if shas[i] = string(sh.lowerSHA(arg)); shas[i] != "" {
			asked = append(asked, shas[i])
		}
	}
	w := c.begin(spec)
	args = CloneArgs(args)
	library := sh.Scripts
	var known map[string]bool
	sh.Router.Async(func() {
		ctx, cancel := context.WithTimeout(context.Background(), findTimeout)
		defer cancel()
		known = library.Exists(ctx, asked)
	}, func() {
		answer := func(everywhere func(i int) bool) []byte {
			reply := redcon.AppendArray(nil, len(shas))
			for i, sha := range shas {
				n := int64(0)
				if known[sha] || everywhere(i) {
					n = 1
				}
				reply = redcon.AppendInt(reply, n)
			}
			return reply
		}
		n := len(sh.Table.Shards)
		if len(known) == len(shas) || n == 0 || w.Owner == nil {
			c.Complete(w, answer(func(int) bool { return false }))
			return
		}
		m := &merge{sh: sh, client: c, whole: w, replies: make([][]byte, n), waiting: n}
		m.join = func(m *merge, _ []byte) ([]byte, error) {
			var all [][][]byte
			for _, reply := range m.replies {
				if reply == nil { // its shard is not there
					continue
				}
				elements, err := fanout.Elements(reply)
				if err != nil || len(elements) != len(shas) {
					return nil, fanout.ErrReply
				}
				all = append(all, elements)
			}
			return answer(func(i int) bool {
				for _, elements := range all {
					if string(elements[i]) != ":1\r\n" {
						return false
					}
				}
				return len(all) > 0
			}), nil
		}
		w.ReadOnly = true
		m.partly()
		raw := appendCommand(nil, args)
		for i := range n {
			m.ask(i, i, raw)
		}
	})
}

// scriptFlush serves SCRIPT FLUSH: first at the Configserver, so that nothing is
// found there that the shards do not have any more, then at the shards.
func (c *Client) scriptFlush(spec *command.Spec, args [][]byte) {
	sh := c.sh
	if len(args) > 3 || len(args) == 3 && !bytes.EqualFold(args[2], []byte("sync")) && !bytes.EqualFold(args[2], []byte("async")) {
		c.answer(spec, lineFlushMode)
		return
	}
	w := c.begin(spec)
	args = CloneArgs(args)
	library := sh.Scripts
	var err error
	sh.Router.Async(func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		err = library.Flush(ctx)
	}, func() {
		if err != nil {
			c.Complete(w, command.ErrorLine("SCRIPT FLUSH needs the Configserver, which keeps the scripts; nothing was flushed, retry later: ", []byte(err.Error()), ""))
			return
		}
		c.finishAtMasters(w, args)
	})
}

// overTaken serves the commands that must reach a server whose shared connection
// waits behind a script.
func (c *Client) overTaken(spec *command.Spec, args [][]byte) {
	w := c.begin(spec)
	line := c.sh.Router.Control(w.Proto, appendCommand(nil, args), func(replies [][]byte) {
		if spec.Name == "function|stats" {
			c.Complete(w, joinStats(replies))
			return
		}
		c.Complete(w, joinKill(replies))
	})
	if line != nil {
		c.Complete(w, line)
	}
}

// joinKill joins the replies to KILL: one script that was killed is what was
// asked for; else what speaks against it.
func joinKill(replies [][]byte) []byte {
	var failed []byte
	for _, prefix := range []string{"+OK", "-UNKILLABLE", "-BUSY"} {
		for _, reply := range replies {
			if bytes.HasPrefix(reply, []byte(prefix)) {
				return reply
			}
			if failed == nil && reply[0] == '-' && !bytes.Equal(reply, lineNotBusy) {
				failed = reply
			}
		}
	}
	if failed != nil {
		return failed
	}
	return lineNotBusy
}

// joinStats chooses the reply to FUNCTION STATS of a shard that runs a function,
// else of any that answered.
func joinStats(replies [][]byte) []byte {
	var best []byte
	for _, reply := range replies {
		switch {
		case reply[0] == '-':
		case best == nil || !idleStats(reply):
			best = reply
			if !idleStats(reply) {
				return best
			}
		}
	}
	if best != nil {
		return best
	}
	return fanout.FirstError(replies)
}

// idleStats tells if a reply to FUNCTION STATS names no running function.
func idleStats(reply []byte) bool {
	_, rest, _ := bytes.Cut(reply, []byte("running_script\r\n"))
	return bytes.HasPrefix(rest, nullBulk) || bytes.HasPrefix(rest, nullRESP3) || bytes.HasPrefix(rest, nullRESP2Array)
}

package reactor

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Commands that are answered from more than one client's state run outside of
// the loops: they may ask all loops for something, and take their time.

var lineNoAnswer = []byte("-ERR this proxy was built without an answer to that command\r\n")

// Local answers COMMAND, CONFIG SET, CLUSTER, and those of CLIENT that concern other
// clients.
func (l *loop) Local(c *session.Client, r *backend.Request, args [][]byte) {
	own := session.CloneArgs(args)
	switch r.Spec.Name {
	case "client|list":
		l.clientList(c, r, own)
		return
	case "client|kill":
		l.clientKill(c, r, own)
		return
	case "config|set":
		l.configSet(c, r, own)
		return
	case "client|pause":
		l.clientPause(c, r, own)
		return
	case "client|unpause":
		l.everywhere(func(at *loop, _ int) { at.unpause() }, func() { c.Complete(r, lineOK) })
		return
	}
	if r.Spec.Name == "client|unblock" {
		l.clientUnblock(c, r, own)
		return
	}
	var answer func(dst []byte, args [][]byte, proto int) []byte
	switch name, _, _ := strings.Cut(r.Spec.Name, "|"); {
	case name == "command":
		answer = l.eng.cfg.Command
	case name == "cluster" && l.eng.cfg.Cluster != nil:
		local := c.LocalAddress()
		answer = func(dst []byte, args [][]byte, proto int) []byte {
			return l.eng.cfg.Cluster(dst, args, proto, local)
		}
	}
	if answer == nil {
		c.Complete(r, lineNoAnswer)
		return
	}
	proto := int(r.Proto)
	go func() {
		reply := answer(nil, own, proto)
		l.post(func() { c.Complete(r, reply) })
	}()
}

// Info answers INFO from the texts of the shards. The last line names those that
// did not answer.
func (l *loop) Info(c *session.Client, r *backend.Request, args, shards [][]byte, missing []string) {
	if l.eng.cfg.Info == nil {
		c.Complete(r, redcon.AppendBulk(nil, bytes.Join(shards, []byte("\r\n"))))
		return
	}
	proto := int(r.Proto)
	go func() {
		text := l.eng.cfg.Info(nil, args, shards)
		if len(missing) > 0 && len(text) > 0 {
			text = fmt.Appendf(text, "shards_missing:%s\r\n", strings.Join(missing, ","))
		}
		reply := session.AppendText(nil, text, proto)
		l.post(func() { c.Complete(r, reply) })
	}()
}

var (
	lineReason  = []byte("-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n")
	lineInteger = []byte("-ERR value is not an integer or out of range\r\n")
)

// clientUnblock serves CLIENT UNBLOCK id [TIMEOUT | ERROR]. The answer comes when
// it is known if that ended the wait.
func (l *loop) clientUnblock(c *session.Client, r *backend.Request, args [][]byte) {
	timeout := true
	if len(args) > 4 {
		c.Complete(r, command.ErrorLine("unknown subcommand or wrong number of arguments for '", args[1], "'. Try CLIENT HELP."))
		return
	}
	if len(args) == 4 {
		switch strings.ToUpper(string(args[3])) {
		case "TIMEOUT":
		case "ERROR":
			timeout = false
		default:
			c.Complete(r, lineReason)
			return
		}
	}
	id, ok := command.Integer(args[2])
	if !ok {
		c.Complete(r, lineInteger)
		return
	}
	answer := func(unblocked bool) {
		n := int64(0)
		if unblocked {
			n = 1
		}
		c.Complete(r, redcon.AppendInt(nil, n))
	}
	act := func(_ *loop, blocked *session.Client) bool {
		blocked.Unblock(timeout, func(unblocked bool) { l.post(func() { answer(unblocked) }) })
		return true
	}
	l.withClient(uint64(id), act, func(found bool) {
		if !found {
			answer(false)
		}
	})
}

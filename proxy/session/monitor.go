package session

import (
	"bytes"
	"strconv"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/pubsub"
)

// Clients that MONITOR get a line for each command: those of the servers are
// fed to them by the loop, those of commands that the proxy answers itself are
// made here. As in Redis they may go on sending commands, but none about data.

var (
	lineReplica   = []byte("-ERR Replica can't interact with the keyspace\r\n")
	lineNoMonitor = []byte("-ERR MONITOR isn't allowed for DENY BLOCKING client\r\n")
)

// Monitoring tells if the client gets a line for each command.
func (c *Client) Monitoring() bool { return c.subs != nil && c.subs.monitor }

// monitor serves MONITOR. The loop answers when the servers send their lines.
func (c *Client) monitor(spec *command.Spec) {
	switch {
	case c.mode == replyInside:
		c.answer(spec, lineNoMonitor)
	case c.Monitoring(): // once more: Redis does not answer
		if c.mode == replySkip {
			c.mode = replyOn
		}
	default:
		c.sh.Router.Monitor(c, c.begin(spec))
		c.waitForAll()
	}
}

// StartMonitoring answers the client's MONITOR: lines are fed to it from now on.
func (c *Client) StartMonitoring(r *backend.Request) {
	if c.subs == nil {
		c.subs = &subscriptions{member: pubsub.NewMember(c)}
	}
	c.subs.monitor = true
	c.Complete(r, lineOK)
}

// Feed gives a monitoring client a line.
func (c *Client) Feed(line []byte) {
	if c.Closed || c.ending || c.mode == replyOff {
		return
	}
	if r := c.first; r != nil && r.Streamed {
		c.subs.late.Append(&c.sh.Pool, line)
		return
	}
	c.out.Reserve(&c.sh.Pool, outputRoom)
	c.out.Append(&c.sh.Pool, line)
	c.wrote()
}

// refusedToMonitor tells if a command of a monitoring client is about data.
func (c *Client) refusedToMonitor(spec *command.Spec, args [][]byte) bool {
	return c.Monitoring() && (spec.Write || spec.ReadOnly || spec.MayReplicate(args))
}

// show tells those who monitor of a command that the proxy answers itself.
// MULTI, EXEC and WATCH are shown by the server that gets them, unless none
// does (transact).
func (c *Client) show(spec *command.Spec, args [][]byte) {
	if !c.sh.Monitored || spec.Hidden {
		return
	}
	switch spec.Name {
	case "multi", "exec", "discard", "watch":
		return
	case "auth":
		args = redact(args, 1, len(args)-1)
	case "hello":
		for i := 2; i+2 < len(args); i++ {
			if bytes.EqualFold(args[i], []byte("auth")) {
				args = redact(args, i+1, 2)
				break
			}
		}
	}
	c.showWords(args)
}

// showWords tells those who monitor of a command of this client.
func (c *Client) showWords(args [][]byte) {
	if c.sh.Monitored {
		c.sh.Router.Show(monitorLine(time.Now(), c.db, c.addr.String(), args))
	}
}

// redact replaces n arguments from an index on.
func redact(args [][]byte, from, n int) [][]byte {
	args = append([][]byte(nil), args...)
	for i := from; i < from+n; i++ {
		args[i] = []byte("(redacted)")
	}
	return args
}

// MonitorLineBytes is about where a line of MONITOR is cut.
const MonitorLineBytes = 1 << 20

// monitorLine is a line as Redis writes it.
func monitorLine(now time.Time, db uint8, addr string, args [][]byte) []byte {
	line := strconv.AppendInt([]byte{'+'}, now.Unix(), 10)
	micros := strconv.Itoa(1_000_000 + now.Nanosecond()/1000)
	line = append(append(line, '.'), micros[1:]...)
	line = strconv.AppendUint(append(line, " ["...), uint64(db), 10)
	line = append(append(append(line, ' '), addr...), ']')
	for _, arg := range args {
		if len(line) > MonitorLineBytes {
			line = append(line, "..."...)
			break
		}
		line = appendQuoted(append(line, ' '), arg)
	}
	return append(line, "\r\n"...)
}

// appendQuoted appends an argument as redis-cli would take it.
func appendQuoted(dst, arg []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, b := range arg[:min(len(arg), MonitorLineBytes)] {
		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b == '\n':
			dst = append(dst, '\\', 'n')
		case b == '\r':
			dst = append(dst, '\\', 'r')
		case b == '\t':
			dst = append(dst, '\\', 't')
		case b == '\a':
			dst = append(dst, '\\', 'a')
		case b == '\b':
			dst = append(dst, '\\', 'b')
		case b < ' ' || b > '~':
			dst = append(dst, '\\', 'x', hex[b>>4], hex[b&15])
		default:
			dst = append(dst, b)
		}
	}
	if len(arg) > MonitorLineBytes {
		dst = append(dst, "..."...)
	}
	return append(dst, '"')
}

package session

import (
	"bytes"
	"math"
	"strconv"
	"syscall"
	"time"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/resp"
)

// Commands that block: BLPOP and its kin, XREAD and XREADGROUP with BLOCK, WAIT.
//
// Goal: what a client sees is what one Redis would have answered, a blocked
// client costs no thread and holds up nobody, and it stays blocked, for the time
// it asked for, whatever happens to masters meanwhile.
//
//  1. A blocking command waits for the client's earlier ones, for it goes over
//     another connection and could overtake them. Later ones wait until it is
//     answered, as in Redis: what the client sends meanwhile is left in the
//     socket (Client.stalled).
//  2. It goes to a connection that serves nobody else (Router.Block), to the
//     master of its slot. The server knows the time limit and says when it is
//     over.
//  3. It may be sent again, to another master: then with the time that is left, as when
//     it is first sent after a while (soonEnough).
//     An ID "$" of XREAD is sent again as the ID it meant when the command was
//     first sent, so that no entry in between is missed.
//  4. Between MULTI and EXEC, and in scripts, it is a command like any other: the
//     server does not block there.
//  5. When the client goes, the command is ended at the server. The end of the
//     client's stream alone (EPOLLRDHUP) may be that of a client that still reads:
//     one that has its answer already gets it, and is closed otherwise, as by
//     Redis.
//
// What may be lost when a master dies is described where it is sent (package
// reactor, blocking.go).
type Blocked struct {
	// Spec of the command; Slot, whose master it is for; Crosses, if its keys lie in
	// others too; Proto of the reply, and DB that it is about.
	Spec      *command.Spec
	Slot      int
	Crosses   bool
	Proto, DB uint8
	// Deadline is when its time is over, in nanoseconds of the loop's clock; 0
	// for never, or when only the server can tell.
	Deadline int64

	client *Client
	// whole takes the reply: a request of the client, or a part of WAIT.
	whole *backend.Request
	// words is the request as the client sent it.
	words *buffer.Chunk
	began int64
	// timeoutAt is the argument with the time limit, in units.
	timeoutAt int
	unit      time.Duration
	// fresh are the arguments that are "$", and ids what they meant; nil
	// while that is not known. streams is how far the key stands before its ID.
	fresh   []int
	streams int
	ids     [][]byte
	// waiting is the loop's side of it.
	waiting Blocking
}

// Blocking is a command that blocks, as the loop sees it.
type Blocking interface {
	// Cancel ends the wait. done is called, at once or later, and told if the
	// command ended without an effect; then nobody has answered it yet. Otherwise
	// it was answered before, by the server or with an error. With timeout, the
	// server ends it as if its time was over, and answers.
	Cancel(timeout bool, done func(unblocked bool))
	// Drop ends the wait of a client that is gone.
	Drop()
}

// blocking is the state of a client that is blocked.
type blocking struct {
	// parts are the commands, several for WAIT. left of them have no answer.
	parts []*Blocked
	left  int
	// timed: it ends after some time.
	timed bool
	// cancelling: somebody ends it already.
	cancelling bool
}

var (
	lineUnblocked = []byte("-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")
	rawPing       = []byte("*1\r\n$4\r\nPING\r\n")
)

// block serves a command that may block. It returns false when the command must
// wait, as handle does.
func (c *Client) block(spec *command.Spec, at int, unit time.Duration, args [][]byte, raw []byte) bool {
	slot, line := spec.Slot(args)
	crosses := slot == command.ManySlots
	if crosses {
		slot, line = c.crossing(spec, args)
	}
	if line != nil {
		c.answer(spec, line)
		return true
	}
	if c.first != nil {
		c.stalled, c.barrier = true, true
		return false
	}
	r := c.begin(spec)
	r.Slot, r.ReadOnly = int32(max(slot, 0)), spec.ReadOnly
	c.touch(int(r.Slot))
	if crosses {
		c.cross(r)
	}
	b := c.newBlocked(r, spec, int(r.Slot), args, raw)
	b.Crosses, r.Relayed = crosses, true
	b.timeoutAt, b.unit = at, unit
	b.Deadline = b.deadline(args[at])
	b.fresh, b.streams = spec.NewEntries(args)
	c.unkept(r, b.words.B)
	c.wait(b)
	return true
}

// newBlocked makes a blocking command whose reply r gets.
func (c *Client) newBlocked(r *backend.Request, spec *command.Spec, slot int, args [][]byte, raw []byte) *Blocked {
	b := &Blocked{Spec: spec, Slot: slot, Proto: c.proto, DB: c.db, client: c, whole: r, began: c.sh.Now}
	if len(raw) == 0 || raw[0] != '*' {
		raw = c.sh.encode(args)
	}
	b.words = c.sh.Pool.GetTight(len(raw))
	b.words.B = append(b.words.B, raw...)
	c.sh.Pool.Charge(b.words)
	return b
}

// wait sends the parts of a command that blocks. What follows waits.
func (c *Client) wait(parts ...*Blocked) {
	c.blocking = &blocking{parts: parts, left: len(parts), timed: parts[0].Deadline != 0}
	c.sh.Blocked++
	if c.blocking.timed {
		c.sh.TimedOut++
	}
	for _, b := range parts {
		if b.words == nil {
			continue // another part failed, and with it all
		}
		waiting, line := c.sh.Router.Block(b)
		if line != nil {
			b.Fail(line)
		} else if b.words != nil {
			b.waiting = waiting
		}
	}
	c.waitForAll()
	if c.blocking != nil && (c.hungUp || c.draining) {
		c.leave()
	}
}

// IsBlocked tells if the client waits for a blocking command.
func (c *Client) IsBlocked() bool { return c.blocking != nil }

// deadline reads a time limit; 0 for none, or if the server will refuse it.
func (b *Blocked) deadline(arg []byte) int64 {
	var limit float64
	if b.unit == time.Second {
		limit, _ = strconv.ParseFloat(string(arg), 64) // 0 when it is no number
	} else {
		n, _ := strconv.ParseInt(string(arg), 10, 64)
		limit = float64(n)
	}
	if limit *= float64(b.unit); limit > 0 && limit < math.MaxInt64/2 {
		return b.began + int64(math.Ceil(limit/1e6))*1e6
	}
	return 0
}

// Before are the requests that must be sent before the command.
func (b *Blocked) Before() (raw [][]byte) {
	if b.Spec.Kind == command.Local {
		// WAIT is about what the server executed before on the same connection.
		return [][]byte{rawPing}
	}
	if len(b.fresh) == 0 || b.ids != nil {
		return nil
	}
	args, err := resp.Args(b.words.B, nil)
	if err != nil {
		return nil // what was parsed once will be again
	}
	for _, at := range b.fresh {
		raw = append(raw, appendCommand(nil, [][]byte{[]byte("XINFO"), []byte("STREAM"), args[at-b.streams]}))
	}
	return raw
}

// Answered takes the beginning of the replies to Before.
func (b *Blocked) Answered(replies [][]byte) {
	if len(b.fresh) == 0 || b.ids != nil || len(replies) != len(b.fresh) {
		return
	}
	ids := make([][]byte, len(replies))
	for i, reply := range replies {
		if ids[i] = lastID(reply); ids[i] == nil {
			return // it will be "$" again: the server refuses the command anyway
		}
	}
	b.ids = ids
}

var (
	fieldLastID = []byte("\r\n$17\r\nlast-generated-id\r\n$")
	noSuchKey   = []byte("-ERR no such key")
)

// soonEnough is within how many nanoseconds a command is sent as the client wrote it, for
// those who read it with MONITOR: the time until there is a connection is then not taken
// off its limit.
const soonEnough = int64(100 * time.Millisecond)

// LastIDWithin is how many bytes of a reply to Before are enough for Answered.
const LastIDWithin = 512

// lastID finds the last ID of a stream in the beginning of the reply to XINFO
// STREAM; nil when it cannot be known.
func lastID(reply []byte) []byte {
	if bytes.HasPrefix(reply, noSuchKey) {
		return []byte("0-0")
	}
	_, rest, ok := bytes.Cut(reply, fieldLastID)
	_, rest, ok2 := bytes.Cut(rest, []byte("\r\n"))
	id, _, ok3 := bytes.Cut(rest, []byte("\r\n"))
	if reply[0] == '-' || !ok || !ok2 || !ok3 {
		return nil
	}
	return bytes.Clone(id)
}

// Request appends what is to be sent now: the command with the time that is
// left. again says that it was sent before.
func (b *Blocked) Request(dst []byte, again bool) []byte {
	now := b.client.sh.Now
	if b.Deadline != 0 && !again && now-b.began < soonEnough {
		b.Deadline += now - b.began // the server counts from now
		return append(dst, b.words.B...)
	}
	left := b.Deadline - now
	late := b.Deadline != 0 && now-b.began >= int64(time.Millisecond)
	if !late && (!again || b.ids == nil) {
		return append(dst, b.words.B...)
	}
	args, err := resp.Args(b.words.B, nil)
	if err != nil {
		return append(dst, b.words.B...)
	}
	if late {
		ms := max((left+int64(time.Millisecond)-1)/int64(time.Millisecond), 1)
		if b.unit == time.Second {
			args[b.timeoutAt] = strconv.AppendFloat(nil, float64(ms)/1000, 'f', 3, 64)
		} else {
			args[b.timeoutAt] = strconv.AppendInt(nil, ms, 10)
		}
	}
	if again && b.ids != nil {
		for i, at := range b.fresh {
			args[at] = b.ids[i]
		}
	}
	return appendCommand(dst, args)
}

// ended: the command has its answer, or needs none any more.
func (b *Blocked) ended() {
	if b.words == nil {
		return
	}
	c := b.client
	c.sh.Pool.Put(b.words)
	b.words, b.waiting = nil, nil
	if k := c.blocking; k != nil {
		if k.left--; k.left == 0 {
			c.unblocked()
		}
	}
}

// unblocked: the client waits no longer.
func (c *Client) unblocked() {
	if c.blocking.timed {
		c.sh.TimedOut--
	}
	c.blocking = nil
	c.sh.Blocked--
}

// Reply takes a piece of the server's answer. The time it was blocked counts
// neither for latencies nor for slow commands, as in Redis.
func (b *Blocked) Reply(piece []byte, last bool, kind byte) {
	if last {
		b.ended()
	}
	r := b.whole
	r.Start = b.client.sh.Now
	r.Owner.Reply(r, piece, last, kind)
}

// Fail ends the command with an error line.
func (b *Blocked) Fail(line []byte) {
	b.ended()
	r := b.whole
	r.Start = b.client.sh.Now
	r.Owner.Fail(r, line)
}

// TimedOut ends the command as the server does when its time is over.
func (b *Blocked) TimedOut() {
	var reply []byte
	switch b.Spec.Name {
	case "wait":
		reply = redcon.AppendInt(nil, 0)
	case "waitaof":
		reply = redcon.AppendInt(redcon.AppendInt(redcon.AppendArray(nil, 2), 0), 0)
	default:
		reply = nullArray(b.Proto)
	}
	b.Reply(reply, true, reply[0])
}

// cancel ends what the client waits for: with an error, or as if its time was
// over. done is told if that is why it ended.
func (c *Client) cancel(timeout bool, done func(unblocked bool)) {
	k := c.blocking
	if k == nil || k.cancelling {
		done(false)
		return
	}
	k.cancelling = true
	left, some := len(k.parts)+1, false
	ended := func(unblocked bool) {
		some = some || unblocked
		if left--; left == 0 {
			done(some)
		}
	}
	for _, b := range k.parts {
		if b.waiting == nil {
			ended(false)
			continue
		}
		// The server knows what WAIT has to say when its time is over.
		byServer := timeout && b.Spec.Kind == command.Local
		b.waiting.Cancel(byServer, func(unblocked bool) {
			switch {
			case !unblocked || b.words == nil:
			case timeout:
				b.TimedOut()
			default:
				b.Fail(lineUnblocked)
			}
			ended(unblocked || byServer)
		})
	}
	ended(false)
}

// Unblock serves CLIENT UNBLOCK for this client. done is told if it was blocked
// and is no more because of this.
func (c *Client) Unblock(timeout bool, done func(unblocked bool)) { c.cancel(timeout, done) }

// leave ends what the client waits for and closes it, unless there is an answer.
func (c *Client) leave() {
	k := c.blocking
	if k == nil || k.cancelling {
		return // it is looked at again when it blocks again
	}
	k.cancelling = true
	for _, b := range k.parts {
		if b.waiting == nil {
			continue
		}
		b.waiting.Cancel(false, func(unblocked bool) {
			if unblocked {
				c.Close()
			}
		})
	}
}

// HangUp is called when the client closed its side of the connection.
func (c *Client) HangUp() {
	c.hungUp = true
	if c.postponed {
		c.Close() // what waits is not wanted any more
		return
	}
	c.leave()
}

// Ask asks a client that ended what it sends whether it still reads, once: it returns
// false when it was asked before. A socket that is closed answers with a reset; who
// reads does not see the byte, which is urgent data and no part of the stream.
func (c *Client) Ask() bool {
	if c.wasAsked {
		return false
	}
	c.wasAsked = true
	// If it cannot be sent, nobody learns anything.
	_, _ = syscall.SendmsgN(c.FD, []byte{'\n'}, nil, nil, syscall.MSG_OOB|syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
	return true
}

// dropBlocked ends what a closed client waited for.
func (c *Client) dropBlocked() {
	k := c.blocking
	if k == nil {
		return
	}
	c.unblocked()
	for _, b := range k.parts {
		b.drop()
	}
}

// drop ends a command whose answer nobody needs.
func (b *Blocked) drop() {
	if b.words == nil {
		return
	}
	waiting := b.waiting
	b.ended()
	if waiting != nil {
		waiting.Drop()
	}
	if b.whole.Owner == nil {
		b.client.sh.Requests.Put(b.whole)
		return
	}
	b.whole.Owner.Fail(b.whole, lineUnblocked)
}

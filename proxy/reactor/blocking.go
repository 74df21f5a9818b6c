package reactor

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Commands that block, on their way to a server and back.
//
// Goal: a blocked client sees one Redis that never goes away, costs no thread,
// and takes an element only if it gets it.
//
//  1. A blocking command takes a pin, an idle connection most of the time, for as
//     long as it lasts. While its shard cannot serve, it is held like any other
//     request, and answered when its own time is over before. While only its
//     connection is being made, its time is not over: with data there, BLPOP
//     with a limit of a millisecond takes it.
//  2. The server knows the connection by a number (CLIENT ID). By that number the
//     wait is ended cleanly from another connection: CLIENT UNBLOCK … ERROR, told
//     again until there is an answer, for it may arrive before the command does.
//     The answer is then either data, or UNBLOCKED, which means that the server
//     did nothing and never will.
//  3. Planned changes (an epoch that freezes the shard, gives the slot to another
//     one, or replaces the credentials) end all waits that way. The epoch is
//     obeyed when the answers are there. What was UNBLOCKED is held and sent
//     again with the time that is left. Clients notice nothing, and nothing is
//     lost. The same is done when the server says UNBLOCKED by itself, because
//     it became a replica.
//  4. Unplanned changes (an epoch takes the master away without a freeze): what
//     the server wrote before is still read. Without an answer, the command is
//     sent again, too. With Config.FailBlocked it is answered with an error
//     instead, unless it only reads.
//  5. A connection that breaks leaves a command in doubt. If an epoch then replaces
//     the master, see 4. If the same process of the master answers on another
//     connection, it was the network, or somebody closed it: the client gets the
//     error of a command that was in flight. It gets that, too, when its own time
//     has been over for Config.NodeTimeout and nobody knows yet.
//  6. A client that leaves is unblocked the same way, in the order of what others
//     send on the shared connection; if the server does not answer soon, or the
//     client was cut off, the connection is closed, which ends the wait too.
//
// What may be lost in 4: a server pops, hands the command to its replicas, and
// writes the reply, in one turn of its loop, and the kernel delivers what was
// written even if the process dies then. So an element is lost when the process
// dies, or its network is cut, between these writes: when a replica got
// the pop and the proxy not the reply. The command that is sent again then pops
// another one. It is less than what asynchronous replication may lose, and the
// alternative is an error for each blocked client at each failover, most of which
// lost nothing. Those who want every such case to be told set FailBlocked. BLMOVE
// and XREADGROUP (without NOACK) lose nothing even then: the element is in the
// other list, the entry among those pending; but BLMOVE then moves another one.
type call struct {
	pin *pin
	b   *session.Blocked
	// state it is in, and since when.
	state callState
	since int64
	// main is the command in flight, after missing others. doubt: it was in flight
	// when the connection broke. begun: a part of the reply was passed on. again:
	// it was sent before.
	main                *backend.Request
	missing             int
	replies             [][]byte
	doubt, begun, again bool
	// node that has it, or had it when the connection broke. stale is one that
	// said that it is a replica.
	node, stale *node

	// wanted: the server shall unblock it. ask is that request in flight, or one
	// for a sign of life; askAt when the next is due, after a pause. ours: it may
	// be the proxy that unblocked it.
	wanted, ours bool
	ask          *backend.Request
	askAt, pause int64
	// cancelled is told how it ended, by cancelBy at last. byServer: the server
	// answers as if the time was over.
	cancelled func(unblocked bool)
	cancelBy  int64
	byServer  bool
}

type callState uint8

const (
	// callHeld: it waits for a master that serves, or for its connection.
	callHeld callState = iota
	// callSent: a server has it.
	callSent
	// callInDoubt: its connection broke.
	callInDoubt
	// callOver: it was answered, or is not needed any more.
	callOver
)

// Requests of a call, in Request.Part; what is sent before the command counts
// from 0.
const (
	partMain = -1 - iota
	partID
	partUnblock
	partAlive
)

const (
	firstPause = int64(time.Millisecond)
	lastPause  = int64(20 * time.Millisecond)
)

var (
	rawClientID = []byte("*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n")
	rawAlive    = []byte("*1\r\n$4\r\nPING\r\n")

	byUnblock = []byte("-UNBLOCKED client unblocked via CLIENT UNBLOCK")
	byRole    = []byte("-UNBLOCKED force unblock from blocking operation")

	errLeft = errors.New("the client left")
)

// Block sends a command that may block.
func (l *loop) Block(b *session.Blocked) (session.Blocking, []byte) {
	p, line := l.newPin(b.Slot, b.Proto)
	if line != nil {
		return nil, line
	}
	c := &call{pin: p, b: b}
	p.call, p.db, p.crosses = c, b.DB, b.Crosses
	c.hold()
	return c, nil
}

// hold keeps the command until it can be sent, which may be now.
func (c *call) hold() {
	c.state, c.since = callHeld, c.pin.loop.sh.Now
	c.wanted, c.doubt = false, false
	c.pump()
	if c.state == callHeld && c.b.Deadline != 0 {
		c.pin.loop.timerAt(c.b.Deadline)
	}
}

// pump sends a command that is held, if that is possible now.
func (c *call) pump() {
	if c.state != callHeld {
		return
	}
	p := c.pin
	l, s := p.loop, p.shard()
	if l.deleting {
		c.fail(lineDeleting)
		return
	}
	if p.astray() {
		c.fail(session.LineCrosses(c.b.Spec))
		return
	}
	if p.conn != nil && p.node != s.master {
		p.leave(errReplaced)
	}
	if s.blocked || s.master == nil || s.master == c.stale {
		return // the shard's release pumps again
	}
	if p.conn == nil {
		p.connect(s.master)
	}
	if p.conn != nil && p.conn.State() == backend.Ready {
		c.send()
	}
}

// send sends the command, and before it what must be known.
func (c *call) send() {
	p := c.pin
	l := p.loop
	c.state, c.node, c.stale = callSent, p.node, nil
	c.ours = c.ask != nil // that may hit this one
	if p.conn.ClientID == 0 {
		c.enqueue(p.conn, partID, rawClientID)
	}
	before := c.b.Before()
	c.replies, c.missing = make([][]byte, len(before)), len(before)
	for i, raw := range before {
		c.enqueue(p.conn, int32(i), raw)
	}
	r := l.sh.Requests.Get()
	r.Owner, r.Spec, r.Start, r.Proto, r.DB, r.Part = c, c.b.Spec, l.sh.Now, c.b.Proto, c.b.DB, partMain
	r.ReadOnly = c.b.Spec.ReadOnly
	c.main = r
	p.sent++
	l.text = c.b.Request(l.text[:0], c.again)
	c.again = true
	p.conn.Enqueue(r, l.text)
	if c.cancelled != nil {
		c.unblock()
	}
}

// enqueue sends a request of the proxy's own.
func (c *call) enqueue(conn *backend.Conn, part int32, raw []byte) *backend.Request {
	l := c.pin.loop
	r := l.sh.Requests.Get()
	r.Owner, r.Part, r.Start, r.ReadOnly = c, part, l.sh.Now, true
	conn.Enqueue(r, raw)
	return r
}

// end lets go of the connection: the command is over.
func (c *call) end() {
	c.state = callOver
	p := c.pin
	if c.ask != nil && p.conn != nil {
		p.leave(errIdle) // it must not unblock the next one
	}
	p.released, p.clean = true, true
	p.endWhenDone()
}

// fail ends the command with an error line.
func (c *call) fail(line []byte) {
	c.end()
	c.b.Fail(line)
	c.settle(false)
}

// settle tells who cancelled the command how it ended.
func (c *call) settle(unblocked bool) {
	if done := c.cancelled; done != nil {
		c.cancelled = nil
		done(unblocked)
	}
}

// Reply takes a piece of an answer.
func (c *call) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	l := c.pin.loop
	if r != c.main {
		if room := session.LastIDWithin - r.Out.Len(); room > 0 {
			r.Out.Append(&l.sh.Pool, piece[:min(len(piece), room)])
		}
		if last {
			c.answered(r)
		}
		return
	}
	if kind == '-' {
		r.Out.Append(&l.sh.Pool, piece)
		if last {
			line := r.Out.Bytes()
			r.Out.Reset(&l.sh.Pool)
			c.main = nil
			l.sh.Requests.Put(r)
			c.refused(line)
		}
		return
	}
	if !last {
		c.begun = true
		c.b.Reply(piece, false, kind)
		return
	}
	c.main = nil
	l.sh.Requests.Put(r)
	c.end()
	c.b.Reply(piece, true, kind)
	c.settle(false)
}

// Fail ends a request whose connection broke; what becomes of the command is
// decided by broken.
func (c *call) Fail(r *backend.Request, _ []byte) {
	switch r {
	case c.main:
		c.main, c.doubt = nil, true
	case c.ask:
		c.asked()
	}
	r.Out.Reset(&c.pin.loop.sh.Pool)
	c.pin.loop.sh.Requests.Put(r)
}

// answered takes the answer to a request of the proxy's own.
func (c *call) answered(r *backend.Request) {
	l := c.pin.loop
	reply, part, mine := r.Out.Bytes(), r.Part, r == c.ask
	r.Out.Reset(&l.sh.Pool)
	l.sh.Requests.Put(r)
	switch {
	case part == partID:
		if n, err := strconv.ParseInt(string(bytes.TrimRight(reply[1:], "\r\n")), 10, 64); err == nil && c.pin.conn != nil {
			c.pin.conn.ClientID = n
			c.tell()
		}
	case part >= 0:
		c.replies[part] = reply
		if c.missing--; c.missing == 0 {
			c.b.Answered(c.replies)
		}
	case part == partUnblock && mine:
		c.asked()
	case part == partAlive && mine:
		if c.ask = nil; c.state == callInDoubt {
			c.fail(backend.LineLost)
		}
	}
}

// refused takes an error as the answer to the command.
func (c *call) refused(line []byte) {
	role := bytes.HasPrefix(line, byRole)
	if !role && (!c.ours || !bytes.HasPrefix(line, byUnblock)) {
		c.end()
		c.b.Reply(line, true, '-')
		c.settle(false)
		return
	}
	// Nothing was done, and nothing will be.
	p := c.pin
	if p.conn.InFlight() == 0 {
		p.loop.drained(p.conn)
	}
	if c.cancelled != nil {
		c.end()
		c.settle(true)
		return
	}
	if role {
		c.stale = p.node
	}
	if role || p.shard().master != p.node {
		p.leave(errReplaced)
	}
	c.hold()
}

// unblock has the server end the wait.
func (c *call) unblock() {
	if !c.wanted {
		c.wanted, c.ours, c.pause = true, true, firstPause
		c.tell()
	}
}

// tell tells the server to end the wait, or when to try again.
func (c *call) tell() {
	if !c.wanted || c.state != callSent || c.ask != nil {
		return
	}
	conn := c.another()
	id := c.pin.conn.ClientID
	if conn == nil || id == 0 {
		c.later()
		return
	}
	reason := "ERROR"
	if c.byServer {
		reason = "TIMEOUT"
	}
	raw := redcon.AppendBulkString(redcon.AppendBulkString(redcon.AppendArray(nil, 4), "CLIENT"), "UNBLOCK")
	raw = redcon.AppendBulkString(redcon.AppendBulkString(raw, strconv.FormatInt(id, 10)), reason)
	c.ask = c.enqueue(conn, partUnblock, raw)
}

// later tries again to tell the server.
func (c *call) later() {
	l := c.pin.loop
	c.askAt = l.sh.Now + c.pause
	c.pause = min(2*c.pause, lastPause)
	l.timerAt(c.askAt)
}

// asked: the request in flight to unblock it, or for a sign of life, is not any
// more.
func (c *call) asked() {
	if c.ask = nil; c.state == callSent && c.wanted {
		c.later()
	}
}

// another is a connection to the process that has the command, nil when there is
// none.
func (c *call) another() *backend.Conn {
	for _, n := range [2]*node{c.node, c.node.shard.master} {
		if n != c.node && !sameProcess(n, c.node) {
			continue
		}
		for _, conn := range n.conns {
			if conn != nil && conn.State() == backend.Ready {
				return conn
			}
		}
	}
	return nil
}

// apply follows an epoch.
func (c *call) apply() {
	p := c.pin
	l, s := p.loop, p.shard()
	switch c.state {
	case callHeld:
		if p.conn != nil && s.master != p.node {
			p.leave(errReplaced)
		}
	case callSent:
		switch {
		case s.master == p.node && !s.held && !l.deleting && !p.astray():
		case l.stillMaster(p.node):
			l.mustDrain(p.conn, false)
			c.unblock()
		default:
			c.lastWords()
			switch c.state {
			case callSent:
				p.leave(errReplaced)
				c.replaced()
			case callInDoubt:
				c.replaced()
			}
		}
	case callInDoubt:
		if !l.stillMaster(c.node) {
			c.replaced()
		}
	}
}

// lastWords reads what the server wrote before it went.
func (c *call) lastWords() {
	for conn := c.pin.conn; c.state == callSent && conn.State() == backend.Ready && conn.Read(c.pin.loop.scratch) > 0; {
	}
}

// replaced: the master was replaced without being asked.
func (c *call) replaced() {
	switch {
	case c.begun, c.pin.loop.eng.cfg.FailBlocked && !c.b.Spec.ReadOnly:
		c.fail(backend.LineReplaced)
	case c.cancelled != nil:
		c.end()
		c.settle(true)
	default:
		c.hold()
	}
}

// broken: the connection ended by itself. retry was not executed.
func (c *call) broken(conn *backend.Conn, retry *backend.Hold, err error) {
	p := c.pin
	l := p.loop
	dropAll(l, retry) // the command, if it is there, is made anew
	p.sent = 0
	switch {
	case c.state == callHeld:
		l.timerAt(conn.Backoff())
		var refused *backend.DatabaseError
		if errors.As(err, &refused) {
			c.fail(refused.Line)
		}
		return
	case c.state != callSent:
		return
	}
	c.main = nil
	if !c.doubt && !c.begun {
		l.timerAt(conn.Backoff())
		c.hold()
		return
	}
	p.conn, p.node, conn.Context = nil, nil, nil
	if c.begun || c.cancelled != nil {
		c.fail(backend.LineLost)
		return
	}
	c.state, c.since = callInDoubt, l.sh.Now
	c.probe()
}

// probe asks the process that had the command for a sign of life.
func (c *call) probe() {
	if conn := c.another(); conn != nil && c.ask == nil && !c.pin.loop.stopped {
		c.ask = c.enqueue(conn, partAlive, rawAlive)
	}
}

// timers looks at what waits for a time.
func (c *call) timers() {
	l := c.pin.loop
	now := l.sh.Now
	tooLong := now-c.since > int64(l.eng.cfg.HoldTimeout)
	switch c.state {
	case callHeld:
		switch deadline := c.b.Deadline; {
		case c.cancelled != nil && c.cancelBy <= now:
			c.end()
			c.settle(true)
		case deadline != 0 && deadline <= now && !c.first():
			c.end()
			c.b.TimedOut()
			c.settle(false)
		case tooLong:
			l.counters.heldRefused++
			c.fail(lineDown)
		case deadline > now:
			l.timerAt(deadline)
		}
	case callInDoubt:
		if deadline := c.b.Deadline; tooLong || deadline != 0 && now >= max(deadline, c.since)+int64(l.eng.cfg.NodeTimeout) {
			c.fail(backend.LineLost)
			return
		}
		c.probe()
	case callSent:
		if c.cancelled != nil {
			if c.cancelBy <= now {
				c.pin.leave(errSilent)
				c.fail(backend.LineLost)
				return
			}
			l.timerAt(c.cancelBy)
		}
		switch {
		case !c.wanted || c.ask != nil:
		case c.askAt <= now:
			c.tell()
		default:
			l.timerAt(c.askAt)
		}
	}
}

// Cancel ends the wait.
func (c *call) Cancel(timeout bool, done func(unblocked bool)) {
	l := c.pin.loop
	switch {
	case c.state == callOver || c.begun || c.cancelled != nil:
		done(false)
	case c.state == callHeld && !c.soon():
		c.end()
		done(true)
	case c.state == callInDoubt:
		c.fail(backend.LineLost)
		done(false)
	default:
		c.cancelled, c.byServer = done, timeout
		c.cancelBy = l.sh.Now + int64(l.eng.cfg.NodeTimeout)
		l.timerAt(c.cancelBy)
		if c.state == callSent {
			c.unblock()
		}
	}
}

// soon tells if a command that is held only waits for its connection. Then it is
// given the chance to find data before its wait ends.
func (c *call) soon() bool {
	s := c.pin.shard()
	return !s.blocked && s.master != nil && s.master != c.stale
}

// first tells if a command that no server saw yet waits for a connection that is
// being made. Its time does not end before: a server looks for data, and for
// mistakes, however short the time is.
func (c *call) first() bool {
	if c.again || !c.soon() || c.pin.conn == nil {
		return false
	}
	state := c.pin.conn.State()
	return state == backend.Connecting || state == backend.Login
}

// Drop ends the wait of a client that is gone.
func (c *call) Drop() {
	if c.state == callOver {
		return
	}
	if c.state == callSent {
		c.pin.leave(errLeft)
	}
	c.end()
	c.settle(false)
}

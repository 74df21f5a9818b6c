package reactor

import (
	"errors"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Control connections.
//
// Goal: SCRIPT KILL and its kin reach a server that executes a script, while
// the shared connection to it waits behind that script.
//
//  1. A question opens a connection to the master of each shard, sends one
//     command, and closes it with the reply. A busy server lets a client log in
//     but not ask INFO, so the incarnation is not checked: a server that was
//     restarted knows none of the proxies' credentials.
//  2. Within Config.HoldTimeout all must have answered: a server looks up from a
//     script only after its busy-reply-threshold, 5 s by default.
//  3. What is asked changes no data. An epoch that takes the master away, or
//     freezes the shard, closes the connection all the same.
//
// They count as pinned connections (Config.MaxPinned).

// controlCall is a question to all masters, or to one.
type controlCall struct {
	loop    *loop
	raw     []byte
	replies [][]byte
	waiting int
	done    func([][]byte)
}

// control is the question to one of them.
type control struct {
	call  *controlCall
	index int
	node  *node
	conn  *backend.Conn
	until int64
	asked bool
}

// controlHost is the loop as the host of control connections, whose Context is
// the control.
type controlHost struct{ *loop }

var (
	lineNoControl = []byte("-ERR the shard has no master to ask now; retry later\r\n")
	errAsked      = errors.New("the question was answered")
	errLate       = errors.New("no answer in time")
)

// Control asks the masters of all shards.
func (l *loop) Control(proto uint8, raw []byte, done func([][]byte)) []byte {
	n := int64(len(l.shards))
	if l.eng.pinned.Add(n) > int64(l.eng.cfg.MaxPinned) {
		l.eng.pinned.Add(-n)
		return lineTooManyPins
	}
	call := &controlCall{loop: l, raw: raw, replies: make([][]byte, n), waiting: int(n), done: done}
	for i, s := range l.shards {
		call.ask(i, s, proto)
	}
	return nil
}

// askOne asks the master of one shard. It returns an error line when too many
// such connections are in use.
func (l *loop) askOne(s *shard, raw []byte, done func(reply []byte)) []byte {
	if l.eng.pinned.Add(1) > int64(l.eng.cfg.MaxPinned) {
		l.eng.pinned.Add(-1)
		return lineTooManyPins
	}
	call := &controlCall{loop: l, raw: raw, replies: make([][]byte, 1), waiting: 1, done: func(replies [][]byte) { done(replies[0]) }}
	call.ask(0, s, 2)
	return nil
}

// ask opens a connection to the master of a shard.
func (call *controlCall) ask(i int, s *shard, proto uint8) {
	l := call.loop
	if s.blocked || s.master == nil {
		l.eng.pinned.Add(-1)
		call.answer(i, lineNoControl)
		return
	}
	target := s.master.target
	target.Proto, target.Control = int(proto), true
	k := &control{call: call, index: i, node: s.master, until: l.sh.Now + int64(l.eng.cfg.HoldTimeout)}
	l.controls[k] = struct{}{}
	k.conn = backend.New(controlHost{l}, target)
	k.conn.Context = k
	k.conn.Open(int64(l.eng.cfg.HoldTimeout))
}

// answer takes the reply of one shard.
func (call *controlCall) answer(index int, reply []byte) {
	call.replies[index] = reply
	if call.waiting--; call.waiting == 0 {
		call.done(call.replies)
	}
}

// end forgets a control and passes its reply on. The connection is closed by the
// caller, or was.
func (k *control) end(reply []byte) {
	l := k.call.loop
	if _, here := l.controls[k]; !here {
		return
	}
	delete(l.controls, k)
	l.eng.pinned.Add(-1)
	k.call.answer(k.index, reply)
}

// Opened: the command is sent.
func (h controlHost) Opened(c *backend.Conn) {
	k := c.Context.(*control)
	r := h.sh.Requests.Get()
	r.Owner, r.Start = k, h.sh.Now
	k.asked = true
	c.Enqueue(r, k.call.raw)
}

// Reply takes the reply of the server.
func (k *control) Reply(r *backend.Request, piece []byte, last bool, _ byte) {
	reply := k.call.loop.sh.Collect(r, piece, last)
	if !last {
		return
	}
	conn := k.conn
	k.end(reply)
	conn.Break(SightUnknown, errAsked, backend.LineLost)
}

// Fail ends the question without a reply of the server.
func (k *control) Fail(r *backend.Request, line []byte) {
	l := k.call.loop
	r.Out.Reset(&l.sh.Pool)
	l.sh.Requests.Put(r)
	k.end(line)
}

// Broken: the connection ended.
func (h controlHost) Broken(c *backend.Conn, retry *backend.Hold, _ Sight, err error) {
	dropAll(h.loop, retry)
	c.Context.(*control).end(append(append([]byte("-ERR a shard could not be asked: "), oneLine(err)...), "\r\n"...))
}

// oneLine is an error in one line of RESP.
func oneLine(err error) []byte {
	text := []byte(err.Error())
	for i, b := range text {
		if b == '\r' || b == '\n' {
			text[i] = ' '
		}
	}
	return text
}

// Answered and Pushed need nothing: the reply closes the connection.
func (h controlHost) Answered(*backend.Conn) {}

// Pushed drops what nobody asked for.
func (h controlHost) Pushed(*backend.Conn, []byte, bool) {}

// applyControls closes what an epoch took away.
func (l *loop) applyControls() {
	for k := range l.controls {
		if s := k.node.shard; s.master != k.node || s.held {
			k.conn.Break(SightUnknown, errReplaced, lineNoControl)
		}
	}
}

// controlTimers ends what takes too long.
func (l *loop) controlTimers() {
	for k := range l.controls {
		if k.until <= l.sh.Now {
			k.conn.Break(SightUnknown, errLate, backend.LineLost)
		}
	}
}

// Async runs work outside of the loops.
func (l *loop) Async(work, done func()) {
	go func() {
		work()
		if done != nil {
			l.post(done)
		}
	}()
}

// Loaded is what is known of the scripts at the master that a request goes to.
func (l *loop) Loaded(r *backend.Request) session.Loaded {
	s := l.shardOf(r)
	if flushed := l.sh.Scripts.Flushed(); flushed != l.flushed {
		l.flushed = flushed
		for _, s := range l.shards {
			for _, n := range s.nodes {
				n.loaded = session.Loaded{}
			}
		}
	}
	if to := s.lane(r.LaneKey()); to.ready == nil || to.hold.Count > 0 {
		return nil
	}
	return s.master.loaded
}

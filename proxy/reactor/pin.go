package reactor

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Pinned connections.
//
// Goal: a server connection for one client, where the protocol keeps state per
// connection (WATCH), without weakening what the epochs promise.
//
//  1. A pin belongs to a slot. It takes an idle connection to the slot's master,
//     or opens one, when the first request is sent; until the connection is
//     ready, and while the shard is blocked, requests wait in the pin, counted
//     and bounded like those that shards hold.
//  2. As long as the server knows nothing of the client (no request was
//     answered), a broken connection is replaced, and the slot's new master
//     taken, without anybody noticing. After that the pin is lost: the
//     connection is closed, and what is sent or waits gets Block.Lost; it was
//     certainly not executed. What was in flight and may have been executed is
//     failed by backend.Conn.Break as on any connection.
//  3. An epoch that freezes the shard is obeyed when what is in flight was
//     answered; the connection, and what it watches, stays. One that gives the
//     slot to another shard, or the shard another master or other credentials,
//     loses the pin; what is in flight is cut off when the master is gone, and
//     awaited otherwise.
//  4. The connection is in the database of the requests. When that changes (the
//     client watches, and selects another), the first request in the other one
//     waits until the server confirmed a SELECT.
//  5. A released connection is kept idle for the next client, after UNWATCH if
//     need be, or closed when the shard is blocked: nothing may be sent then.
//  6. A pin for a command that blocks has a call instead of requests that wait
//     (blocking.go), which does not lose it.
//
// Their number is limited (Config.MaxPinned), for the servers limit theirs.

type pin struct {
	loop  *loop
	slot  int
	proto uint8
	// db is the database of conn. selecting: another was asked for, or another user
	// (pinuser.go), not before askUserAt.
	db        uint8
	selecting bool
	askUserAt int64
	// node and conn it uses, nil before the first request. sent counts the
	// requests that conn took for this pin.
	node *node
	conn *backend.Conn
	sent int
	wait backend.Hold
	// call is the blocking command that it is for, or nil.
	call *call
	// crosses: the requests are about several slots.
	crosses bool
	// released: no more is sent, and when all is answered the pin ends. clean:
	// the server keeps nothing then. lost: see above.
	released, clean, lost bool
}

// pinHost is the loop as the host of pinned connections, whose Context is the
// pin, or nil while they are idle.
type pinHost struct{ *loop }

// idlePin is a connection that waits for the next client.
type idlePin struct {
	conn  *backend.Conn
	node  *node
	since int64
}

const (
	// maxIdlePins is how many idle connections a loop keeps, for up to
	// idlePinFor nanoseconds.
	maxIdlePins = 32
	idlePinFor  = int64(10e9)
)

var (
	lineTooManyPins = []byte("-ERR too many clients of this proxy use WATCH or a blocking command at once (see its max-pinned); retry later\r\n")
	rawUnwatch      = []byte("*1\r\n$7\r\nUNWATCH\r\n")

	errIdle    = errors.New("the connection was not needed any more")
	errPinLost = errors.New("an epoch took the watched keys to another master")
)

// Pin takes a connection to the master of a slot for one client.
func (l *loop) Pin(slot int, proto uint8) (session.Pinned, []byte) {
	p, line := l.newPin(slot, proto)
	if line != nil {
		return nil, line
	}
	return p, nil
}

func (l *loop) newPin(slot int, proto uint8) (*pin, []byte) {
	if l.eng.pinned.Add(1) > int64(l.eng.cfg.MaxPinned) {
		l.eng.pinned.Add(-1)
		return nil, lineTooManyPins
	}
	p := &pin{loop: l, slot: slot, proto: proto}
	l.pins[p] = struct{}{}
	return p, nil
}

// shard that owns the slot now.
func (p *pin) shard() *shard {
	owner := p.loop.sh.Table.Owner[p.slot]
	if owner == routing.NoShard || int(owner) >= len(p.loop.shards) {
		return p.loop.orphan // or the loop is just changing over to a table
	}
	return p.loop.shards[owner]
}

// Send sends a request, or holds it.
func (p *pin) Send(r *backend.Request, raw []byte) {
	l := p.loop
	if p.lost {
		answerLost(r)
		return
	}
	if l.deleting {
		r.Owner.Fail(r, lineDeleting)
		return
	}
	if s := p.shard(); p.wait.Count == 0 && !p.selecting && !s.blocked && s.master != nil && (p.sent == 0 || r.DB == p.db) {
		p.reach(r.DB)
		if p.conn == nil {
			p.connect(s.master)
		}
		if p.conn != nil && p.conn.State() == backend.Ready && p.isUser(r) {
			p.sent++
			p.conn.Enqueue(r, raw)
			return
		}
	}
	if l.eng.held.Load()+int64(len(raw)) > l.eng.cfg.HoldMaxBytes {
		l.counters.heldRefused++
		r.Owner.Fail(r, lineFull)
		return
	}
	p.wait.Push(r, raw)
	l.heldMore(int64(len(raw)))
	r.HeldSince = l.sh.Now
	l.counters.heldTotal++
	p.pump()
}

// answerLost answers a request that was not executed, and cannot be.
func answerLost(r *backend.Request) { r.Owner.Reply(r, r.Block.Lost, true, r.Block.Lost[0]) }

// take empties the queue of what waits.
func (p *pin) take(answer func(r *backend.Request)) {
	for r := p.wait.Pop(); r != nil; r = p.wait.Pop() {
		p.loop.heldMore(-int64(len(r.Raw())))
		if p.loop.unwanted(r) {
			continue
		}
		answer(r)
	}
}

// pump sends what waits, if that is possible now.
func (p *pin) pump() {
	if p.call != nil {
		p.call.pump()
		return
	}
	l, s := p.loop, p.shard()
	if l.deleting {
		p.take(func(r *backend.Request) { r.Owner.Fail(r, lineDeleting) })
	}
	if p.wait.Count == 0 {
		p.endWhenDone()
		return
	}
	if s.blocked || s.master == nil {
		return // the shard's release pumps again
	}
	db := p.wait.First().DB
	if p.sent == 0 {
		p.reach(db)
	}
	if p.conn == nil {
		p.connect(s.master)
	}
	if p.conn == nil || p.conn.State() != backend.Ready {
		return // Opened pumps again, or a timer tries again
	}
	if p.selecting {
		return // the answer pumps again; until then the database is not known
	}
	if db != p.db {
		p.selectDatabase(db)
		return
	}
	if r := p.wait.First(); !p.isUser(r) {
		p.becomeUser(r.As)
		return
	}
	if !l.knowsWhoLeft() {
		return
	}
	p.take(func(r *backend.Request) {
		p.sent++
		p.conn.Enqueue(r, r.Raw())
	})
	p.endWhenDone()
}

// reach makes a pin whose connection took no request yet one of a database.
func (p *pin) reach(db uint8) {
	if p.sent == 0 && db != p.db {
		p.leave(errIdle)
		p.db = db
	}
}

// selectDatabase asks for another database; the answer pumps again.
func (p *pin) selectDatabase(db uint8) {
	p.selecting = true
	sh := &p.loop.sh
	r := sh.Requests.Get()
	r.Owner, r.Start, r.DB = &selection{p, p.conn}, sh.Now, db
	p.conn.Enqueue(r, []byte(fmt.Sprintf("*2\r\n$6\r\nSELECT\r\n$%d\r\n%d\r\n", len(strconv.Itoa(int(db))), db)))
}

// selection is the owner of a SELECT on a pinned connection.
type selection struct {
	pin  *pin
	conn *backend.Conn
}

// Reply takes the answer. What was watched in the other database is lost when
// the server refuses: what waits must not be executed in the wrong one.
func (s *selection) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	p := s.pin
	if !last {
		return // no reply to SELECT is that long
	}
	db := r.DB
	s.Fail(r, nil)
	switch {
	case kind != '-':
		s.conn.Target.DB = db
		if p.conn == s.conn {
			p.db = db
			p.pump()
		}
	case p.conn == s.conn && !p.lost:
		p.lose(false, fmt.Errorf("SELECT on a pinned connection: %.200q", piece))
	}
}

// Fail: the connection ended, which the pin knows.
func (s *selection) Fail(r *backend.Request, _ []byte) {
	s.pin.selecting = false
	s.pin.loop.sh.Requests.Put(r)
}

// connect takes or opens a connection to a node.
func (p *pin) connect(n *node) {
	l := p.loop
	p.node, p.sent = n, 0
	for i, idle := range l.idlePins {
		if idle.node == n && idle.conn.Target.Proto == int(p.proto) && idle.conn.Target.DB == p.db {
			l.idlePins = append(l.idlePins[:i], l.idlePins[i+1:]...)
			p.conn = idle.conn
			p.conn.Context = p
			return
		}
	}
	target := n.target
	target.Proto, target.DB = int(p.proto), p.db
	p.conn = backend.New(pinHost{l}, target)
	p.conn.Lean = true
	p.conn.Context = p
	p.conn.Open(int64(l.eng.cfg.NodeTimeout))
}

// leave closes the connection, if any; what waits can be sent on another one.
func (p *pin) leave(err error) {
	conn := p.conn
	if p.conn, p.node, p.sent = nil, nil, 0; conn == nil {
		return
	}
	conn.Context = nil
	conn.Break(SightUnknown, err, backend.LineReplaced)
}

// lose ends the use of the pin. The connection stays if something in flight is
// awaited.
func (p *pin) lose(await bool, err error) {
	p.lost = true
	conn := p.conn
	switch {
	case conn == nil:
	case await && conn.InFlight() > 0:
		conn.Retired = true
		p.loop.mustDrain(conn, false)
	default:
		conn.Break(SightUnknown, err, backend.LineReplaced) // broken() does the rest
		p.conn = nil
	}
	p.take(answerLost)
	p.endWhenDone()
}

// Speak changes the protocol version of the replies to come.
func (p *pin) Speak(proto uint8) {
	p.proto = proto
	conn := p.conn
	switch {
	case conn == nil || p.lost:
	case p.sent == 0:
		p.leave(errIdle)
	case p.shard().blocked || conn.State() != backend.Ready:
		p.lose(true, errPinLost)
	default:
		conn.Target.Proto = int(proto)
		p.tell([]byte("*2\r\n$5\r\nHELLO\r\n$1\r\n" + strconv.Itoa(int(proto)) + "\r\n"))
	}
}

// tell sends a request whose reply nobody waits for.
func (p *pin) tell(raw []byte) {
	r := p.loop.sh.Requests.Get()
	r.Start = p.loop.sh.Now
	p.conn.Enqueue(r, raw)
}

// Cross notes that the requests are about several slots.
func (p *pin) Cross() { p.crosses = true }

// astray tells if the keys of the requests may lie in several shards by now.
func (p *pin) astray() bool { return p.crosses && !p.loop.sh.Table.OneShard }

// Release gives the pin back.
func (p *pin) Release(clean bool) {
	p.released, p.clean = true, clean
	p.endWhenDone()
}

// endWhenDone ends a released pin that has nothing more to do.
func (p *pin) endWhenDone() {
	if !p.released || p.wait.Count > 0 {
		return
	}
	l, conn := p.loop, p.conn
	if conn != nil && conn.State() == backend.Ready && conn.InFlight() > 0 {
		conn.Retired = true // so that Answered is called
		return
	}
	if _, here := l.pins[p]; !here {
		return
	}
	delete(l.pins, p)
	l.eng.pinned.Add(-1)
	if conn == nil {
		return
	}
	s := p.shard()
	keep := !p.lost && conn.Target.User == "" && conn.State() == backend.Ready && s.master == p.node && !s.blocked && len(l.idlePins) < maxIdlePins
	if keep && p.sent > 0 && !p.clean {
		p.tell(rawUnwatch)
	}
	p.conn, conn.Context, conn.Retired = nil, nil, false
	if !keep {
		conn.Break(SightUnknown, errIdle, backend.LineLost)
		return
	}
	l.idlePins = append(l.idlePins, idlePin{conn, p.node, l.sh.Now})
}

// Opened: a pinned connection takes requests.
func (h pinHost) Opened(c *backend.Conn) {
	if p, _ := c.Context.(*pin); p != nil {
		p.pump()
	}
}

// Answered: nothing is in flight any more.
func (h pinHost) Answered(c *backend.Conn) {
	h.drained(c)
	c.Retired = false
	p, _ := c.Context.(*pin)
	switch {
	case p == nil:
	case p.lost:
		p.leave(errPinLost)
		p.endWhenDone()
	default:
		p.endWhenDone()
	}
}

// Broken: a pinned connection ended. retry was not executed.
func (h pinHost) Broken(c *backend.Conn, retry *backend.Hold, _ Sight, err error) {
	l := h.loop
	h.drained(c)
	p, _ := c.Context.(*pin)
	if p == nil {
		for i := range l.idlePins {
			if l.idlePins[i].conn == c {
				l.idlePins = append(l.idlePins[:i], l.idlePins[i+1:]...)
				break
			}
		}
		dropAll(l, retry)
		return
	}
	if p.call != nil {
		p.call.broken(c, retry, err)
		return
	}
	var refused *backend.DatabaseError
	if errors.As(err, &refused) {
		p.take(func(r *backend.Request) { r.Owner.Fail(r, refused.Line) })
	}
	l.heldMore(retry.Bytes)
	retry.Stamp(l.sh.Now)
	fresh := retry.Count == p.sent
	p.wait.Prepend(retry)
	p.sent = 0
	if fresh && !p.lost && !l.stopped {
		// The server knows nothing of the client, so any connection will do.
		l.timerAt(c.Backoff())
		p.endWhenDone()
		return
	}
	p.conn, c.Context = nil, nil
	p.lose(false, nil)
}

// drained: the epoch need not wait for a connection any more.
func (l *loop) drained(c *backend.Conn) {
	if c.MustDrain {
		c.MustDrain, c.Deadline = false, 0
		l.waiting--
	}
}

// dropAll forgets requests that nobody waits for.
func dropAll(l *loop, hold *backend.Hold) {
	for r := hold.Pop(); r != nil; r = hold.Pop() {
		l.sh.Requests.Put(r)
	}
}

// pumpPins sends what waits for shards that serve again.
func (l *loop) pumpPins() {
	for p := range l.pins {
		if p.wait.Count > 0 || p.call != nil {
			p.pump()
		}
	}
}

// applyPins changes the pins over to the table that the shards just applied.
func (l *loop) applyPins() {
	for p := range l.pins {
		if p.call != nil {
			p.call.apply()
			continue
		}
		if p.astray() {
			p.lose(p.conn != nil && l.stillMaster(p.node), errReplaced)
			continue
		}
		if p.conn == nil {
			continue
		}
		switch s := p.shard(); {
		case s.master == p.node:
			if s.held {
				l.mustDrain(p.conn, false)
			}
		case p.sent == 0:
			p.leave(errReplaced)
		default:
			p.lose(l.stillMaster(p.node), errReplaced)
		}
	}
	for i := len(l.idlePins) - 1; i >= 0; i-- { // breaking takes it out
		idle := l.idlePins[i]
		switch s := idle.node.shard; {
		case s.master != idle.node:
			idle.conn.Break(SightUnknown, errReplaced, backend.LineReplaced)
		case s.held:
			l.mustDrain(idle.conn, false)
		}
	}
}

// stillMaster tells if a node's process is the master of its shard, be it under
// other credentials.
func (l *loop) stillMaster(n *node) bool {
	m := n.shard.master
	return m == n || sameProcess(m, n)
}

// pinTimers looks at what waits for a time.
func (l *loop) pinTimers() {
	now := l.sh.Now
	before := now - int64(l.eng.cfg.HoldTimeout)
	for p := range l.pins {
		if p.call != nil {
			p.call.timers()
		}
		if r := p.wait.First(); r != nil && r.HeldSince < before {
			line := lineDown
			if p.askUserAt != 0 {
				line = lineNoUser
			}
			p.clean = false // EXEC was not sent, keys stay watched
			p.take(func(r *backend.Request) {
				l.counters.heldRefused++
				r.Owner.Fail(r, line)
			})
			p.endWhenDone()
		}
		if p.askUserAt != 0 && p.wait.Count > 0 {
			p.pump()
		}
		if p.conn == nil {
			continue
		}
		switch p.conn.State() {
		case backend.Closed:
			if p.wait.Count == 0 && (p.call == nil || p.call.state != callHeld) {
				continue
			}
			if p.conn.RetryAt > now {
				l.timerAt(p.conn.RetryAt)
				continue
			}
			p.conn.Open(int64(l.eng.cfg.NodeTimeout))
		case backend.Connecting, backend.Login:
			if p.conn.Deadline <= now {
				p.conn.Expire()
			}
		}
	}
	for i := len(l.idlePins) - 1; i >= 0; i-- {
		if idle := l.idlePins[i]; now-idle.since > idlePinFor {
			idle.conn.Break(SightUnknown, errIdle, backend.LineLost)
		}
	}
}

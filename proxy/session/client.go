package session

import (
	"bytes"
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/resp"
)

// Client is one connection of an application.
//
// Its requests stand in one list, in the order they came; a reply is sent when
// its request is the first of the list. Whatever answers a request (a server,
// the merge of several, the proxy itself) completes it by Reply or Fail.
//
// Reading stops (stalled) while too much is unanswered or unread by the
// client, and before a command that must see all earlier ones answered
// (barrier): one that changes how later requests are routed, such as HELLO.
// A push is bytes appended to out between two replies (subscribe.go).
type Client struct {
	// FD is the socket; Slot and Events belong to the loop.
	FD     int
	Slot   uint32
	Events uint32
	// Dirty: it is in the loop's list of clients to flush. Resuming: it is in
	// the list of clients to resume.
	Dirty, Resuming bool
	// Closed: the socket is gone, the loop forgets it.
	Closed bool

	sh      *Shared
	in      *buffer.Chunk // bytes of incomplete or not yet handled requests
	scan    resp.Scanner
	out     buffer.Queue
	first   *backend.Request
	last    *backend.Request
	pending int
	// behind is how many bytes the client sent after the request that is handled.
	behind int

	stalled bool // requests in `in` wait
	// postponed: they wait for the end of a CLIENT PAUSE.
	postponed bool
	barrier   bool // they wait for all earlier ones to be answered
	draining  bool // nothing more is read
	ending    bool // close when everything was answered and written
	// authed: it need not authenticate, or did. user is who it is; limits, nil
	// when there are none, are what that user may do (acl.go).
	authed   bool
	user     *acl.User
	limits   *acl.Limits
	removing bool // it asked for its own user to be deleted
	readonly bool // READONLY was sent
	proto    uint8
	db       uint8 // SELECT
	mode     replyMode
	bulk     bulk
	// as is on whose behalf what is in flight was sent (identity.go).
	as *backend.Identity
	// latest is the ID of the command it sent last, -1 for none.
	latest int16
	// asking is the length of the request that asks for the list of clients.
	asking int32
	// long is a request that is sent little by little; nothing is handled meanwhile.
	long *longSplit
	// tx is what MULTI and WATCH began, inside an execution that runs now.
	tx     *transaction
	inside *execution

	id      uint64
	created int64
	active  int64
	taken   int64 // when the client last took some of its replies
	addr    netip.AddrPort
	extra   *extra
	subs    *subscriptions // nil while it never subscribed to anything

	merges   *merge    // commands that several shards are answering
	blocking *blocking // nil while it is not blocked
	hungUp   bool      // it sends nothing more
	wasAsked bool      // by Ask
	writes   writes
	// tracking is what CLIENT TRACKING set, nil when it is off.
	tracking *tracking
	tellings
}

// extra is what few clients set.
type extra struct {
	name, libName, libVersion string
	noEvict, noTouch          bool
	// debugs: it asked for the debugger of scripts, and has not taken it back.
	debugs bool
}

// Bounds on one client, beyond which it is not read until half is left.
const (
	maxPending = 1024
	maxUnread  = 1 << 20
	// moveSize is the size from which a request is moved, not copied.
	moveSize = 64 << 10
	// streamSize is how much of an unfinished reply is kept before it is passed
	// on in pieces. Below it, a broken connection still gives a clean error.
	streamSize = 64 << 10
	// keptSmall is how much of an incomplete request is copied in front of the
	// next read; above it, reads go behind it.
	keptSmall = 8 << 10
	readRoom  = 16 << 10
	// readMost is the most one read takes, so that one client neither exceeds
	// the memory budget nor keeps others waiting.
	readMost = 128 << 10
	// turn is how many requests of one client are handled before others have
	// their turn.
	turn = 256
	// drainReads bounds how much is still read of a client that is drained.
	drainReads = 64
	// outputRoom is the first piece of memory for replies.
	outputRoom = 2 << 10
)

// New makes a client; the socket is non-blocking.
func New(sh *Shared, fd int, id uint64, addr netip.AddrPort) *Client {
	c := &Client{FD: fd, sh: sh, id: id, addr: addr, proto: 2, latest: -1, bulk: bulk{window: firstWindow}, created: sh.Now, active: sh.Now}
	c.becomeDefault()
	return c
}

// ID is the number CLIENT ID tells.
func (c *Client) ID() uint64 { return c.id }

// Address of the client.
func (c *Client) Address() netip.AddrPort { return c.addr }

// Name it gave itself, or "".
func (c *Client) Name() string {
	if c.extra == nil {
		return ""
	}
	return c.extra.name
}

// Proto is the protocol version it speaks: 2 or 3.
func (c *Client) Proto() int { return int(c.proto) }

// Unsent is the number of bytes it did not read yet.
func (c *Client) Unsent() int { return c.out.Len() }

// Received is how much there is of a request that is not complete.
func (c *Client) Received() int {
	if c.in == nil {
		return 0
	}
	return len(c.in.B)
}

// Pending is the number of its requests that were not answered.
func (c *Client) Pending() int { return c.pending }

// Stalled tells if it must not be read now.
func (c *Client) Stalled() bool { return c.stalled || c.ending || c.draining }

// Readable reads once and handles what came. scratch is memory of the loop,
// free again when it returns.
func (c *Client) Readable(scratch []byte) {
	if c.sh.OverBudget {
		c.stalled = true
		return
	}
	have, need := 0, c.scan.Need()
	if c.in != nil {
		if have = len(c.in.B); have > keptSmall || need > len(scratch) {
			c.readKept(need)
			return
		}
		copy(scratch, c.in.B)
	}
	n := c.read(scratch[have:])
	if n <= 0 {
		return
	}
	if c.in != nil {
		c.sh.Pool.Put(c.in)
		c.in = nil
	}
	n += have
	if used := c.handleAll(scratch[:n]); used < n && !c.Closed {
		c.keep(scratch[used:n])
	}
}

// readKept reads behind the bytes that are kept already. Memory is spent as
// bytes arrive, not because a header announced them.
func (c *Client) readKept(need int) {
	have := len(c.in.B)
	room := max(need, have+readRoom)
	if need <= buffer.Largest {
		room = min(room, 4*have+readRoom)
	}
	c.in = c.sh.Pool.Grow(c.in, room)
	free := c.in.B[have:cap(c.in.B)]
	if rest := need - have; rest > readRoom && rest < len(free) {
		free = free[:rest] // so that nothing stands behind a large request
	}
	free = free[:min(len(free), readMost)]
	n := c.read(free)
	if n <= 0 {
		return
	}
	c.in.B = c.in.B[:have+n]
	c.sh.Pool.Charge(c.in)
	c.handleKept()
}

// read reads once; what it returns is positive or everything is dealt with.
func (c *Client) read(b []byte) int {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.FD), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return 0
	case errno != 0:
		c.Close()
		return 0
	case n == 0:
		c.End()
		return 0
	}
	c.active = c.sh.Now
	c.sh.BytesIn += uint64(n)
	return int(n)
}

// keep stores bytes that could not be handled yet.
func (c *Client) keep(b []byte) {
	n := len(b)
	if need := c.scan.Need(); need > buffer.Largest {
		n = need // mapped: costs nothing until it is filled
	}
	c.in = c.sh.Pool.Get(n)
	c.in.B = append(c.in.B, b...)
	c.sh.Pool.Charge(c.in)
}

// handleKept handles the bytes in c.in.
func (c *Client) handleKept() {
	in := c.in
	if len(in.B) >= moveSize && c.moveLarge() {
		if in = c.in; in == nil {
			return
		}
	}
	used := c.handleAll(in.B)
	if c.Closed || c.in != in {
		return // it was closed, and its memory given back
	}
	switch rest := in.B[used:]; {
	case len(rest) == 0:
		c.sh.Pool.Put(in)
		c.in = nil
	case used > 0:
		c.in = nil
		c.keep(rest)
		c.sh.Pool.Put(in)
	}
}

// moveLarge handles one large request at the front of c.in without copying it:
// the chunk itself goes to the server's connection. It returns false when there
// is none, or not all of it.
func (c *Client) moveLarge() bool {
	in := c.in
	n, err := c.scan.Scan(in.B, &c.sh.Limits, c.open())
	if err != nil {
		c.fatal(err)
		return true
	}
	if n < moveSize {
		return false
	}
	c.in = nil
	if n < len(in.B) {
		c.keep(in.B[n:])
		in.B = in.B[:n]
	}
	c.behind = 0
	if c.in != nil {
		c.behind = len(c.in.B)
	}
	mine, handled := c.express(in)
	if !mine {
		handled = c.handle(in.B, in)
	}
	if cap(c.sh.args) > keptArgs {
		c.sh.args, c.sh.keys = nil, nil
	}
	if !handled {
		// It waits behind a barrier: put it back as it was.
		c.again()
		in.B = in.B[:n]
		if rest := c.in; rest != nil {
			in = c.sh.Pool.Grow(in, n+len(rest.B))
			in.B = append(in.B, rest.B...)
			c.sh.Pool.Put(rest)
		}
		c.in = in
	}
	return true
}

// Resume handles what had to wait.
func (c *Client) Resume() {
	if c.long != nil {
		if c.long.step(); c.long != nil {
			return
		}
	}
	if c.Closed || !c.stalled || c.blocked() {
		return
	}
	c.stalled, c.barrier = false, false
	if c.bulk.widen {
		c.bulk.doubled()
	}
	c.unpostpone()
	if c.in != nil {
		c.handleKept()
	}
	if c.draining && !c.stalled && !c.Closed {
		c.End()
	}
}

// Drain stops reading new bytes: what the socket has now is still read and
// answered, then the client is closed.
func (c *Client) Drain(scratch []byte) {
	if c.postponed {
		c.End() // what waits was not begun
		return
	}
	for range drainReads {
		if c.Stalled() || c.Closed || c.read0() {
			break
		}
		c.Readable(scratch)
	}
	c.draining = true
	if c.IsBlocked() {
		c.leave()
	}
	if !c.stalled && !c.Closed {
		c.End()
	}
}

// read0 tells if the socket has nothing to read.
func (c *Client) read0() bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(c.FD, b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err != nil
}

// blocked tells if the reason to stall still holds.
func (c *Client) blocked() bool {
	if c.postponed && c.sh.Pause != PauseNone {
		return true
	}
	if c.long != nil {
		return c.long.full()
	}
	if c.barrier {
		return c.first != nil
	}
	return c.pending > c.window()/2 || c.out.Len() > maxUnread/2 && !c.mayOwe() || c.sh.OverBudget
}

// mayOwe tells if the client may leave more unread than maxUnread and still be
// read: many write a whole pipeline before they read anything, and would wait for
// ever. Redis keeps all replies; the proxy does while there is plenty of memory.
func (c *Client) mayOwe() bool {
	return c.sh.Roomy && c.out.Len() < c.sh.ReplyLimit/2 && !c.Subscribed()
}

// unstall asks the loop to resume the client when nothing is in the way.
func (c *Client) unstall() {
	if c.stalled && !c.Resuming && !c.blocked() {
		c.Resuming = true
		c.sh.Router.Resume(c)
	}
}

// handleAll handles the complete requests at the front of b, or a turn of them,
// and returns how many bytes those were.
func (c *Client) handleAll(b []byte) (used int) {
	for left := turn; used < len(b) && !c.stalled && !c.ending; left-- {
		if left == 0 {
			c.stalled = true
			if !c.Resuming {
				c.Resuming = true
				c.sh.Router.Yield(c)
			}
			return used
		}
		if c.pending >= c.window() {
			c.full()
			c.unstall()
			return used
		}
		if c.out.Len() >= maxUnread && !c.mayOwe() || c.sh.OverBudget {
			c.stalled = true
			c.unstall()
			return used
		}
		n, err := c.scan.Scan(b[used:], &c.sh.Limits, c.open())
		if err != nil {
			c.fatal(err)
			return len(b)
		}
		if n == 0 {
			return used
		}
		c.behind = len(b) - used - n
		if !c.handle(b[used:used+n], nil) {
			c.again()
			return used
		}
		if c.Closed {
			return len(b)
		}
		used += n
	}
	if c.ending {
		return len(b)
	}
	return used
}

// open tells if the client need not authenticate any more.
func (c *Client) open() bool { return c.authed || c.sh.Table.Users.Open }

var noAuth = []byte("-NOAUTH Authentication required.\r\n")

// handle handles one complete request. chunk, if not nil, holds exactly the
// request and is used up. It returns false when the request must wait for the
// earlier ones: it is then untouched, and the client stalled.
func (c *Client) handle(raw []byte, chunk *buffer.Chunk) bool {
	sh := c.sh
	args, err := resp.Args(raw, sh.args[:0])
	sh.args = args
	if err != nil {
		c.release(chunk)
		c.fatal(err)
		return true
	}
	if len(args) == 0 {
		c.release(chunk)
		return true
	}
	spec, line := command.Lookup(args)
	if c.latest = -1; spec != nil {
		c.latest = int16(spec.ID)
	}
	if line == nil || spec.Refuses(line) {
		if !c.open() && !spec.NoAuth {
			line = noAuth
		} else if c.limits != nil {
			line = c.forbidden(spec, args, line)
		}
	}
	if line != nil {
		if spec == nil {
			if otherProtocol(args[0]) {
				c.release(chunk)
				sh.Router.Attacked(c)
				c.Close()
				return true
			}
			sh.Router.Refused(c)
		}
		if c.tracking != nil {
			c.tracking.uncache(c, spec)
		}
		if c.tx != nil || spec != nil && spec.Name == "exec" {
			line = c.refuseInside(spec, line)
		}
		c.noteDebugger(spec, args, line)
		c.reject(spec, line)
		c.release(chunk)
		return true
	}
	if c.subs != nil {
		line = c.confinement(spec, args)
	}
	if line != nil {
		if c.tracking != nil {
			c.tracking.uncache(c, spec)
		}
		if c.tx != nil || spec.Name == "exec" {
			line = c.refuseInside(spec, line)
		}
		c.reject(spec, line)
		c.release(chunk)
		return true
	}
	if c.tracking != nil {
		c.tracking.consider(c, spec)
	}
	if sh.Pause != PauseNone && c.postpone(spec, args) {
		return false
	}
	if c.tx != nil && c.tx.multi && !notQueued(spec) {
		c.queue(spec, args, raw)
		c.release(chunk)
		return true
	}
	if !c.shares() && !c.changeOver(spec) {
		return false
	}
	switch spec.Kind {
	case command.Keyed, command.AnyShard:
		if spec.Blocking {
			if at, unit := spec.Timeout(args); at > 0 {
				c.sh.asking = raw
				handled := c.block(spec, at, unit, args, raw)
				if c.asked(); !handled {
					return false
				}
				break
			}
		}
		slot, line := spec.Slot(args)
		crosses := slot == command.ManySlots
		if crosses {
			slot, line = c.crossing(spec, args)
		}
		if line != nil {
			c.answer(spec, line)
			break
		}
		if !c.enter(slot, len(raw)) {
			return false
		}
		if spec.Cursor > 0 {
			c.iterate(spec, slot, args, raw)
			break
		}
		tracked := c.tracking != nil && c.tracks(spec)
		if tracked {
			slot = max(slot, 0)
		}
		r := c.forward(spec, slot)
		if crosses {
			c.cross(r)
		}
		if chunk != nil && !tracked {
			sh.Router.RouteChunk(r, chunk)
			return true
		}
		if raw[0] != '*' {
			raw = sh.encode(args)
		}
		if tracked {
			raw = c.tracked(r, raw)
		}
		sh.Router.Route(r, raw)
	case command.Split:
		if !c.enter(command.NoSlot, len(raw)) {
			return false
		}
		return c.split(spec, args, raw, chunk)
	case command.AllShards:
		if !c.enter(command.NoSlot, len(raw)) {
			return false
		}
		if spec.Name == "keys" && !c.enterLane(command.NoSlot, bulkReply) { // if not more
			return false
		}
		c.sh.asking = raw
		c.allShards(spec, args)
		c.asked()
	case command.Script:
		return c.script(spec, args, raw, chunk)
	case command.ScriptAdmin:
		if c.first != nil {
			c.stalled, c.barrier = true, true
			return false
		}
		c.sh.asking = raw
		c.scriptAdmin(spec, args)
		c.asked()
		c.waitForAll()
	case command.PubSub:
		if !c.enter(command.NoSlot, len(raw)) {
			return false
		}
		return c.pubSub(spec, args, raw, chunk)
	default:
		if c.first != nil && c.mustWait(spec, args) {
			c.stalled, c.barrier = true, true
			return false
		}
		if c.inMulti() && spec.Name == "exec" && !c.enterBlock(c.tx) {
			return false
		}
		if sh.Busy != nil && !servedBusy(spec) {
			c.refuseBusy(spec)
			break
		}
		c.sh.asking = raw
		c.local(spec, args, raw)
		c.asked()
		c.show(spec, args)
	}
	c.release(chunk)
	return true
}

// otherProtocol tells if a name is one that browsers can be made to send here:
// an HTTP request to this port is lines that mean nothing, and then a body that
// may be commands. Redis hangs up at the same two, read as C strings.
func otherProtocol(name []byte) bool {
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return bytes.EqualFold(name, []byte("post")) || bytes.EqualFold(name, []byte("host:"))
}

func (c *Client) release(chunk *buffer.Chunk) {
	if chunk != nil {
		c.sh.Pool.Put(chunk)
	}
}

// forward makes a request to a slot, or to any shard if that is NoSlot, and gives
// it its place in the order.
func (c *Client) forward(spec *command.Spec, slot int) *backend.Request {
	r := c.begin(spec)
	if r.Slot = int32(slot); slot < 0 {
		c.toAnyShard(r)
	} else if spec.Write {
		c.touch(slot)
	}
	r.ReadOnly = spec.ReadOnly
	r.Replica = c.fromReplica(spec)
	return r
}

// fromReplica tells if the read set may serve a command. A replica may be older
// than a WATCH, and than what a client that tracks was told.
func (c *Client) fromReplica(spec *command.Spec) bool {
	return spec.ReadOnly && (c.readonly || c.sh.Table.ReadPolicy != 0) && !c.watching() && c.tracking == nil
}

// begin makes a request and gives it the last place in the order.
func (c *Client) begin(spec *command.Spec) *backend.Request {
	r := c.sh.Requests.Get()
	r.Owner, r.Spec, r.Start, r.Proto, r.DB, r.Bulk, r.As = c, spec, c.sh.Now, c.proto, c.db, c.bulk.now, c.as
	r.Asked = c.sh.asking
	if c.mode != replyOn && c.modal(r) {
		return r
	}
	if c.last == nil {
		c.first = r
	} else {
		c.last.Following = r
	}
	c.last = r
	c.pending++
	return r
}

// keptAsked bounds what is kept of a request for the slow log, in bytes; of a longer
// one only the name is.
const keptAsked = 1 << 10

// asked ends the handling of a request that no server gets as it is. When it was
// not answered at once, its bytes are kept, for they are the loop's memory.
func (c *Client) asked() {
	c.sh.asking = nil
	r := c.last
	switch {
	case r == nil || r.Asked == nil || r.Done:
	case len(r.Asked) > keptAsked:
		r.Asked = nil
	default:
		r.Asked = bytes.Clone(r.Asked)
	}
}

// modal does what the reply mode says with a new request. It returns true for
// one that is not in the client's order, but part of an execution.
func (c *Client) modal(r *backend.Request) bool {
	switch c.mode {
	case replyInside:
		r.Owner, r.Part, r.Asked = c.inside, int32(c.inside.running), nil
		return true
	case replySkip:
		c.mode = replyOn
	}
	r.Silent = true
	return false
}

// encode writes the arguments of an inline request as a server wants them.
func (s *Shared) encode(args [][]byte) []byte {
	s.inner = appendCommand(s.inner[:0], args)
	return s.inner
}

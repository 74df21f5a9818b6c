package reactor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/session"
	"github.com/basalt-redis/basalt/proxy/software"
)

// shard is what one loop knows of one shard.
//
// Invariants: ready of a lane holds only a connection of the master that is
// Ready, and none while blocked. Requests of one client to one slot that must
// not overtake each other are in one lane (a client changes over to another
// protocol version or database, or to bulk, when all it sent is answered), and
// there go
// through ready or wait in hold; they go past hold only when it is empty. So
// what waits in one lane, because the server does not give the connection, does
// not delay others.
type shard struct {
	loop  *loop
	id    string
	lanes [backend.Lanes]lane
	// sides are the lanes of identities (side.go).
	sides map[backend.LaneKey]*lane
	// blocked: everything is held, because the table says so or because blockers
	// retired connections still have requests in flight.
	blocked  bool
	held     bool // by the table
	blockers int

	master *node
	// used are the lanes in which the last master had connections.
	used    []backend.LaneKey
	nodes   []*node
	reads   []*node
	turn    int // of reads
	retired []*backend.Conn
	// releasing: it is in the loop's list of shards to release.
	releasing bool
	busy      busyness
	// cursorTag is that of the master (session/scan.go).
	cursorTag uint8
	// awaySince is since when no connection of a master takes requests, in
	// nanoseconds of the loop's clock; 0 while one does.
	awaySince int64
}

// lane is what a shard knows of the requests in one protocol version and one
// database.
type lane struct {
	// ready is the master's connection.
	ready *backend.Conn
	hold  backend.Hold
	// tooLate is the error of what was held too long; nil for lineDown.
	tooLate []byte
}

// node is what one loop knows of one node in one identity: a change of the
// address, the incarnation or the credentials makes another node.
type node struct {
	shard *shard
	watch *nodeWatch
	// target but for the protocol version and the database.
	target backend.Target
	conns  [backend.Lanes]*backend.Conn
	// sides are the connections of identities.
	sides map[backend.LaneKey]*backend.Conn
	// opened and sent of connections that are gone.
	opened, sent uint64
	// loaded are the scripts that it has: a server loses them when it is restarted,
	// and is another incarnation then.
	loaded session.Loaded
}

var (
	lineDown     = []byte("-CLUSTERDOWN no master serves this slot; retry later\r\n")
	lineFull     = []byte("-CLUSTERDOWN too many requests wait for the master of this slot; retry later\r\n")
	lineDeleting = []byte("-CLUSTERDOWN the cluster is being deleted\r\n")
)

// shardOf is where a request belongs.
func (l *loop) shardOf(r *backend.Request) *shard {
	if r.Slot >= 0 {
		owner := l.sh.Table.Owner[r.Slot]
		if owner == routing.NoShard {
			return l.orphan
		}
		r.Shard = int32(owner)
	}
	if uint(r.Shard) >= uint(len(l.shards)) {
		return l.orphan // it waited for something while the shard went
	}
	return l.shards[r.Shard]
}

// astray tells if the keys of a request may lie in several shards by now, and refuses it
// then: it was made by a table with one.
func (l *loop) astray(r *backend.Request) bool {
	if !r.Crosses || l.sh.Table.OneShard {
		return false
	}
	r.Owner.Fail(r, session.LineCrosses(r.Spec))
	return true
}

// Route sends a request to the server it is for, or holds it.
func (l *loop) Route(r *backend.Request, raw []byte) {
	if l.astray(r) {
		return
	}
	s := l.shardOf(r)
	if r.As != nil {
		if !s.makeSide(r) {
			return
		}
	} else if to := &s.lanes[r.Lane()]; to.ready != nil && !r.Replica && to.hold.Count == 0 {
		conn := to.ready
		conn.Enqueue(r, raw)
		return
	}
	if conn := s.connFor(r, false); conn != nil {
		conn.Enqueue(r, raw)
		return
	}
	l.holdRequest(s, r, raw)
}

// RouteChunk does the same for a request that fills a chunk.
func (l *loop) RouteChunk(r *backend.Request, chunk *buffer.Chunk) {
	if l.astray(r) {
		l.sh.Pool.Put(chunk)
		return
	}
	s := l.shardOf(r)
	if r.As != nil && !s.makeSide(r) {
		l.sh.Pool.Put(chunk)
		return
	}
	if conn := s.connFor(r, false); conn != nil {
		conn.EnqueueChunk(r, chunk)
		return
	}
	l.holdRequest(s, r, chunk.B)
	l.sh.Pool.Put(chunk)
}

// connFor chooses the connection for a request; nil when it must be held. With
// released, it comes from the front of the hold queue.
func (s *shard) connFor(r *backend.Request, released bool) *backend.Conn {
	if s.blocked {
		return nil
	}
	k := r.LaneKey()
	if r.Replica {
		if conn := s.reader(k); conn != nil {
			return conn
		}
	}
	to := s.lane(k)
	if to.hold.Count > 0 && !released {
		return nil
	}
	if to.ready == nil && s.master != nil {
		s.master.want(k)
		if r.Bulk {
			return s.divert(r)
		}
	}
	return to.ready
}

// divert has a request for bulk take the ordinary connection when that for bulk
// cannot be had: the server lets in no more, or it broke. Nothing of this shard is
// in flight for bulk then, so nothing is overtaken; session.Client.enter sees to
// what the client sends next.
func (s *shard) divert(r *backend.Request) *backend.Conn {
	if conn := s.master.conn(r.LaneKey()); conn == nil || !conn.Failing() {
		return nil // it is being opened
	}
	ordinary := s.lane(backend.LaneKey{As: r.As, At: backend.Lane(r.Proto, r.DB, false)})
	if ordinary.ready == nil || ordinary.hold.Count > 0 {
		return nil
	}
	r.Bulk = false
	s.loop.sh.Diverted++
	return ordinary.ready
}

// reader takes the nodes of the read set in turn; nil when none is ready.
func (s *shard) reader(k backend.LaneKey) *backend.Conn {
	for range s.reads {
		s.turn++
		if s.turn >= len(s.reads) {
			s.turn = 0
		}
		n := s.reads[s.turn]
		if conn := n.conn(k); conn != nil && conn.State() == backend.Ready {
			return conn
		}
		n.want(k)
	}
	return nil
}

// want opens a connection for a lane unless there is one. In database 0 that for
// bulk that all share is opened as well: what is large may be too large to be held
// until then.
func (n *node) want(k backend.LaneKey) {
	if n.conn(k) != nil {
		return
	}
	conn := backend.New(n.shard.loop, n.target.In(k))
	if bulk := backend.ForBulk(k.At); bulk != k.At && conn.Target.DB == 0 && k.As == nil {
		n.want(backend.LaneKey{At: bulk})
	}
	conn.Context, conn.Lean = n, k.As.IsPrivate()
	conn.UnusedSince = n.shard.loop.sh.Now
	n.setConn(k, conn)
	conn.Open(int64(n.shard.loop.eng.cfg.NodeTimeout))
}

// Bulk tells if the lane for bulk beside the one of a request is open, to the
// shard of a slot or, below 0, to any, while there is none that cannot have it.
func (l *loop) Bulk(slot int, proto, db uint8) bool {
	lane := backend.Lane(proto, db, true)
	if slot < 0 {
		some := false
		for _, s := range l.shards {
			if s.lanes[lane].ready != nil {
				some = true
			} else if s.master != nil && s.master.conns[lane] != nil && s.master.conns[lane].Failing() {
				return false
			}
		}
		return some
	}
	owner := l.sh.Table.Owner[slot]
	if owner == routing.NoShard {
		return false
	}
	s := l.shards[owner]
	if s.blocked || s.lanes[lane].ready != nil {
		return true // what is held takes its lane when the shard serves again
	}
	if s.master != nil {
		s.master.want(backend.LaneKey{At: lane})
	}
	return false
}

// holdRequest keeps a request until its shard serves again.
func (l *loop) holdRequest(s *shard, r *backend.Request, raw []byte) {
	if l.deleting {
		r.Owner.Fail(r, lineDeleting)
		return
	}
	if s.busy.line != nil && !s.blocked {
		s.refuseBusy(r)
		return
	}
	if l.eng.held.Load()+int64(len(raw)) > l.eng.cfg.HoldMaxBytes {
		l.counters.heldRefused++
		r.Owner.Fail(r, lineFull)
		return
	}
	if r.HeldSince == 0 {
		r.HeldSince = l.sh.Now
		l.counters.heldTotal++
	}
	l.heldMore(int64(len(raw)))
	s.lane(r.LaneKey()).hold.Push(r, raw)
}

// heldMore counts bytes that are held, or no longer.
func (l *loop) heldMore(n int64) {
	l.counters.heldBytes += n
	l.eng.held.Add(n)
}

// releaseLater has the shard's held requests routed again in this wake-up.
func (s *shard) releaseLater() {
	if !s.releasing {
		s.releasing = true
		s.loop.release = append(s.loop.release, s)
	}
}

func (l *loop) releaseAll() {
	for i := 0; i < len(l.release); i++ {
		s := l.release[i]
		s.releasing = false
		s.releaseHeld()
		l.release[i] = nil
	}
	l.release = l.release[:0]
	if len(l.pins) > 0 {
		l.pumpPins()
	}
}

// releaseHeld routes held requests again, in order. What cannot go stays, and
// with it everything behind it that must not overtake it.
func (s *shard) releaseHeld() {
	for _, ln := range s.all() {
		if ln.hold.Count > 0 {
			s.releaseLane(ln)
		}
	}
}

// anyReady tells if the master takes requests of some lane.
func (s *shard) anyReady() bool {
	for _, ln := range s.all() {
		if ln.ready != nil {
			return true
		}
	}
	return false
}

func (s *shard) releaseLane(from *lane) {
	l := s.loop
	if s.anyReady() && !l.knowsWhoLeft() {
		return
	}
	queue := from.hold
	from.hold = backend.Hold{}
	for r := queue.Pop(); r != nil; r = queue.Pop() {
		raw := r.Raw()
		if size := int64(len(raw)); l.unwanted(r) {
			l.heldMore(-size)
			continue
		}
		if r.Crosses && !l.sh.Table.OneShard {
			l.heldMore(-int64(len(raw)))
			l.astray(r)
			continue
		}
		if conn := s.connFor(r, true); conn != nil {
			l.heldMore(-int64(len(raw)))
			if r.Scripted && !r.Replica {
				raw = l.sh.WithSources(r, s.master.loaded, raw)
			}
			if r.Spec != nil && r.Spec.Cursor > 0 {
				raw = l.sh.Renew(r, s.cursorTag, raw)
			}
			conn.Enqueue(r, raw)
			continue
		}
		from.hold.Push(r, raw)
	}
}

// heldNow counts the requests that wait for a shard.
func (s *shard) heldNow() (n int) {
	for _, ln := range s.all() {
		n += ln.hold.Count
	}
	return n
}

// takeHeld moves all that waits into one queue, where order matters only
// between requests of one lane.
func (s *shard) takeHeld(to *backend.Hold) {
	for _, ln := range s.all() {
		to.Append(&ln.hold)
	}
}

// expireHeld refuses requests that were held too long, and forgets those of
// clients that are gone.
func (s *shard) expireHeld(in *lane, before int64) {
	l := s.loop
	queue := in.hold
	in.hold = backend.Hold{}
	for r := queue.Pop(); r != nil; r = queue.Pop() {
		raw := r.Raw()
		switch {
		case r.Owner == nil:
			l.heldMore(-int64(len(raw)))
			l.sh.Requests.Put(r)
		case r.HeldSince < before:
			l.heldMore(-int64(len(raw)))
			l.counters.heldRefused++
			line := lineDown
			if in.tooLate != nil && !s.blocked {
				line = in.tooLate
			} else if r.Slot < 0 && s.id != "" { // its client did not choose the shard
				line = fmt.Appendf(nil, "-CLUSTERDOWN no master serves %s; retry later\r\n", s.id)
			}
			r.Owner.Fail(r, line)
		default:
			in.hold.Push(r, raw)
		}
	}
}

// refuseLane answers what waits for a database that the server refuses.
func (s *shard) refuseLane(in *lane, line []byte) {
	l := s.loop
	for r := in.hold.Pop(); r != nil; r = in.hold.Pop() {
		l.heldMore(-int64(len(r.Raw())))
		if r.Owner == nil {
			l.sh.Requests.Put(r)
			continue
		}
		r.Owner.Fail(r, line)
	}
}

// connEvent serves one server connection.
func (l *loop) connEvent(c *backend.Conn, events uint32) {
	if c.State() == backend.Connecting {
		l.watchConn(c, c.Writable())
		return
	}
	if events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if n := c.Read(l.scratch); c.Target.Bulk || c.Target.As.IsPrivate() {
			l.throttle(c, n)
		}
		if l.sawBusy {
			l.busyNoMore(c)
		}
	}
	if events&unix.EPOLLOUT != 0 && !c.Resting {
		before := c.Written()
		l.watchConn(c, c.Flush())
		if c.Writing() > giant && mayRest(c) && l.rests(int(c.Written()-before)) {
			l.restConn(c)
		}
	}
}

// watchConn asks epoll for writability only while the socket is full, and for
// nothing while the connection rests.
func (l *loop) watchConn(c *backend.Conn, full bool) {
	if c.FD < 0 {
		return
	}
	events := uint32(unix.EPOLLIN)
	if c.Paused {
		events = 0
	}
	if full {
		events |= unix.EPOLLOUT
	}
	if c.Resting {
		events = 0
	}
	if events == c.Events {
		return
	}
	c.Events = events
	if err := l.control(unix.EPOLL_CTL_MOD, c.FD, c.Slot, events); err != nil {
		c.Break(SightRefused, err, backend.LineLost)
	}
}

// Watch adds a new server socket to epoll.
func (l *loop) Watch(c *backend.Conn) {
	c.Slot = l.settle(place{conn: c})
	c.Events = unix.EPOLLIN | unix.EPOLLOUT
	if err := l.control(unix.EPOLL_CTL_ADD, c.FD, c.Slot, c.Events); err != nil {
		// The deadline of the attempt will end it.
		l.log.Warn("node cannot be watched", "node", c.Target.Node, "error", err)
	}
}

// Unwatch forgets a server socket that is about to be closed. Whoever sends
// something because a request on it failed must not find the connection.
func (l *loop) Unwatch(c *backend.Conn) {
	l.leave(c.Slot)
	n, ok := c.Context.(*node)
	if !ok {
		return
	}
	ln := n.shard.sides[c.Target.LaneKey()]
	if c.Target.As == nil {
		ln = &n.shard.lanes[c.Target.Lane()]
	}
	if ln != nil && ln.ready == c {
		ln.ready = nil
	}
}

// Sender is the client that sent what an owner waits for.
func (l *loop) Sender(o backend.Owner) any {
	if c := session.SenderOf(o); c != nil {
		return c
	}
	return nil
}

// Resolve looks up a host name without stopping the loop.
func (l *loop) Resolve(c *backend.Conn, attempt uint64) {
	address := c.Target.Address
	go func() {
		addr, err := l.eng.resolve(address)
		l.post(func() { c.Dial(attempt, addr, err) })
	}()
}

// resolve finds the first address of "host:port".
func (e *Engine) resolve(address string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addrs, err := net.DefaultResolver.LookupNetIP(e.ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(n)), nil
}

// Flush notes a server connection that has output.
func (l *loop) Flush(c *backend.Conn) { l.flushConns = append(l.flushConns, c) }

func (l *loop) flushAllConns() {
	for i := 0; i < len(l.flushConns); i++ {
		c := l.flushConns[i]
		c.Dirty = false
		l.flushConns[i] = nil
		if c.Events&unix.EPOLLOUT == 0 && !c.Resting { // else it is full, and epoll will tell, or its rest ends
			l.watchConn(c, c.Flush())
		}
	}
	l.flushConns = l.flushConns[:0]
	if len(l.release) > 0 {
		l.releaseAll()
	}
}

// Opened: a connection takes requests.
func (l *loop) Opened(c *backend.Conn) {
	n := c.Context.(*node)
	if c.Target.As == nil && (n.opened > 0 || c.Opened > 1) {
		l.log.Info("node is connected again", "node", c.Target.Node, "shard", n.shard.id)
	}
	n.watch.answered(l, nil)
	if c.Software != (software.Software{}) {
		l.eng.runs(n.watch, c.Software)
	}
	if c.Retired {
		return
	}
	if n.loaded == nil || c.Target.Incarnation == "" {
		n.loaded = session.Loaded{}
	}
	if c.Target.As != nil {
		n.shard.lane(c.Target.LaneKey()).tooLate = nil
	}
	n.shard.publish()
	n.shard.releaseLater()
	if c.Target.As.Hears(&c.Target) {
		l.hears(c.Target.As)
	}
}

// publish brings ready up to what the shard's state allows.
func (s *shard) publish() {
	s.blocked = s.held || s.blockers > 0 || s.loop.deleting
	for _, ln := range s.all() {
		ln.ready = nil
	}
	serves := s.busy.line != nil && !s.blocked // it answers, if only with BUSY
	if !s.blocked && s.master != nil && s.busy.line == nil {
		for k, conn := range s.master.all() {
			if conn.State() == backend.Ready {
				s.lane(k).ready, serves = conn, true
			}
		}
	}
	switch {
	case serves:
		s.awaySince = 0
	case s.awaySince == 0:
		s.awaySince = max(s.loop.sh.Now, 1)
	}
}

// Away tells if a shard takes no requests, for longer than those wait who can do
// without it.
func (l *loop) Away(i int) bool {
	return i < len(l.shards) && l.shards[i].awaySince != 0 && l.sh.Now-l.shards[i].awaySince >= session.Patience
}

// Broken: a connection ended. What can be sent again goes to the front of the
// hold queue of its lane: nothing there is older.
func (l *loop) Broken(c *backend.Conn, retry *backend.Hold, sight Sight, err error) {
	n := c.Context.(*node)
	s := n.shard
	l.forgotten(c)
	if retry.Count > 0 {
		l.heldMore(retry.Bytes)
		l.counters.heldTotal += uint64(retry.Count)
		retry.Stamp(l.sh.Now)
		retry.Readdress(int32(slices.Index(l.shards, s))) // they may have been sent by an older table
		k := c.Target.LaneKey()
		if k.As.IsOver() {
			k.As = nil
			retry.Share()
		}
		s.lane(k).hold.Prepend(retry)
		s.releaseLater()
	}
	if c.MustDrain {
		c.MustDrain = false
		l.waiting--
	}
	if c.Retired {
		s.forgetRetired(c)
		return
	}
	if sight != SightOK && n.watch.is(SightOK) {
		l.log.Warn("connection to node is down", "node", c.Target.Node, "shard", s.id, "sight", sight.String(), "error", err)
	}
	if sight == SightOK {
		n.watch.answered(l, err)
	} else {
		n.watch.saw(l, sight, err)
	}
	s.publish()
	l.timerAt(c.Backoff())
	if c.Target.Bulk && s.lane(c.Target.LaneKey()).hold.Count > 0 {
		s.releaseLater() // it need not wait for this connection
	}
	if n != s.master {
		return
	}
	var refused *backend.DatabaseError
	var unknown *backend.UserError
	switch {
	case errors.As(err, &refused):
		s.refuseLane(s.lane(c.Target.LaneKey()), refused.Line)
	case errors.As(err, &unknown):
		s.lane(c.Target.LaneKey()).tooLate = lineNoUser
	}
}

// Answered: a connection that had to drain has nothing in flight any more.
func (l *loop) Answered(c *backend.Conn) {
	if c.MustDrain {
		c.MustDrain = false
		c.Deadline = 0
		l.waiting--
	}
	if c.Retired {
		c.Break(SightUnknown, errRetired, backend.LineLost)
	}
}

// forgetRetired lets go of a retired connection that is closed.
func (s *shard) forgetRetired(c *backend.Conn) {
	for i, r := range s.retired {
		if r == c {
			s.retired = append(s.retired[:i], s.retired[i+1:]...)
			break
		}
	}
	n := c.Context.(*node)
	n.sent += c.Sent
	n.opened += c.Opened
	if c.Blocks {
		c.Blocks = false
		if s.blockers--; s.blockers == 0 {
			s.publish()
			s.releaseLater()
		}
	}
}

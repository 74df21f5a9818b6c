package reactor

import (
	"errors"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/session"
)

// How a loop changes over to an epoch, between two wake-ups.
//
// Goal: from now on every request is routed by the new table, and what was sent
// by an older one is accounted for, so that the ack says what invariant 3 asks.
//
//  1. Every shard compares its nodes with the new ones. A node that is the same
//     process under the same credentials keeps its connections.
//  2. A master that is no longer master loses its connections at once, unless
//     the shard was frozen and nothing is in flight: that is a switchover that
//     went by the book. What was in flight is answered with an error, or sent
//     again if it only reads. Clients' own connections go in any case: they are to
//     masters only.
//  3. Connections under older credentials, and those of nodes that may no
//     longer be read, are retired: they take nothing new, and are closed when
//     the last reply came. As long as a retired connection of the master itself
//     has requests in flight, the shard holds: a request on the new connection
//     could overtake one on the old.
//  4. A frozen shard waits for everything in flight, also where nobody waited before.
//  5. Held requests are routed again, by the new table.
//  6. The connections of subscriptions and MONITOR follow the masters.
//     Nobody waits for them.
//  7. If the users changed, every client gets the rights of its own, or is
//     closed. That happens before the ack, like all of this: who waits for the
//     ack knows that no old right is left.
//
// The loop obeys the epoch when no connection is left that must drain
// (loop.waiting). Connections that carry only reads, those to replicas, are cut
// when that takes longer than drainReads, and the reads sent again elsewhere: a
// replica often leaves the read set because it hangs. A master that hangs delays
// the ack: the Configserver then goes on without it, by fencing.

var (
	errReplaced  = errors.New("the node was taken out of service by an epoch")
	errRetired   = errors.New("the connection was replaced")
	errSlowDrain = errors.New("the node did not answer before an epoch had to be obeyed")
	errStopped   = errors.New("the proxy stops")
	errSilent    = errors.New("no sign of life")
)

// apply changes over to a table.
func (l *loop) apply(t *routing.Table) {
	old := l.sh.Table
	l.sh.Table = t
	l.deleting = t.Phase == routing.Deleting
	byID := make(map[string]*shard, len(l.shards))
	for _, s := range l.shards {
		byID[s.id] = s
	}
	masters := make(map[string]*node, len(l.shards))
	for _, s := range l.shards {
		masters[s.id] = s.master
	}
	// Held requests are taken out before and routed again after.
	var held backend.Hold
	l.orphan.takeHeld(&held)
	for _, s := range l.shards {
		s.takeHeld(&held)
	}
	shards := make([]*shard, len(t.Shards))
	for i := range t.Shards {
		ts := &t.Shards[i]
		s := byID[ts.ID]
		if s == nil {
			s = &shard{loop: l, id: ts.ID}
		}
		delete(byID, ts.ID)
		s.apply(ts, t.ReadPolicy)
		shards[i] = s
	}
	for _, s := range byID {
		s.remove()
	}
	if l.elsewhere(shards, masters, old) {
		l.sh.Invalidations.Moved()
	}
	l.shards = shards
	// Breaking connections may have held more: those are older.
	var retried backend.Hold
	for _, s := range byID {
		s.takeHeld(&retried)
		s.dropSides()
	}
	for _, s := range l.shards {
		s.takeHeld(&retried)
	}
	retried.Append(&held)
	l.rehold(&retried, old)
	l.tellLosses(old, t)
	l.applyPins()
	l.applyControls()
	for _, s := range l.shards {
		s.releaseLater()
	}
	if len(l.shards) == 0 {
		l.pumpPins()
	}
	l.subs.apply(t)
	l.monitors.apply()
	l.hearAgain()
	if t.Users != old.Users {
		l.renameUsers()
		l.eachClient((*session.Client).UsersChanged)
	}
}

// rehold puts requests into the hold queues of the shards they belong to now.
func (l *loop) rehold(held *backend.Hold, old *routing.Table) {
	for r := held.Pop(); r != nil; r = held.Pop() {
		raw := r.Raw()
		if r.Owner == nil {
			l.heldMore(-int64(len(raw)))
			l.sh.Requests.Put(r)
			continue
		}
		if r.Slot < 0 {
			r.Shard = l.sameShard(r.Shard, old)
		}
		if l.deleting || r.Shard < 0 {
			l.heldMore(-int64(len(raw)))
			l.counters.heldRefused++
			line := lineDown
			if l.deleting {
				line = lineDeleting
			}
			r.Owner.Fail(r, line)
			continue
		}
		l.shardOf(r).lane(r.LaneKey()).hold.Push(r, raw)
	}
}

// sameShard finds a shard of the older table in the new one, or -1.
func (l *loop) sameShard(index int32, old *routing.Table) int32 {
	if int(index) < len(old.Shards) {
		for i := range l.sh.Table.Shards {
			if l.sh.Table.Shards[i].ID == old.Shards[index].ID {
				return int32(i)
			}
		}
	}
	return -1
}

// apply changes a shard over.
func (s *shard) apply(ts *routing.TableShard, policy routing.ReadPolicy) {
	oldMaster, oldNodes, wasHeld := s.master, s.nodes, s.held
	s.held, s.master, s.cursorTag = ts.Held(), nil, session.CursorTag(ts)
	s.nodes, s.reads = make([]*node, 0, len(ts.Nodes)), nil
	if oldMaster != nil {
		s.used = oldMaster.lanes()
	}
	readable := make(map[*node]bool, len(ts.Nodes))
	for i := range ts.Nodes {
		n := s.adopt(oldNodes, ts, i)
		s.nodes = append(s.nodes, n)
		if i == ts.MasterIndex {
			s.master = n
		}
		if ts.Nodes[i].InReadSet {
			s.reads = append(s.reads, n)
			readable[n] = true
		}
	}
	s.leaveMaster(oldMaster, wasHeld)
	for _, n := range oldNodes {
		switch {
		case !s.has(n):
			// Gone, or the same node in another identity.
			s.retireNode(n, oldMaster)
		case n != s.master && !readable[n]:
			s.retireNode(n, nil) // reads only: a master that left was cut
		}
	}
	if ts.Frozen {
		for _, n := range s.nodes {
			for _, conn := range n.all() {
				s.loop.mustDrain(conn, n != s.master)
			}
		}
		for _, conn := range s.retired {
			s.loop.mustDrain(conn, !sameProcess(conn.Context.(*node), s.master))
		}
	}
	s.open(policy)
	s.publish()
}

// lanes in which a node has connections.
func (n *node) lanes() (lanes []backend.LaneKey) {
	for k := range n.all() {
		lanes = append(lanes, k)
	}
	return lanes
}

// adopt returns the node of the table, the one that is there if it is the same.
func (s *shard) adopt(old []*node, ts *routing.TableShard, i int) *node {
	tn := &ts.Nodes[i]
	target := backend.Target{
		Node: tn.ID, Address: tn.Address, Incarnation: tn.Incarnation,
		Username: ts.Username, Password: ts.Password, Generation: ts.Generation,
		ScriptUsername: ts.ScriptUsername, ScriptPassword: ts.ScriptPassword,
	}
	n := &node{shard: s, target: target, watch: s.loop.eng.watchOf(tn.ID)}
	for _, o := range old {
		if o.target == target {
			return o
		}
		if o.target.Node == target.Node {
			n.opened, n.sent = o.opened, o.sent
		}
	}
	return n
}

func (s *shard) has(n *node) bool {
	for _, o := range s.nodes {
		if o == n {
			return true
		}
	}
	return false
}

// sameProcess tells if two nodes differ in the credentials at most.
func sameProcess(a, b *node) bool {
	return a != nil && b != nil && a.target.Node == b.target.Node &&
		a.target.Address == b.target.Address && a.target.Incarnation == b.target.Incarnation
}

// leaveMaster deals with the old master when it is master no longer.
func (s *shard) leaveMaster(old *node, wasHeld bool) {
	if old == nil || old == s.master || sameProcess(old, s.master) {
		return
	}
	inFlight := 0
	for _, conn := range old.all() {
		inFlight += conn.InFlight()
	}
	for _, conn := range s.retired {
		inFlight += conn.InFlight()
	}
	byTheBook := wasHeld && inFlight == 0
	for k, conn := range old.all() {
		if byTheBook && !k.As.IsPrivate() {
			continue
		}
		// At a replica a private one is of no use, and tells the client of its own changes.
		old.setConn(k, nil)
		s.cut(conn)
	}
	if byTheBook {
		return
	}
	for len(s.retired) > 0 {
		s.cut(s.retired[0])
	}
}

// cut ends a connection at once.
func (s *shard) cut(conn *backend.Conn) {
	if conn == nil {
		return
	}
	if !conn.Retired {
		conn.Retired = true
		s.retired = append(s.retired, conn)
	}
	if conn.State() == backend.Closed {
		s.forgetRetired(conn)
		return
	}
	conn.Break(SightUnknown, errReplaced, backend.LineReplaced)
}

// retireNode retires the connections of a node. Those of a master under older
// credentials block the shard until they are drained.
func (s *shard) retireNode(n, oldMaster *node) {
	blocks := n == oldMaster && oldMaster != nil
	for k, conn := range n.all() {
		s.retire(n, k, conn, blocks)
		s.loop.mustDrain(conn, n != oldMaster)
	}
}

// retire takes a connection out of its lane, and closes it behind what is in flight.
// With blocks, the shard holds until then.
func (s *shard) retire(n *node, k backend.LaneKey, conn *backend.Conn, blocks bool) {
	n.setConn(k, nil)
	if conn.InFlight() == 0 || conn.State() != backend.Ready {
		s.cut(conn)
		return
	}
	conn.Retired = true
	s.retired = append(s.retired, conn)
	if blocks {
		conn.Blocks = true
		s.blockers++
	}
}

// drainReads is how long an ack waits for reads at replicas, in nanoseconds. It
// is well below the time the Configserver waits for acks.
const drainReads = int64(100 * time.Millisecond)

// mustDrain makes the ack wait for a connection; with bounded, not for long.
func (l *loop) mustDrain(conn *backend.Conn, bounded bool) {
	if conn == nil || conn.MustDrain || conn.InFlight() == 0 {
		return
	}
	conn.MustDrain = true
	l.waiting++
	if bounded && conn.State() == backend.Ready {
		conn.Deadline = l.sh.Now + drainReads
		l.timerAt(conn.Deadline)
	}
}

// open connects to what will be needed, so that the first request need not
// wait.
func (s *shard) open(policy routing.ReadPolicy) {
	if s.master != nil {
		s.master.want(backend.LaneKey{})
		for _, k := range s.used {
			if k.As == nil || s.sides[k] != nil {
				s.master.want(k)
			}
		}
	}
	if policy == routing.ReadReadSet {
		for _, n := range s.reads {
			n.want(backend.LaneKey{})
		}
	}
}

// remove ends a shard that is no longer in the table.
func (s *shard) remove() {
	s.held, s.master = true, nil
	for _, n := range s.nodes {
		for k, conn := range n.all() {
			n.setConn(k, nil)
			s.cut(conn)
		}
	}
	for len(s.retired) > 0 {
		s.cut(s.retired[0])
	}
	s.nodes, s.reads = nil, nil
	s.publish()
}

// tellLosses tells clients that wrote to a master that an epoch replaced without
// a freeze: WAIT is about that.
func (l *loop) tellLosses(old, t *routing.Table) {
	var slots uint64
	for i := range old.Shards {
		was := &old.Shards[i]
		if was.MasterIndex < 0 {
			continue
		}
		for j := range t.Shards {
			is := &t.Shards[j]
			if is.ID != was.ID {
				continue
			}
			replaced := is.MasterIndex < 0
			if !replaced {
				a, b := &was.Nodes[was.MasterIndex], &is.Nodes[is.MasterIndex]
				same := a.ID == b.ID && a.Address == b.Address && a.Incarnation == b.Incarnation
				replaced = !same && !was.Frozen
			}
			if replaced {
				slots |= session.SlotBits(&was.Slots)
			}
		}
	}
	if slots != 0 {
		l.eachClient(func(c *session.Client) { c.Lost(slots) })
	}
}

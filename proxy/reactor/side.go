package reactor

import (
	"iter"

	"github.com/basalt-redis/basalt/proxy/backend"
)

// Side lanes: connections on behalf of an identity.
//
// Goal: some requests must not run with the proxies' rights, or not on a connection
// that others use, and yet have everything that requests have: they are held,
// routed, drained before an ack and sent again by the same rules.
//
//  1. The lanes that all clients share are an array of each shard. A request with
//     an identity (backend.Request.As) takes a lane of that identity instead, which
//     is found by it in a map, and made when it is first needed. What is true of a
//     lane is true of both: whoever looks at lanes or connections takes all().
//  2. A connection becomes what its identity says in the last step of its login.
//     If a server does not know the user yet, the login is tried again, with pauses;
//     requests wait meanwhile, and are answered with lineNoUser in the end.
//  3. A client's requests change between lanes only when all it sent before is
//     answered (session.Client.changeOver), so that they cannot overtake each other.
//  4. When the rights of a user change, the servers know them by another name. The
//     connections under the old one get no new request and are closed after the last
//     reply; until then the shard is held, as after a change of credentials. The ack
//     does not wait: what was let in before a change is carried out.
//  5. Connections that carry nothing for a time are closed, and lanes without a
//     connection and without requests are forgotten.
//
// Side lanes count as pinned connections (Config.MaxPinned), for the servers limit
// theirs.

var (
	lineTooManySides = []byte("-ERR too many connections of this proxy to the servers serve single users or clients (see its max-pinned); retry later\r\n")
	lineNoUser       = []byte("-ERR the server does not know yet what this user may do, and can run no script for it; retry later\r\n")
)

// lane finds a lane, and makes one of an identity.
func (s *shard) lane(k backend.LaneKey) *lane {
	if k.As == nil {
		return &s.lanes[k.At]
	}
	ln := s.sides[k]
	if ln == nil {
		if s.sides == nil {
			s.sides = map[backend.LaneKey]*lane{}
		}
		ln = &lane{}
		s.sides[k] = ln
		s.loop.eng.pinned.Add(1)
	}
	return ln
}

// makeSide makes the side lane of a request, if there is none. When there are too
// many it answers the request and returns false. The rest of a long request whose
// client is gone takes the lanes that all share.
func (s *shard) makeSide(r *backend.Request) bool {
	if r.As.IsOver() {
		r.As = nil
		return true
	}
	k := r.LaneKey()
	if s.sides[k] == nil && s.loop.eng.pinned.Load() >= int64(s.loop.eng.cfg.MaxPinned) {
		r.Owner.Fail(r, lineTooManySides)
		return false
	}
	s.lane(k)
	return true
}

// all are the lanes of a shard.
func (s *shard) all() iter.Seq2[backend.LaneKey, *lane] {
	return func(yield func(backend.LaneKey, *lane) bool) {
		for i := range s.lanes {
			if !yield(backend.LaneKey{At: i}, &s.lanes[i]) {
				return
			}
		}
		for k, ln := range s.sides {
			if !yield(k, ln) {
				return
			}
		}
	}
}

// conn is the connection of a lane, or nil.
func (n *node) conn(k backend.LaneKey) *backend.Conn {
	if k.As == nil {
		return n.conns[k.At]
	}
	return n.sides[k]
}

// setConn sets the connection of a lane; nil for none.
func (n *node) setConn(k backend.LaneKey, conn *backend.Conn) {
	switch {
	case k.As == nil:
		n.conns[k.At] = conn
	case conn == nil:
		delete(n.sides, k)
	default:
		if n.sides == nil {
			n.sides = map[backend.LaneKey]*backend.Conn{}
		}
		n.sides[k] = conn
	}
}

// all are the connections of a node, but for retired ones.
func (n *node) all() iter.Seq2[backend.LaneKey, *backend.Conn] {
	return func(yield func(backend.LaneKey, *backend.Conn) bool) {
		for i, conn := range &n.conns {
			if conn != nil && !yield(backend.LaneKey{At: i}, conn) {
				return
			}
		}
		for k, conn := range n.sides {
			if !yield(k, conn) {
				return
			}
		}
	}
}

// MayBePrivate tells if there is room for lanes to all shards, or the error.
func (l *loop) MayBePrivate() []byte {
	if l.eng.pinned.Load()+int64(len(l.shards)) > int64(l.eng.cfg.MaxPinned) {
		return lineTooManySides
	}
	return nil
}

// EndPrivate closes the connections of a client's own, behind what is in flight.
// Nobody waits for that: the client's next commands wait for its earlier ones. Only
// what is held for such a connection must not overtake: it takes those that all share.
func (l *loop) EndPrivate(as *backend.Identity) {
	l.endHearing(as)
	for _, s := range l.shards {
		for _, n := range s.nodes {
			for k, conn := range n.sides {
				if k.As == as {
					s.retire(n, k, conn, n == s.master && s.lane(k).hold.Count > 0)
				}
			}
		}
		if s.endLanes(as) {
			s.publish()
			s.releaseLater()
		}
	}
	l.orphan.endLanes(as)
}

// endLanes forgets the lanes of a client's own. It returns false when there were none.
func (s *shard) endLanes(as *backend.Identity) (some bool) {
	for k, ln := range s.sides {
		if k.As == as {
			some = true
			ln.hold.Share()
			s.lanes[k.At].hold.Append(&ln.hold)
			s.dropSide(k)
		}
	}
	return some
}

// sweepSides forgets side lanes that nobody uses.
func (s *shard) sweepSides() {
	for k, ln := range s.sides {
		used := ln.hold.Count > 0
		for _, n := range s.nodes {
			used = used || n.sides[k] != nil
		}
		if !used {
			s.dropSide(k)
		}
	}
}

func (s *shard) dropSide(k backend.LaneKey) {
	delete(s.sides, k)
	s.loop.eng.pinned.Add(-1)
}

// dropSides forgets all side lanes of a shard that is gone.
func (s *shard) dropSides() {
	for k := range s.sides {
		s.dropSide(k)
	}
}

// renameUsers follows a change of users.
func (l *loop) renameUsers() {
	for _, as := range l.sh.RenameUsers() {
		l.retireSides(as)
	}
}

// retireSides has the connections of an identity replaced: those that did not log in
// as what it is now, or all when it is not used any more.
func (l *loop) retireSides(as *backend.Identity) {
	for _, s := range l.shards {
		for _, n := range s.nodes {
			for k, conn := range n.sides {
				if k.As == as {
					s.retire(n, k, conn, n == s.master)
				}
			}
		}
		s.publish()
		s.releaseLater()
	}
}

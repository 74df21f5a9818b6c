package reactor

import (
	"sync/atomic"

	"github.com/basalt-redis/basalt/proxy/session"
)

// Clients belong to their loops, so a command about clients of the whole proxy
// (CLIENT LIST, KILL, PAUSE, UNBLOCK) visits every loop. An id says nothing but
// which client of this proxy is meant: not its loop, and another proxy may have
// a client of the same id.

// everywhere has every loop call visit, each on its own thread with its own
// index, and then calls done on l's thread. Calls by one client are visited in
// their order at every loop. A loop that ended has no clients and is not
// visited.
func (l *loop) everywhere(visit func(at *loop, i int), done func()) {
	var missing atomic.Int32
	missing.Store(int32(len(l.eng.loops)))
	end := func() {
		if missing.Add(-1) == 0 {
			l.post(done)
		}
	}
	for i, other := range l.eng.loops {
		posted := other.post(func() {
			visit(other, i)
			end()
		})
		if !posted {
			end()
		}
	}
}

// withClient calls act on the thread of the loop that has the client of an id,
// and then done on l's thread. acted is what act returned; false when there is
// no such client.
func (l *loop) withClient(id uint64, act func(at *loop, c *session.Client) bool, done func(acted bool)) {
	var acted atomic.Bool
	l.everywhere(func(at *loop, _ int) {
		if c := at.clientOf(id); c != nil && act(at, c) {
			acted.Store(true)
		}
	}, func() { done(acted.Load()) })
}

// clientOf is the open client of an id on this loop, or nil. It looks at all of
// them: an index would cost every client memory for the sake of rare commands.
func (l *loop) clientOf(id uint64) *session.Client {
	for i := range l.places {
		if c := l.places[i].client; c != nil && !c.Closed && c.ID() == id {
			return c
		}
	}
	return nil
}

package reactor

import (
	"bytes"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/session"
)

// The loop's part of client-side caching (session/tracking.go): it takes the
// invalidations of the connections that clients share, notices when such a
// connection ends, and, while a client wants to hear of all changes, has the
// connections for subscriptions tell of them.

// maxTrackedKeys is how many keys a loop remembers for its clients, as
// tracking-table-max-keys of a server.
const maxTrackedKeys = 1_000_000

// trackingState of a connection for subscriptions.
type trackingState uint8

const (
	trackingOff trackingState = iota
	trackingAsked
	trackingOn
)

// broadcastWaiter waits until all servers tell of all changes, or a time: a
// shard without a master must not keep clients for ever. They are told to forget
// everything when it comes back.
type broadcastWaiter struct {
	done  func()
	until int64
}

var (
	rawTrackAll  = []byte("*4\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n$5\r\nBCAST\r\n")
	rawTrackNone = []byte("*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$3\r\nOFF\r\n")
)

// Pushed takes a piece of a push on a connection that clients share.
func (l *loop) Pushed(c *backend.Conn, piece []byte, last bool) {
	if c.Part == nil && last {
		l.pushed(c, piece)
		return
	}
	c.Part = append(c.Part, piece...)
	if last {
		push := c.Part
		c.Part = nil
		l.pushed(c, push)
	}
}

func (l *loop) pushed(c *backend.Conn, push []byte) {
	switch as := c.Target.As; {
	case !as.IsPrivate():
		l.sh.Invalidations.Pushed(push, false)
	case as.Listener != nil:
		as.Listener.Pushed(push)
	}
}

// forgotten: a connection ended, and the server forgot what was read through it.
func (l *loop) forgotten(c *backend.Conn) {
	if as := c.Target.As; as.IsPrivate() {
		if as.Listener != nil && c.Opened > 0 && !as.Hears(&c.Target) { // else when it is made again
			as.Listener.Ended()
		}
		return
	}
	if l.sh.Invalidations.Keys() > 0 && c.Target.Proto == 3 {
		l.sh.Invalidations.Drop(false)
	}
}

// elsewhere tells if keys are at another master than before, which knows of no
// reads.
func (l *loop) elsewhere(shards []*shard, masters map[string]*node, old *routing.Table) bool {
	if l.sh.Table.Owner != old.Owner || len(shards) != len(masters) {
		return true
	}
	for _, s := range shards {
		if s.master != masters[s.id] {
			return true
		}
	}
	return false
}

// hearAll has all masters tell of all changes, and calls done when they do.
func (s *subscriptions) hearAll(done func()) {
	s.broadcast = true
	s.start()
	for _, k := range s.links {
		k.track()
	}
	s.waiting = append(s.waiting, broadcastWaiter{done, s.loop.sh.Now + session.Patience})
	s.answerWaiting(s.loop.sh.Now)
}

// hearNone ends that.
func (s *subscriptions) hearNone() {
	s.broadcast = false
	for _, k := range s.links {
		if k.tracking != trackingOff && k.conn != nil && k.conn.State() == backend.Ready {
			k.ask(rawTrackNone, nil)
		}
		k.tracking = trackingOff
	}
}

// answerWaiting answers those that have waited enough.
func (s *subscriptions) answerWaiting(now int64) {
	if len(s.waiting) == 0 {
		return
	}
	all := true
	for _, k := range s.links {
		all = all && k.tracking == trackingOn
	}
	waiting := s.waiting
	s.waiting = nil
	for _, w := range waiting {
		if all || w.until <= now {
			w.done()
			continue
		}
		s.waiting = append(s.waiting, w)
		s.loop.timerAt(w.until)
	}
}

// track has the server tell of all changes, if that is wanted and possible.
func (k *subLink) track() {
	if !k.subs.broadcast || k.tracking != trackingOff || k.conn == nil || k.conn.State() != backend.Ready {
		return
	}
	k.tracking = trackingAsked
	k.asked++
	asked := k.asked
	k.ask(rawTrackNone, nil) // the login asked for another mode
	k.ask(rawTrackAll, func() {
		if k.tracking != trackingAsked || k.asked != asked {
			return // it is not wanted any more, or again
		}
		k.tracking = trackingOn
		k.subs.loop.sh.Invalidations.Drop(true) // there may have been changes before
		k.subs.answerWaiting(k.subs.loop.sh.Now)
	})
}

// tells takes a push that tells of changes; false for any other.
func (k *subLink) tells(push []byte) bool {
	return bytes.HasPrefix(push, session.InvalidateBegin) && k.subs.loop.sh.Invalidations.Pushed(push, true)
}

package reactor

import (
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/session"
)

// hearing is a client that wants to hear of all changes but its own: it has
// connections to all masters (session/noloop.go), also to those that come later.
type hearing struct {
	// done is called when all are there, or at a time; nil afterwards.
	done  func()
	until int64
}

// HearPrivately opens connections of an identity to all masters, and calls done when
// they tell of all changes. A shard without a master does not keep the client for
// ever: it is told to forget everything when there is one.
func (l *loop) HearPrivately(as *backend.Identity, done func()) {
	if l.hearings == nil {
		l.hearings = map[*backend.Identity]*hearing{}
	}
	until := l.sh.Now + session.Patience
	l.hearings[as] = &hearing{done: done, until: until}
	l.timerAt(until)
	l.heard(as)
}

// hearingLane is where changes are told.
func hearingLane(as *backend.Identity) backend.LaneKey {
	return backend.LaneKey{As: as, At: backend.Lane(3, as.DB, false)}
}

// openHearing opens what is missing. It returns true when nothing is.
func (l *loop) openHearing(as *backend.Identity) (all bool) {
	k, all := hearingLane(as), true
	for _, s := range l.shards {
		if s.master == nil {
			all = false
			continue
		}
		s.lane(k)
		s.master.want(k)
		all = all && s.master.conn(k).State() == backend.Ready
	}
	return all
}

// heard opens what is missing, and calls done when the time has come.
func (l *loop) heard(as *backend.Identity) {
	h := l.hearings[as]
	if all := l.openHearing(as); h.done == nil || !all && l.sh.Now < h.until {
		return
	}
	done := h.done
	h.done = nil
	done()
}

// hearAgain looks after all of them.
func (l *loop) hearAgain() {
	for as := range l.hearings {
		l.heard(as)
	}
}

// hears: a connection tells of changes from now on. Those before may have been
// missed.
func (l *loop) hears(as *backend.Identity) {
	h := l.hearings[as]
	switch {
	case h == nil:
	case h.done == nil:
		as.Listener.Ended()
	default:
		l.heard(as)
	}
}

// endHearing: the client does not want to hear any more.
func (l *loop) endHearing(as *backend.Identity) {
	if h := l.hearings[as]; h != nil {
		delete(l.hearings, as)
		if h.done != nil {
			h.done()
		}
	}
}

package reactor

import (
	"fmt"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
)

// quiet is how long a connection may carry nothing before the server is asked
// for a sign of life: the proxy is a vantage point when idle, too.
const quiet = int64(time.Second)

// timerAt has timers run at a time, or earlier.
func (l *loop) timerAt(at int64) { l.nextTimer = min(l.nextTimer, at) }

// timers looks at everything that waits for a time.
func (l *loop) timers() {
	now := l.sh.Now
	l.nextTimer = now + tick
	for _, s := range l.shards {
		for _, n := range s.nodes {
			for k, conn := range n.all() {
				if !((conn.Target.DB != 0 || k.As != nil) && !k.As.IsKept() && n.unused(k, conn)) {
					l.connTimer(n, conn)
				}
			}
		}
		for _, conn := range s.retired {
			l.silentConn(conn.Context.(*node), conn)
		}
		for i := len(s.retired) - 1; i >= 0; i-- { // cutting takes it out
			if conn := s.retired[i]; conn.MustDrain && conn.Deadline != 0 && conn.Deadline <= now {
				s.cut(conn)
			}
		}
		l.holdTimer(s)
		s.busyTimer()
		s.sweepSides()
	}
	l.holdTimer(l.orphan)
	l.orphan.sweepSides()
	l.pinTimers()
	l.leavingTimer()
	l.tellBehind()
	l.controlTimers()
	l.subs.timers()
	l.hearAgain()
	l.monitors.timers()
	l.sh.Overdue()
	l.pauseTimer()
	if l.sh.OverBudget {
		l.relieve()
	}
}

func (l *loop) holdTimer(s *shard) {
	for _, ln := range s.all() {
		if ln.hold.Count > 0 {
			s.expireHeld(ln, l.sh.Now-int64(l.eng.cfg.HoldTimeout))
		}
	}
}

// laneUnused is how many node timeouts a connection to a database other than 0, or
// of an identity, may carry no request before it is closed.
const laneUnused = 60

// unused closes the connection of a lane that nobody uses any more, and tells
// if it did.
func (n *node) unused(k backend.LaneKey, conn *backend.Conn) bool {
	s := n.shard
	now := s.loop.sh.Now
	if conn.Sent != conn.SentBefore || conn.InFlight() > 0 || n == s.master && s.lane(k).hold.Count > 0 {
		conn.SentBefore, conn.UnusedSince = conn.Sent, now
	}
	if now-conn.UnusedSince <= laneUnused*int64(s.loop.eng.cfg.NodeTimeout) {
		return false
	}
	n.setConn(k, nil)
	s.cut(conn)
	s.publish()
	return true
}

func (l *loop) connTimer(n *node, conn *backend.Conn) {
	now, timeout := l.sh.Now, int64(l.eng.cfg.NodeTimeout)
	switch conn.State() {
	case backend.Closed:
		if conn.RetryAt > now {
			l.timerAt(conn.RetryAt)
			return
		}
		conn.Open(timeout)
	case backend.Connecting, backend.Login:
		if conn.Deadline <= now {
			conn.Expire()
		}
	case backend.Ready:
		n.watch.replied(l, conn.LastReply)
		if conn.MustDrain && conn.Deadline != 0 && conn.Deadline <= now {
			conn.Break(SightUnknown, errSlowDrain, backend.LineReplaced)
			return
		}
		switch waited := now - conn.WaitingSince; {
		case l.silentConn(n, conn):
			n.watch.saw(l, SightTimeout, fmt.Errorf("%d requests are unanswered for %s", conn.InFlight(), time.Duration(waited).Round(time.Millisecond)))
		case conn.InFlight() > 0 && waited > busyAfter:
			if n == n.shard.master {
				n.shard.suspect(waited)
			}
		case conn.InFlight() == 0 && now-conn.LastReply > quiet && (conn.Target.As == nil || conn.Target.As.IsKept()):
			conn.Ping()
		}
	}
}

package reactor

import (
	"fmt"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/session"
)

const (
	// quiet is how long a connection may carry nothing before the server is
	// asked for a sign of life: the proxy is a vantage point when idle, too.
	quiet = int64(time.Second)
	// evictAfter is how long memory may be short before the client that takes
	// most is closed.
	evictAfter = int64(time.Second)
	// budgetStep is how exactly loops know each other's memory, in bytes.
	budgetStep = 1 << 20
)

// timerAt has timers run at a time, or earlier.
func (l *loop) timerAt(at int64) { l.nextTimer = min(l.nextTimer, at) }

// timers looks at everything that waits for a time.
func (l *loop) timers() {
	now := l.sh.Now
	l.nextTimer = now + tick
	for _, s := range l.shards {
		for _, n := range s.nodes {
			for _, conn := range n.conns {
				if conn != nil {
					l.connTimer(n, conn)
				}
			}
		}
		for i := len(s.retired) - 1; i >= 0; i-- { // cutting takes it out
			if conn := s.retired[i]; conn.MustDrain && conn.Deadline != 0 && conn.Deadline <= now {
				s.cut(conn)
			}
		}
		l.holdTimer(s)
	}
	l.holdTimer(l.orphan)
	if l.overSince != 0 && now-l.overSince > evictAfter {
		l.evict()
	}
}

func (l *loop) holdTimer(s *shard) {
	if s.hold.Count > 0 {
		s.expireHeld(l.sh.Now - int64(l.eng.cfg.HoldTimeout))
	}
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
		case conn.InFlight() > 0 && waited > timeout:
			n.watch.saw(l, SightTimeout, fmt.Errorf("%d requests are unanswered for %s", conn.InFlight(), time.Duration(waited).Round(time.Millisecond)))
		case conn.InFlight() == 0 && now-conn.LastReply > quiet:
			conn.Ping()
		}
	}
}

// checkBudget compares the memory of all loops with the budget. Below three
// quarters, clients that were not read because of it go on. Loops tell each
// other in steps of a MiB, so that the shared counter is rarely written.
func (l *loop) checkBudget() {
	used := l.sh.Pool.InUse() + l.counters.heldBytes
	if d := used - l.published; d > budgetStep || d < -budgetStep {
		l.eng.used.Add(d)
		l.published = used
	}
	all, budget := l.eng.used.Load(), l.eng.cfg.MemoryBudgetBytes
	switch {
	case all > budget:
		if !l.sh.OverBudget {
			l.sh.OverBudget = true
			l.overSince = l.sh.Now
			l.log.Warn("memory budget is used up, clients are not read", "bytes", all, "loop", l.index)
		}
	case l.sh.OverBudget && all < budget/4*3:
		l.sh.OverBudget = false
		l.overSince = 0
		l.eachClient(func(c *session.Client) { c.Unstall() })
	}
}

// evict closes the client that takes most memory, because nothing got better
// by itself.
func (l *loop) evict() {
	var worst *session.Client
	var most int
	l.eachClient(func(c *session.Client) {
		if n := c.Memory(); n > most {
			worst, most = c, n
		}
	})
	l.overSince = l.sh.Now
	if worst == nil || l.published < l.eng.cfg.MemoryBudgetBytes/4*3/int64(len(l.eng.loops)) {
		return // another loop's clients take more
	}
	l.counters.tooSlow++
	l.log.Warn("client takes most of a memory budget that is used up and is closed", "client", worst.Address(), "name", worst.Name(), "bytes", most)
	worst.Close()
}

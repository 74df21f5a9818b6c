package reactor

import (
	"math"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/resp"
)

// What a silent server is behind.
//
// Goal: a server that executes one long command is silent, as one that hangs. The
// Configserver is told what it may be executing, so that it can tell the two apart
// (its package health, busy.go). It costs nothing while servers answer.
//
//  1. When a connection has owed a reply for Config.NodeTimeout, the loop looks through
//     what was written to it, at every tick, for commands that may take long.
//  2. One that was sent when the server had been silent already, that is, after the last
//     reply and after the oldest request without one, explains nothing.
//  3. Commands that have always been quick here explain nothing either: of many calls
//     through this loop next to none took noticeable time. So a server that hangs under
//     a load of scripts and small LRANGEs is still known to hang.
//  4. Of those that are left, of all connections and loops, the one that was sent first
//     is told, and told again as long as the server is silent.

// Behind is a command that may keep a server busy; zero for none.
type Behind struct {
	// Command is its name, in lower case.
	Command string
	// Since is how long ago it was sent.
	Since time.Duration
}

// behind is what one loop knows of what a node is behind, by the engine's clock.
type behind struct {
	// oldest is when the oldest request without a reply was sent, 0 for none; sent
	// when the oldest command that may take long was, which is spec, nil for none.
	oldest, sent int64
	spec         *command.Spec
}

const (
	// behindSlack is by how much a command may be younger than the silence: the server
	// had read both when it began with one.
	behindSlack = int64(250 * time.Millisecond)
	// Of so many calls no more than one in usualSlow took long, which is usualBucket of
	// CommandStats.Latency and above, 131 ms: then the command is usually quick.
	usualCalls  = 1000
	usualSlow   = 1000
	usualBucket = 18
	// behindArgs is how many arguments of a request are looked at.
	behindArgs = 16
)

// silentConn tells if a connection has owed a reply for too long, and looks for what
// the server may be executing.
func (l *loop) silentConn(n *node, conn *backend.Conn) bool {
	if conn.State() != backend.Ready || conn.InFlight() == 0 || l.sh.Now-conn.WaitingSince <= int64(l.eng.cfg.NodeTimeout) {
		return false
	}
	if l.behind == nil {
		l.behind = map[*nodeWatch]behind{}
	}
	b := l.behind[n.watch]
	until := max(n.watch.lastReply.Load(), conn.WaitingSince) + behindSlack
	for r := range conn.Unanswered() {
		if r.Start > until {
			break
		}
		if b.oldest == 0 || r.Start < b.oldest {
			b.oldest = r.Start
		}
		if b.spec != nil && b.sent <= r.Start {
			continue
		}
		if spec := l.mayTakeLong(r); spec != nil {
			b.spec, b.sent = spec, r.Start
		}
	}
	l.behind[n.watch] = b
	return true
}

// mayTakeLong is the command of a request that may keep a server busy for seconds;
// nil when there is none.
func (l *loop) mayTakeLong(r *backend.Request) *command.Spec {
	if r.Spec == nil {
		return nil // the proxy's own
	}
	raw := r.Raw()
	if len(raw) < command.LongRequest && l.isUsuallyQuick(r.Spec) {
		return nil
	}
	if r.Spec.IsScript() {
		return r.Spec
	}
	// A request may be several: a transaction, or a read that is tracked.
	limits := resp.Limits{RequestBytes: math.MaxInt32, Args: math.MaxInt32, InlineBytes: math.MaxInt32}
	var scan resp.Scanner
	for range slowInside {
		if len(raw) == 0 {
			break
		}
		n, err := scan.Scan(raw, &limits, true)
		if err != nil || n == 0 || raw[0] != '*' {
			break
		}
		args, count := resp.FirstArgs(raw, nil, behindArgs)
		if len(args) > 0 {
			if spec, _ := command.Lookup(args); spec != nil && spec.MayTakeLong(args, count, n) {
				return spec
			}
		}
		raw = raw[n:]
	}
	return nil
}

// isUsuallyQuick tells if a command was called often and took next to no time.
func (l *loop) isUsuallyQuick(spec *command.Spec) bool {
	s := &l.counters.commands[spec.ID]
	slow := uint64(0)
	for _, n := range s.Latency[usualBucket:] {
		slow += n
	}
	return s.Calls >= usualCalls && slow*usualSlow <= s.Calls
}

// tellBehind hands over what this tick found, and takes back what one before did.
func (l *loop) tellBehind() {
	for p := range l.pins {
		if p.call == nil && p.conn != nil && p.node != nil {
			l.silentConn(p.node, p.conn)
		}
	}
	for w := range l.toldBehind {
		if _, is := l.behind[w]; !is {
			w.waitsBehind(l, behind{})
		}
	}
	for w, b := range l.behind {
		w.waitsBehind(l, b)
	}
	l.behind, l.toldBehind = nil, l.behind
}

// waitsBehind takes what a loop found.
func (w *nodeWatch) waitsBehind(l *loop, b behind) {
	w.mu.Lock()
	for len(w.behind) <= l.index {
		w.behind = append(w.behind, behind{})
	}
	changed := w.behind[l.index].spec != b.spec || w.behind[l.index].sent != b.sent
	w.behind[l.index] = b
	w.changed = w.changed || changed
	w.mu.Unlock()
	if changed {
		l.eng.noteSight()
	}
}

// waits is what the node may be busy with, of all loops. The lock is held.
func (w *nodeWatch) waits(now, lastReply int64) Behind {
	oldest, first := int64(math.MaxInt64), behind{}
	for _, b := range w.behind {
		if b.oldest != 0 {
			oldest = min(oldest, b.oldest)
		}
		if b.spec != nil && (first.spec == nil || b.sent < first.sent) {
			first = b
		}
	}
	if first.spec == nil || first.sent > max(oldest, lastReply)+behindSlack {
		return Behind{}
	}
	return Behind{Command: first.spec.Name, Since: time.Duration(now - first.sent)}
}

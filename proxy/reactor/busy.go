package reactor

import (
	"bytes"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
)

// Busy servers.
//
// Goal: while a server executes a script for longer than its
// busy-reply-threshold, clients get its BUSY error at once, as those of a single
// server do. Without this they would wait behind the script, on the connection
// that they share with who sent it.
//
//  1. When a connection to a master has owed a reply for busyAfter, the loop sends
//     PING on a connection of its own. A server that works on one long command does
//     not answer, nor does one that runs a script before its threshold: it is asked
//     once, and again after twice the time.
//  2. BUSY makes every loop refuse what is for the shard, with the server's words.
//     What was sent is awaited; what a client's own connection carries is answered by
//     the server itself.
//  3. While that is so the server is asked at every tick. Any other answer, or
//     none for busyFor, ends it, as does the reply that was owed.
//  4. When all shards are busy, what the proxy answers itself is refused as well
//     (session.Shared.Busy), but for what a busy Redis permits.
//
// What may go wrong: for one tick after the script began or ended, clients wait, or
// get BUSY that need not.

const (
	busyAfter = int64(20 * time.Millisecond)
	busyFor   = int64(2 * time.Second)
)

// busyness is what a loop knows of a shard's master being busy.
type busyness struct {
	// line is the server's error while it is; until when it is believed.
	line  []byte
	until int64
	// asking: a question is on its way. askAt is when the next one may follow. asks:
	// this loop keeps asking.
	asking, asks bool
	askAt        int64
}

var (
	rawPing    = []byte("*1\r\n$4\r\nPING\r\n")
	prefixBusy = []byte("-BUSY ")
)

// suspect asks the master whether it is busy: a reply is owed for a time.
func (s *shard) suspect(waited int64) {
	if l := s.loop; !s.busy.asking && s.busy.askAt <= l.sh.Now {
		s.busy.askAt = l.sh.Now + waited
		s.ask()
	}
}

func (s *shard) ask() {
	l := s.loop
	s.busy.asking = true
	if l.askOne(s, rawPing, func(reply []byte) {
		s.busy.asking = false
		reply = bytes.Clone(reply)
		is := bytes.HasPrefix(reply, prefixBusy)
		if is == s.busy.asks && !is {
			return
		}
		if s.busy.asks = is; !is {
			reply = nil
		}
		l.sawBusy = l.sawBusy || is
		l.everywhere(func(at *loop, _ int) { at.setBusy(s.id, reply) }, func() {})
	}) != nil {
		s.busy.asking = false
	}
}

// busyNoMore ends it at once when the connection that waited has its reply: its
// client may go on. If the server is still busy, it is asked again.
func (l *loop) busyNoMore(c *backend.Conn) {
	n, ok := c.Context.(*node)
	if !ok || c.InFlight() > 0 || !n.shard.busy.asks {
		return
	}
	s := n.shard
	s.busy.asks, l.sawBusy = false, false
	for _, other := range l.shards {
		l.sawBusy = l.sawBusy || other.busy.asks
	}
	l.setBusy(s.id, nil)
	l.everywhere(func(at *loop, _ int) { at.setBusy(s.id, nil) }, func() {})
}

// setBusy notes that the master of a shard is busy, or not when line is nil.
func (l *loop) setBusy(id string, line []byte) {
	for _, s := range l.shards {
		if s.id != id {
			continue
		}
		was := s.busy.line != nil
		s.busy.line, s.busy.until = line, l.sh.Now+busyFor
		if was != (line != nil) {
			s.publish()
			s.releaseLater()
		}
	}
	l.sh.Busy = nil
	for _, s := range l.shards {
		if s.busy.line == nil {
			l.sh.Busy = nil
			return
		}
		l.sh.Busy = s.busy.line
	}
}

// busyTimer asks on, and ends what was not confirmed.
func (s *shard) busyTimer() {
	if b := &s.busy; b.asks && !b.asking {
		s.ask()
	} else if b.line != nil && b.until <= s.loop.sh.Now {
		s.loop.setBusy(s.id, nil)
	}
}

// refuseBusy answers a request for a busy server.
func (s *shard) refuseBusy(r *backend.Request) {
	line := s.busy.line
	if r.Spec != nil && r.Spec.Name == "exec" {
		line = append([]byte("-EXECABORT Transaction discarded because of: "), line[1:]...)
	}
	r.Owner.Fail(r, line)
}

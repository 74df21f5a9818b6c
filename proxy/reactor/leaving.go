package reactor

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Clients that left while their requests were held.
//
// Goal: what nobody waits for any more is not executed when a shard comes back. A
// client that gave up has often sent the same again, elsewhere.
//
//  1. A client that was closed, or whose connection was reset, takes what it sent and
//     no server was sent with it: the requests have no owner, and are dropped from where
//     they are held.
//  2. The end of what a client sends looks the same whether it closed its socket or
//     only the sending half and waits for the replies, as nc does. The difference is what
//     its kernel does with data: a socket that is closed answers it with a reset. So before
//     requests of such a client are released, it is sent one byte of urgent data. A client
//     that still reads does not see it: it is not part of the stream.
//  3. It is sent once for each client, for a second one would put the first into the
//     stream if that was not read yet. Hence as late as can be: when something held is
//     about to be sent. That then waits for the time in which a reset would arrive.
//  4. The list is empty almost always, and then it costs nothing.
//
// What was written to a server, or to the connection to one that does not read, is
// executed if the server goes on: a single Redis does so, too.

const (
	// Bounds of the time that a reset gets to arrive; in between it is two round trips.
	leastReset = int64(2 * time.Millisecond)
	mostReset  = int64(50 * time.Millisecond)
)

// leaving are the clients that ended their sending half and wait for replies.
type leaving struct {
	clients []*session.Client
	// until is when those that were asked have answered, 0 when none was; from then to
	// open nobody is waited for, however many leave.
	until, open int64
}

// hungUp notes that a client ended what it sends.
func (l *loop) hungUp(c *session.Client) {
	if !c.Closed && c.Pending() > 0 {
		l.leaving.clients = append(l.leaving.clients, c)
	}
}

// knowsWhoLeft tells if held requests may be sent: all clients that may have left were
// asked and had time to answer. If not, everything is released when they had.
func (l *loop) knowsWhoLeft() bool {
	if len(l.leaving.clients) == 0 || l.sh.Now < l.leaving.open {
		return true
	}
	for _, c := range l.leaving.clients {
		if c.Closed || c.Pending() == 0 || !c.Ask() {
			continue
		}
		wait := leastReset
		if info, err := unix.GetsockoptTCPInfo(c.FD, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			wait = min(max(2*int64(info.Rtt)*int64(time.Microsecond), leastReset), mostReset)
		}
		l.leaving.until = max(l.leaving.until, l.sh.Now+wait)
	}
	if l.leaving.until > l.sh.Now {
		l.timerAt(l.leaving.until)
		return false
	}
	return true
}

// lineLeft ends a request of a client that is gone.
var lineLeft = []byte("-ERR the client is gone\r\n")

// unwanted ends a request that was held and that nobody waits for any more, and tells if
// it was one. What is sent to every shard is carried out: others rely on it.
func (l *loop) unwanted(r *backend.Request) bool {
	if r.Owner == nil {
		l.sh.Requests.Put(r)
		return true
	}
	if r.Spec == nil || r.Spec.Kind == command.AllShards || r.Spec.Kind == command.ScriptAdmin || r.Spec.Kind == command.PubSub {
		return false
	}
	if !session.IsUnwanted(r.Owner) {
		return false
	}
	r.Owner.Fail(r, lineLeft)
	return true
}

// leavingTimer forgets those that left or have their replies, and releases what waited.
func (l *loop) leavingTimer() {
	q := &l.leaving
	if len(q.clients) == 0 && q.until == 0 {
		return
	}
	kept := q.clients[:0]
	for _, c := range q.clients {
		if !c.Closed && c.Pending() > 0 {
			kept = append(kept, c)
		}
	}
	clear(q.clients[len(kept):])
	q.clients = kept
	if q.until == 0 || q.until > l.sh.Now {
		return
	}
	q.until, q.open = 0, l.sh.Now+tick
	for _, s := range l.shards {
		if s.heldNow() > 0 {
			s.releaseLater()
		}
	}
	l.pumpPins()
}

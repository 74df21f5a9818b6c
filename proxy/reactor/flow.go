package reactor

import (
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Flow control of large replies.
//
// Goal: a client that takes a large reply slower than the server gives it does
// not fill the memory: what it cannot take yet stays in the server.
//
//  1. As long as memory is plenty, replies are read as fast as servers give them:
//     that is best for others.
//  2. Beyond that, the connection for bulk whose current reply goes to a client
//     with more than flowHigh unread is not read (paused) until the client has
//     flowLow left. Others' large replies stand behind it and wait; ordinary
//     requests are not concerned, they have other connections.
//  3. A client that takes nothing for untaken, or not enough for flowPatience,
//     does not stop others: the connection is read on, and what piles up ends as
//     always, at the client's reply limit or that of memory (memory.go).
//  4. A connection that an epoch waits for is never paused: no client can delay
//     an ack by being slow.

const (
	// flowHigh and flowLow are in bytes, flowPatience is in nanoseconds.
	flowHigh     = 4 << 20
	flowLow      = 1 << 20
	flowPatience = int64(2e9)
)

// pausedConn is a connection that is not read, because of a client.
type pausedConn struct {
	conn   *backend.Conn
	client *session.Client
	since  int64
}

// throttle pauses a connection for bulk, of which n bytes were just read, if its
// client has enough, or if the reply is a giant that is to rest.
func (l *loop) throttle(c *backend.Conn, n int) {
	if c.FD < 0 || c.Paused || c.MustDrain || c.Retired {
		return
	}
	client := session.ClientOf(c.Recipient())
	if client != nil && client.Streamed() > giant && l.rests(n) {
		l.restConn(c)
		return
	}
	if client == nil || client.Unsent() <= flowHigh || !client.Takes(l.sh.Now-untaken) {
		return
	}
	if l.eng.used.Load() <= plenty(l.eng.cfg.MemoryBudgetBytes) {
		return
	}
	c.Paused = true
	l.pausedConns = append(l.pausedConns, pausedConn{c, client, l.sh.Now})
	l.watchConn(c, c.Unsent())
}

// readAgain reads those connections again whose client is ready for more, or does
// not deserve to be waited for.
func (l *loop) readAgain() {
	kept := l.pausedConns[:0]
	for _, p := range l.pausedConns {
		c, client, now := p.conn, p.client, l.sh.Now
		if !c.Paused {
			continue // it broke
		}
		c.WaitingSince = now // the server is not to blame
		if now-p.since > flowPatience {
			client.TooSlowToWaitFor()
		}
		if client.Takes(now-untaken) && client.Unsent() > flowLow && !c.MustDrain && !c.Retired {
			kept = append(kept, p)
			continue
		}
		c.Paused = false
		l.watchConn(c, c.Unsent())
	}
	clear(l.pausedConns[len(kept):])
	l.pausedConns = kept
}

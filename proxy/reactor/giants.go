package reactor

import (
	"golang.org/x/sys/unix"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Giants: requests and replies that take a second or more to pass.
//
// Goal: they do not slow down everybody else. A giant keeps three threads busy as long
// as it takes, who sends it, the loop, and who takes it; with few processors all
// others wait for one of them, even those whose server and connections have nothing
// to do with it.
//
//  1. What is larger than giant passes in slices. Behind each the loop does not touch
//     its socket for giantRest times as long as the slice took. So the others of the
//     three rest as well, and there are processors free most of the time.
//  2. Only when there is somebody to gain by it: while no loop of this proxy answers
//     anything else, giants pass as fast as they can.
//  3. All giants of a loop share the slices.
//  4. A connection that an epoch waits for does not rest.

const (
	// giant and giantSlice are in bytes, longestRest and othersRecent in nanoseconds.
	giant        = 4 << 20
	giantSlice   = 256 << 10
	giantRest    = 2
	longestRest  = int64(4e6)
	othersRecent = int64(5e6)
)

// giants of a loop.
type giants struct {
	// slice are the bytes since the last rest, and begin is when the first of them came.
	slice int
	begin int64
	// until is when the rest ends, in which there are conns and clients.
	until   int64
	conns   []*backend.Conn
	clients []*session.Client
}

// rests tells if a giant of which n bytes just passed is to rest.
func (l *loop) rests(n int) bool {
	g, now := &l.giants, l.sh.Now
	switch {
	case now < g.until:
		return true
	case now-l.eng.others.Load() > othersRecent:
		g.slice = 0
		return false
	case g.slice == 0:
		g.begin = now
	}
	if g.slice += n; g.slice < giantSlice {
		return false
	}
	g.slice = 0
	g.until = now + min(giantRest*(now-g.begin), longestRest)
	l.timerAt(g.until)
	return true
}

// restConn has a connection neither read nor written for now.
func (l *loop) restConn(c *backend.Conn) {
	if c.FD < 0 || c.Paused || c.MustDrain || c.Retired {
		return
	}
	c.Paused = true
	l.giants.conns = append(l.giants.conns, c)
	l.watchConn(c, false)
}

// restClient has a client not read for now.
func (l *loop) restClient(c *session.Client) {
	if !c.Closed {
		l.giants.clients = append(l.giants.clients, c)
		l.watchClient(c, c.Events&^unix.EPOLLIN)
	}
}

// giantsGoOn ends the rest of those whose time has come.
func (l *loop) giantsGoOn() {
	g, over := &l.giants, l.sh.Now >= l.giants.until
	kept := g.conns[:0]
	for _, c := range g.conns {
		switch {
		case !c.Paused: // it broke
		case over || c.MustDrain || c.Retired:
			c.Paused, c.WaitingSince = false, l.sh.Now // the server is not to blame
			l.watchConn(c, c.Unsent())
		default:
			kept = append(kept, c)
		}
	}
	clear(g.conns[len(kept):])
	g.conns = kept
	if !over {
		l.timerAt(g.until)
		return
	}
	for i, c := range g.clients {
		if !c.Closed && !c.Stalled() {
			l.watchClient(c, c.Events|unix.EPOLLIN)
		}
		g.clients[i] = nil
	}
	g.clients = g.clients[:0]
}

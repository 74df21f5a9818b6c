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
//  3. All giants of a loop share the slices, and rest together.
//  4. What stands behind a giant on its connection rests with it. So the connection
//     for ordinary requests never does: a giant is there only while its shard has
//     none for bulk, or when nobody could know that its reply is one.
//  5. A connection that an epoch waits for does not rest. When memory gets
//     short nobody rests, for what rests holds memory.

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

// passed tells if a giant is to rest of which n bytes passed from begin to end;
// others is when somebody else was last served. A whole slice may pass in one
// wake-up, when there are several giants.
func (g *giants) passed(n int, begin, end, others int64) bool {
	switch {
	case begin < g.until:
		return true
	case begin-others > othersRecent:
		g.slice = 0
		return false
	case g.slice == 0:
		g.begin = begin
	}
	if g.slice += n; g.slice < giantSlice {
		return false
	}
	g.slice = 0
	g.until = end + min(giantRest*(end-g.begin), longestRest)
	return true
}

// rest tells if any rests.
func (g *giants) rest() bool { return len(g.conns) > 0 || len(g.clients) > 0 }

// rests tells if a giant of which n bytes passed in this wake-up is to rest.
func (l *loop) rests(n int) bool {
	if l.eng.used.Load() > resumeBelow(l.eng.cfg.MemoryBudgetBytes) {
		return false
	}
	return l.giants.passed(n, l.sh.Now, l.clock(), l.eng.others.Load())
}

// mayRest tells if a connection may rest: nobody must wait for it who has to do
// with nothing large.
func mayRest(c *backend.Conn) bool {
	_, ofLane := c.Context.(*node)
	return c.Target.Bulk || c.Target.As.IsPrivate() || !ofLane
}

// restConn has a connection neither read nor written for now.
func (l *loop) restConn(c *backend.Conn) {
	if c.FD < 0 || c.Resting || c.MustDrain || c.Retired {
		return
	}
	c.Resting = true
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

// giantsGoOn ends the rest of those whose time has come. It is called before the
// events of a wake-up: those may begin the next rest.
func (l *loop) giantsGoOn() {
	g, over := &l.giants, l.sh.Now >= l.giants.until
	kept := g.conns[:0]
	for _, c := range g.conns {
		switch {
		case !c.Resting: // it broke
		case over || c.MustDrain || c.Retired:
			c.Resting, c.WaitingSince = false, l.sh.Now // the server is not to blame
			l.watchConn(c, c.Unsent())
		default:
			kept = append(kept, c)
		}
	}
	clear(g.conns[len(kept):])
	g.conns = kept
	if !over {
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

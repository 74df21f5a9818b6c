package reactor

import (
	"fmt"
	"sync/atomic"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/monitor"
	"github.com/basalt-redis/basalt/proxy/session"
)

// MONITOR.
//
// Goal: a client sees what all clients of the cluster do, as from one server,
// and nothing of what Basalt does for itself. It costs nothing while nobody
// monitors.
//
//  1. A loop with monitoring clients has one connection to each master, in which
//     it sends MONITOR. What it gets is fed, line by line, to the loop's clients.
//     So lines of one server are in the server's order; those of several are
//     merged as they come. The address in them is that of a proxy's connection,
//     for that is who the server knows.
//  2. Package monitor drops what Basalt's own processes send. A server does not
//     say in a line as which user it was sent, so each connection also asks for
//     CLIENT LIST when a line has an address that it does not know; until the
//     answer, lines wait.
//  3. Commands that the proxy answers itself never reach a server. They are
//     shown with the client's own address (session.Client.show), to the clients
//     of this proxy.
//  4. MONITOR is answered when every master sends its lines. One that is not there
//     is waited for with patience (session.Patience), and shown when it is back.
//  5. The connections follow the masters like those of subscriptions, and break
//     like them: what happens in between is not shown, and the clients go on.
//  6. A client that does not read its lines is closed like a subscriber.
type monitors struct {
	loop    *loop
	clients map[*session.Client]struct{}
	waiting []monitorRequest
	links   map[string]*monitorLink // by the shard's id
	running bool                    // the connections are wanted
	// starting are clients of which the other loops are being told.
	starting int
	// count is the number of clients, for other loops.
	count atomic.Int32
}

// monitorRequest is a MONITOR that was not answered yet.
type monitorRequest struct {
	client  *session.Client
	request *backend.Request
	since   int64
}

// monitorHost is the loop as the host of connections for MONITOR, whose Context
// is the monitorLink.
type monitorHost struct{ *loop }

// monitorLink is the connection for MONITOR to the master of one shard.
type monitorLink struct {
	monitors *monitors
	shard    string
	target   *backend.Target // the master; nil while there is none
	conn     *backend.Conn   // nil when there is no master, or nobody monitors
	filter   *monitor.Filter
	synced   bool // lines come
	part     []byte
	cut      int // bytes that part lacks
	listed   int64
	listing  bool
}

// relist is how often CLIENT LIST is asked for at least, in nanoseconds: also as
// a sign of life, and because addresses are used again.
const relist = int64(5e9)

var (
	rawMonitor    = []byte("*1\r\n$7\r\nMONITOR\r\n")
	rawClientList = []byte("*2\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n")
	lineNoMasters = []byte("-CLUSTERDOWN no master can be monitored; retry later\r\n")
)

func (m *monitors) init(l *loop) {
	m.loop, m.clients, m.links = l, map[*session.Client]struct{}{}, map[string]*monitorLink{}
}

// Monitor answers a client's MONITOR when the servers send their lines.
func (l *loop) Monitor(c *session.Client, r *backend.Request) {
	m := &l.monitors
	m.waiting = append(m.waiting, monitorRequest{c, r, l.sh.Now})
	if !m.running {
		m.running = true
		for _, k := range m.links {
			k.open()
		}
	}
	m.recheck()
}

// Unmonitor ends what Monitor began.
func (l *loop) Unmonitor(c *session.Client) {
	m := &l.monitors
	delete(m.clients, c)
	m.counted(func() {})
	m.stopIfUnused()
}

// counted tells all loops if some client of the proxy monitors now, and then
// calls done.
func (m *monitors) counted(done func()) {
	m.count.Store(int32(len(m.clients) + m.starting))
	eng := m.loop.eng
	m.loop.everywhere(func(at *loop, _ int) { at.sh.Monitored = eng.monitored() }, done)
}

// start answers a client that may monitor when every loop shows its commands.
func (m *monitors) start(w monitorRequest) {
	m.starting++
	m.counted(func() {
		m.starting--
		if w.client.Closed {
			w.client.Complete(w.request, nil)
			m.counted(func() {})
			m.stopIfUnused()
			return
		}
		m.clients[w.client] = struct{}{}
		w.client.StartMonitoring(w.request)
	})
}

// monitored tells if some client of the proxy monitors.
func (e *Engine) monitored() bool {
	for _, l := range e.loops {
		if l.monitors.count.Load() > 0 {
			return true
		}
	}
	return false
}

// stopIfUnused closes the connections when nobody needs them: they cost the
// servers too much to be kept for the next one.
func (m *monitors) stopIfUnused() {
	if len(m.clients)+len(m.waiting)+m.starting > 0 || !m.running {
		return
	}
	m.running = false
	for _, k := range m.links {
		k.close()
	}
}

// Show gives a line to all monitoring clients of the proxy.
func (l *loop) Show(line []byte) {
	for _, other := range l.eng.loops {
		switch {
		case other.monitors.count.Load() == 0:
		case other == l:
			l.monitors.feed(line)
		default:
			other.post(func() { other.monitors.feed(line) })
		}
	}
}

func (m *monitors) feed(line []byte) {
	for c := range m.clients {
		c.Feed(line)
	}
}

// recheck answers those who wait, if that is possible now.
func (m *monitors) recheck() {
	if len(m.waiting) == 0 {
		return
	}
	all, some := len(m.links) > 0, false
	for _, k := range m.links {
		all, some = all && k.synced, some || k.synced
	}
	waiting := m.waiting
	m.waiting = nil
	for _, w := range waiting {
		waited := m.loop.sh.Now - w.since
		late := waited >= int64(m.loop.eng.cfg.HoldTimeout)
		switch {
		case w.client.Closed:
			w.client.Complete(w.request, nil)
		case m.loop.deleting:
			w.client.Complete(w.request, lineDeleting)
		case all || some && (late || waited >= session.Patience):
			m.start(w)
		case late:
			w.client.Complete(w.request, lineNoMasters)
		default:
			m.waiting = append(m.waiting, w)
		}
	}
	m.stopIfUnused()
}

// apply follows the masters of a table.
func (m *monitors) apply() {
	old := m.links
	m.links = make(map[string]*monitorLink, len(m.loop.shards))
	for _, s := range m.loop.shards {
		k := old[s.id]
		if k == nil {
			k = &monitorLink{monitors: m, shard: s.id}
		}
		delete(old, s.id)
		m.links[s.id] = k
		k.follow(s.master)
	}
	for _, k := range old {
		k.follow(nil)
	}
	m.recheck()
}

// follow changes over to a master, or to none.
func (k *monitorLink) follow(master *node) {
	var target *backend.Target
	if master != nil {
		t := master.target
		t.Proto = 2
		target = &t
	}
	if k.target != nil && target != nil && *k.target == *target {
		return
	}
	k.close()
	k.target = target
	k.open()
}

// open connects, if that is wanted and possible.
func (k *monitorLink) open() {
	l := k.monitors.loop
	if k.conn != nil || k.target == nil || !k.monitors.running {
		return
	}
	k.filter = monitor.NewFilter(k.target.Username)
	k.conn = backend.New(monitorHost{l}, *k.target)
	k.conn.Context = k
	k.conn.Open(int64(l.eng.cfg.NodeTimeout))
	l.timerAt(k.conn.Deadline)
}

func (k *monitorLink) close() {
	conn := k.conn
	if conn == nil {
		return
	}
	k.conn = nil
	conn.Break(SightUnknown, errReplaced, backend.LineReplaced)
	k.down()
}

// down forgets the state of a connection that ended.
func (k *monitorLink) down() {
	k.synced, k.listing, k.part, k.cut, k.filter = false, false, nil, 0, nil
}

// Opened: the login succeeded.
func (monitorHost) Opened(c *backend.Conn) {
	k := c.Context.(*monitorLink)
	if k.filter == nil {
		k.filter = monitor.NewFilter(k.target.Username)
	}
	k.ask(rawMonitor, false)
	k.list()
}

// list asks who is connected to the server.
func (k *monitorLink) list() {
	if !k.listing {
		k.listing, k.listed = true, k.monitors.loop.sh.Now
		k.ask(rawClientList, true)
	}
}

// ask sends a request.
func (k *monitorLink) ask(raw []byte, isList bool) {
	l := k.monitors.loop
	r := l.sh.Requests.Get()
	r.Owner, r.Start, r.Proto = &monitorAsk{link: k, isList: isList}, l.sh.Now, 2
	k.conn.Enqueue(r, raw)
}

// Broken: a connection ended, not always the present one.
func (monitorHost) Broken(c *backend.Conn, _ *backend.Hold, _ Sight, err error) {
	k := c.Context.(*monitorLink)
	if c != k.conn {
		return
	}
	l := k.monitors.loop
	if k.synced {
		l.log.Warn("connection of MONITOR to node is down, its commands are not shown", "node", c.Target.Node, "shard", k.shard, "error", err)
	}
	k.down()
	l.timerAt(c.Backoff())
}

// Pushed takes a piece of a line.
func (h monitorHost) Pushed(c *backend.Conn, piece []byte, last bool) {
	k := c.Context.(*monitorLink)
	if k.part == nil && last {
		k.line(piece)
		return
	}
	room := max(session.MonitorLineBytes-len(k.part), 0)
	k.cut += max(len(piece)-room, 0)
	k.part = append(k.part, piece[:min(room, len(piece))]...)
	if last {
		line := k.part
		if k.cut > 0 {
			line = fmt.Appendf(line, "... (%d more bytes)\r\n", k.cut)
		}
		k.part, k.cut = nil, 0
		k.line(line)
	}
}

// line takes a line of the server.
func (k *monitorLink) line(line []byte) {
	if k.filter.Take(line, k.monitors.feed) {
		k.list()
	}
}

// monitorAsk is a request of a monitorLink: the owner of what went to the server.
type monitorAsk struct {
	link   *monitorLink
	isList bool
}

// Reply takes the answer. An error is not expected of a healthy server: the
// connection is opened anew, with a backoff.
func (q *monitorAsk) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	k := q.link
	l := k.monitors.loop
	text := l.sh.Collect(r, piece, last)
	if !last {
		return
	}
	conn := k.conn
	switch {
	case conn == nil || k.filter == nil:
	case kind == '-':
		l.log.Warn("node refuses MONITOR", "node", conn.Target.Node, "shard", k.shard, "answer", fmt.Sprintf("%.200q", text))
		conn.Break(SightUnknown, fmt.Errorf("the server refuses: %.200q", text), backend.LineLost)
	case !q.isList:
		conn.Unasked = '+' // from here on
	default:
		k.listing = false
		if k.filter.Listed(text, k.monitors.feed) {
			k.list()
		}
		if !k.synced {
			k.synced = true
			k.monitors.recheck()
		}
	}
}

// Fail: the connection ended before the answer.
func (q *monitorAsk) Fail(r *backend.Request, _ []byte) {
	l := q.link.monitors.loop
	r.Out.Reset(&l.sh.Pool)
	l.sh.Requests.Put(r)
}

// timers looks at everything here that waits for a time.
func (m *monitors) timers() {
	if !m.running {
		return
	}
	m.recheck()
	for _, k := range m.links {
		if k.conn != nil && m.loop.linkTimer(k.conn) && m.loop.sh.Now-k.listed > relist {
			k.list()
		}
	}
}

package reactor

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/pubsub"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Connections for subscriptions.
//
// Goal: one connection per loop and master carries the messages of all clients
// (package pubsub says why to all masters). It carries no command whose effect
// anybody waits for, so no epoch's ack waits for it, and it may be cut at any
// time: what is lost are messages.
//
//  1. The connections are opened when the loop's first client subscribes, and
//     closed linkIdle after the last one left.
//  2. An epoch that gives a shard another master, or none, ends the connection:
//     what already arrived is delivered, then it is closed, and only then one to
//     the new master is opened. So no message can come on both.
//  3. An epoch that only changes the credentials makes the connection log in
//     anew: a server keeps subscriptions across AUTH. Nothing is lost.
//  4. A connection that broke is opened again after a backoff. Whoever
//     subscribes meanwhile waits.
//  5. A connection without traffic is asked for a sign of life, so that one that
//     died silently is replaced. The bound is linkTimeouts times the node
//     timeout: a server that is busy for a while keeps its subscribers.
//
// What these connections see is not reported as sights: the shard's ordinary
// connection sees the same.

const (
	// linkIdle is in nanoseconds.
	linkIdle     = int64(10 * time.Second)
	linkTimeouts = 10
	// drainLink bounds how often an old connection is read before it is closed.
	drainLink = 64
)

// subscriptions are those of one loop.
type subscriptions struct {
	loop    *loop
	links   map[string]*subLink // by the shard's id
	unused  int64               // since when nobody is subscribed; 0 when somebody is
	running bool                // the connections are wanted
	// broadcast: a client wants to hear of all changes (tracking.go). waiting
	// are called when all servers tell of them.
	broadcast bool
	waiting   []broadcastWaiter
}

// linkHost is the loop as the host of connections for subscriptions, whose
// Context is the subLink.
type linkHost struct{ *loop }

// subLink is the connection for subscriptions to the master of one shard.
type subLink struct {
	subs  *subscriptions
	shard string
	link  *pubsub.Link
	// target is the master; nil while there is none. conn is nil when there is
	// no master, or nobody is subscribed.
	target *backend.Target
	conn   *backend.Conn
	// tracking tells if the server tells of every change; asked counts how often it
	// was asked to.
	tracking trackingState
	asked    uint64
	// part is what came of an incomplete push.
	part *buffer.Chunk
}

func (s *subscriptions) init(l *loop) {
	s.loop, s.links = l, map[string]*subLink{}
	hub := pubsub.NewHub(l.eng.directory, &l.sh.Pool, &l.sh.Now)
	hub.Limit = int64(l.eng.cfg.HoldTimeout)
	hub.Patience = min(session.Patience, hub.Limit)
	hub.Needed = s.start
	hub.Later = func(fn func()) { l.post(fn) }
	l.sh.Invalidations = session.Invalidations{Max: maxTrackedKeys, Broadcast: s.hearAll, Quiet: s.hearNone}
	l.sh.Hub, l.sh.PubSubLimit = hub, int(l.eng.cfg.ClientPubSubBufferBytes)
}

// start opens the connections because somebody subscribes.
func (s *subscriptions) start() {
	s.unused = 0
	if s.running {
		return
	}
	s.running = true
	for _, k := range s.links {
		k.open()
	}
}

// apply follows the masters of a table.
func (s *subscriptions) apply(t *routing.Table) {
	old := s.links
	s.links = make(map[string]*subLink, len(t.Shards))
	links := make([]*pubsub.Link, len(t.Shards))
	for i, shard := range s.loop.shards {
		k := old[shard.id]
		if k == nil {
			k = &subLink{subs: s, shard: shard.id, link: s.loop.sh.Hub.NewLink()}
		}
		delete(old, shard.id)
		s.links[shard.id], links[i] = k, k.link
		k.follow(shard.master)
	}
	for _, k := range old {
		k.follow(nil)
	}
	s.loop.sh.Hub.Apply(t, links)
}

// follow changes over to a master, or to none.
func (k *subLink) follow(master *node) {
	var target *backend.Target
	if master != nil {
		t := master.target
		t.Proto = 3
		target = &t
	}
	old := k.target
	k.target = target
	switch {
	case k.conn == nil:
	case target != nil && *old == *target:
		return
	case target != nil && old.Node == target.Node && old.Address == target.Address && old.Incarnation == target.Incarnation &&
		target.Username != "" && k.conn.State() == backend.Ready:
		k.conn.Target = *target
		k.authenticate()
		return
	default:
		k.close()
	}
	k.open()
}

// open connects, if that is wanted and possible.
func (k *subLink) open() {
	if k.conn != nil || k.target == nil || !k.subs.running {
		return
	}
	k.conn = backend.New(linkHost{k.subs.loop}, *k.target)
	k.conn.Context = k
	k.conn.Open(int64(k.subs.loop.eng.cfg.NodeTimeout))
	k.subs.loop.timerAt(k.conn.Deadline)
}

// close delivers what already arrived, and ends the connection.
func (k *subLink) close() {
	conn := k.conn
	for range drainLink {
		var b [1]byte
		if conn.State() != backend.Ready {
			break
		}
		if n, _, err := unix.Recvfrom(conn.FD, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); err != nil || n == 0 {
			break
		}
		conn.Read(k.subs.loop.scratch)
	}
	k.conn = nil
	conn.Break(SightUnknown, errReplaced, backend.LineReplaced)
	k.down()
}

// down forgets the state of a connection that ended.
func (k *subLink) down() {
	k.link.Down()
	k.tracking = trackingOff
	if k.part != nil {
		k.subs.loop.sh.Pool.Put(k.part)
		k.part = nil
	}
}

// Opened: the login succeeded.
func (linkHost) Opened(c *backend.Conn) {
	k := c.Context.(*subLink)
	if k.conn.Opened > 1 {
		k.subs.loop.log.Info("subscriptions are connected again", "node", k.target.Node, "shard", k.shard)
	}
	k.link.Up(k)
	k.tracking = trackingOff
	k.track()
}

// Broken: a connection ended, not always the present one.
func (linkHost) Broken(c *backend.Conn, _ *backend.Hold, _ Sight, err error) {
	k := c.Context.(*subLink)
	if c != k.conn {
		return
	}
	if k.link.Synced() {
		k.subs.loop.log.Warn("connection of subscriptions to node is down, messages may be lost", "node", c.Target.Node, "shard", k.shard, "error", err)
	}
	k.down()
	k.subs.loop.timerAt(c.Backoff())
}

// Send sends a request about subscriptions.
func (k *subLink) Send(raw []byte, b *pubsub.Batch) {
	l := k.subs.loop
	r := l.sh.Requests.Get()
	r.Owner, r.Start, r.Proto = &subRequest{link: k, batch: b}, l.sh.Now, 3
	k.conn.Enqueue(r, raw)
}

// authenticate logs in under new credentials.
func (k *subLink) authenticate() { k.ask(backend.Auth(&k.conn.Target), nil) }

// ask sends a request that is not about subscriptions; done, if not nil, is
// called after a reply that is no error.
func (k *subLink) ask(raw []byte, done func()) {
	l := k.subs.loop
	r := l.sh.Requests.Get()
	r.Owner, r.Start, r.Proto = &subRequest{link: k, done: done}, l.sh.Now, 3
	k.conn.Enqueue(r, raw)
}

// subRequest is a request of a subLink: the owner of what went to the server.
type subRequest struct {
	link  *subLink
	batch *pubsub.Batch // nil for what is not about subscriptions
	done  func()
}

// Reply takes the answer. An error is not expected of a healthy server: the
// connection is opened anew, with a backoff.
func (q *subRequest) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	text := q.link.subs.loop.sh.Collect(r, piece, last)
	if !last {
		return
	}
	if kind != '-' {
		if q.batch != nil {
			q.batch.Done()
		}
		if q.done != nil {
			q.done()
		}
		return
	}
	if conn := q.link.conn; conn != nil {
		conn.Break(SightUnknown, fmt.Errorf("the server refuses: %.200q", text), backend.LineLost)
	}
	if q.batch != nil {
		q.batch.Lost()
	}
}

// Fail: the connection ended before the answer.
func (q *subRequest) Fail(r *backend.Request, _ []byte) {
	l := q.link.subs.loop
	r.Out.Reset(&l.sh.Pool)
	l.sh.Requests.Put(r)
	if q.batch != nil {
		q.batch.Lost()
	}
}

// Pushed takes a piece of a push.
func (h linkHost) Pushed(c *backend.Conn, piece []byte, last bool) {
	l, k := h.loop, c.Context.(*subLink)
	if k.part == nil && last {
		if !k.tells(piece) {
			l.sh.Hub.Deliver(piece, nil)
		}
		return
	}
	if k.part == nil {
		k.part = l.sh.Pool.Get(len(piece))
	}
	k.part = l.sh.Pool.Grow(k.part, len(k.part.B)+len(piece))
	k.part.B = append(k.part.B, piece...)
	l.sh.Pool.Charge(k.part)
	if last {
		whole := k.part
		k.part = nil
		if k.tells(whole.B) {
			l.sh.Pool.Put(whole)
			return
		}
		l.sh.Hub.Deliver(whole.B, whole)
	}
}

// timers looks at everything here that waits for a time.
func (s *subscriptions) timers() {
	if !s.running {
		return
	}
	hub, now := s.loop.sh.Hub, s.loop.sh.Now
	hub.Recheck()
	s.answerWaiting(now)
	for _, k := range s.links {
		if conn := k.conn; conn != nil && s.loop.linkTimer(conn) && conn.InFlight() == 0 && now-conn.LastReply > quiet {
			conn.Ping()
		}
	}
	switch {
	case hub.Active() || s.broadcast:
		s.unused = 0
	case s.unused == 0:
		s.unused = now
	case now-s.unused > linkIdle:
		s.running = false
		for _, k := range s.links {
			if k.conn != nil {
				k.close()
			}
		}
	}
}

// linkTimer looks at a connection that carries messages for clients. It returns
// true when that takes requests, so that it can be asked for a sign of life.
func (l *loop) linkTimer(conn *backend.Conn) bool {
	now, timeout := l.sh.Now, int64(l.eng.cfg.NodeTimeout)
	switch conn.State() {
	case backend.Closed:
		if conn.RetryAt > now {
			l.timerAt(conn.RetryAt)
			return false
		}
		conn.Open(timeout)
	case backend.Connecting, backend.Login:
		if conn.Deadline <= now {
			conn.Expire()
		}
	case backend.Ready:
		if conn.InFlight() > 0 && now-conn.WaitingSince > linkTimeouts*timeout {
			conn.Break(SightUnknown, errSilent, backend.LineLost)
			return false
		}
		return true
	}
	return false
}

// stats counts what the loop's clients listen to.
func (s *subscriptions) stats() PubSubStats {
	h := s.loop.sh.Hub.Stats()
	stats := PubSubStats{Subscribers: h.Subscribers, Subscriptions: h.Subscriptions, Messages: h.Messages, Deliveries: h.Deliveries}
	for _, k := range s.links {
		if k.link.Synced() {
			stats.Links++
		}
	}
	return stats
}

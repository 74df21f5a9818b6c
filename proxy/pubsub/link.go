package pubsub

// Wire is the connection of a link while it is logged in.
type Wire interface {
	// Send sends requests that have, in the end, one reply that is no push. It
	// calls Batch.Done when that arrived, or Batch.Lost when the connection
	// ended before.
	Send(raw []byte, b *Batch)
}

// Link is the subscriptions of one loop at the master of one shard. While it is
// down, nothing is asked; when it comes up, everything is.
type Link struct {
	hub  *Hub
	wire Wire
	// synced: everything that was wanted when it came up was confirmed.
	synced bool
	// since is when it was synced last or, if later, when it was needed first.
	since int64
}

// NewLink makes a link that is down.
func (h *Hub) NewLink() *Link { return &Link{hub: h, since: *h.now} }

// Batch is what one request to a server was about.
type Batch struct {
	link   *Link
	topics []*topic
	// sync: it stands behind those with which a link came up.
	sync bool
	// after is called when it was answered, or lost.
	after func()
}

// batchBytes is about how much one command has when everything is subscribed.
const batchBytes = 16 << 10

var ping = []byte("*1\r\n$4\r\nPING\r\n")

// Up takes a connection and subscribes everything there.
func (l *Link) Up(w Wire) {
	h := l.hub
	l.wire, l.synced = w, false
	for k := range kinds {
		var names []*topic
		size := 0
		for _, t := range h.topics[k] {
			if t.refs == 0 || k == Shard && t.at != l {
				continue
			}
			names = append(names, t)
			if size += len(t.name) + 16; size >= batchBytes {
				l.send(verbs[k].on, names)
				names, size = nil, 0
			}
		}
		if len(names) > 0 {
			l.send(verbs[k].on, names)
		}
	}
	h.tellAll(l)
	l.wire.Send(ping, &Batch{link: l, sync: true})
}

// Down ends the connection. Whoever waits for it goes on waiting for the next.
func (l *Link) Down() {
	if l.synced {
		l.since = *l.hub.now
	}
	l.wire, l.synced = nil, false
}

// Synced tells if everything is subscribed there.
func (l *Link) Synced() bool { return l.synced }

// absent tells if it was not there for so long that nobody waits for it.
func (l *Link) absent() bool { return !l.synced && *l.hub.now-l.since >= l.hub.Patience }

// ask sends a command about topics, unless the link is down.
func (l *Link) ask(verb string, topics ...*topic) {
	if l.wire != nil {
		l.send(verb, topics)
	}
}

func (l *Link) send(verb string, topics []*topic) {
	size := len(ping) + 32
	for _, t := range topics {
		size += len(t.name) + 16
		t.inFlight++
	}
	raw := appendBulk(appendArray(make([]byte, 0, size), len(topics)+1), verb)
	for _, t := range topics {
		raw = appendBulk(raw, t.name)
	}
	l.wire.Send(append(raw, ping...), &Batch{link: l, topics: topics})
}

// After calls fn when everything that the server which messages to a name go to sent
// so far was delivered. A client that publishes to itself gets the message first and
// then the reply, as from a single server.
func (h *Hub) After(k Kind, name []byte, fn func()) {
	if link := h.publishedAt(k, name); link != nil && link.wire != nil {
		link.wire.Send(ping, &Batch{link: link, after: fn})
		return
	}
	fn()
}

// Delivered calls fn when everything that the servers sent so far about names of
// a kind was delivered to a client. One that unsubscribes gets what was published
// before, as from a single server.
func (h *Hub) Delivered(m *Member, k Kind, fn func()) {
	missing := 1
	done := func() {
		if missing--; missing == 0 {
			fn()
		}
	}
	if len(m.sets[k]) > 0 {
		for _, link := range h.links {
			if link.synced && link.wire != nil {
				missing++
				link.wire.Send(ping, &Batch{link: link, after: done})
			}
		}
	}
	done()
}

// Done: the server did what was asked.
func (b *Batch) Done() {
	if b.sync {
		b.link.synced = true
	}
	b.end()
}

// Lost: the connection ended. What was asked will be asked again when the link
// comes up, if it is still wanted.
func (b *Batch) Lost() {
	b.link.Down()
	b.end()
}

func (b *Batch) end() {
	h := b.link.hub
	for _, t := range b.topics {
		t.inFlight--
		h.settle(t)
	}
	if b.sync {
		h.Recheck()
	}
	if b.after != nil {
		b.after()
	}
}

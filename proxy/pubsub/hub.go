package pubsub

import (
	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// Hub is all subscriptions of one loop. It belongs to the loop's thread.
//
// Invariants:
//   - a topic's refs are its members and the operations that will add some;
//     every link that is up was asked for it exactly when refs > 0 (and it is
//     the link of its slot, for shard channels);
//   - a topic is in the hub while refs > 0 or a command about it is unanswered;
//   - members[i] of a topic has i as its place in sets.
type Hub struct {
	// Pool is the loop's memory.
	Pool *buffer.Pool
	// Needed is called when the first name is subscribed: links may come up now.
	Needed func()
	// Later has something done after others had their turn; at once unless it is set.
	Later func(fn func())
	// Patience is how long a confirmation waits for a shard, and Limit how long for
	// any that serves, or for that of a shard channel, in nanoseconds.
	Patience, Limit int64

	now    *int64
	dir    *Directory
	topics [kinds]map[string]*topic
	// links are those of the table's shards, in its order; table is nil until there
	// is one.
	links    []*Link
	table    *routing.Table
	deleting bool
	// shared are the topics with a surplus. signature is that of the patterns among
	// them, as it was told at signedAt.
	shared    map[*topic]struct{}
	signature signature
	signed    uint32
	signedAt  *Link
	// waiting are operations whose commands were all answered, but not every
	// link they need is up.
	waiting []*operation
	bytes   int64
	stats   Stats
}

// Stats counts what a hub did.
type Stats struct {
	// Messages that came from servers, and Deliveries of them to clients.
	Messages, Deliveries uint64
	// Subscribers are clients that listen to anything now, Subscriptions what
	// they listen to, summed up.
	Subscribers, Subscriptions int
}

// topic is one name that clients of the loop listen to.
type topic struct {
	name    string
	kind    Kind
	slot    uint16
	members []*Member
	refs    int
	// inFlight are commands about it that were sent and not answered.
	inFlight int
	// waiters are operations that wait for those.
	waiters []*operation
	// at is where a Shard topic is subscribed.
	at *Link
	// clients are the members and those that operations will add; surplus is what of
	// them was told at toldAt (census.go).
	clients int
	surplus int
	toldAt  *Link
	// latest is the operation that counted its client last.
	latest *operation
	// counted: the directory counts this loop for it.
	counted bool
}

// What a topic and a membership take beyond the name, about, in bytes.
const (
	topicBytes  = 256
	memberBytes = 96
)

// Receiver is a client, as its subscriptions see it.
type Receiver interface {
	// Proto is the protocol version it speaks now.
	Proto() int
	// Push gives it a message, which is valid during the call. It must not
	// change any subscription.
	Push(m *Message)
}

// Member is a client and what it listens to.
type Member struct {
	to   Receiver
	sets [kinds]map[*topic]int
	// leaving are those that it is no longer counted for.
	leaving map[*topic]struct{}
	op      *operation
	bytes   int
}

// NewMember makes a client that listens to nothing.
func NewMember(to Receiver) *Member { return &Member{to: to} }

// Count is the number of names of a kind.
func (m *Member) Count(k Kind) int { return len(m.sets[k]) }

// Total is the number of all names.
func (m *Member) Total() int { return len(m.sets[Channel]) + len(m.sets[Pattern]) + len(m.sets[Shard]) }

// Each calls fn for everything that the client listens to. fn must not change
// any subscription.
func (m *Member) Each(fn func(k Kind, name string)) {
	for k := range m.sets {
		for t := range m.sets[k] {
			fn(t.kind, t.name)
		}
	}
}

// Memory is what the subscriptions take, about, in bytes.
func (m *Member) Memory() int { return m.bytes }

// told is the count that confirmations tell: shard channels count apart.
func (m *Member) told(k Kind) int {
	if k == Shard {
		return len(m.sets[Shard])
	}
	return len(m.sets[Channel]) + len(m.sets[Pattern])
}

// NewHub makes a hub without links. now is the loop's clock.
func NewHub(dir *Directory, pool *buffer.Pool, now *int64) *Hub {
	h := &Hub{Pool: pool, now: now, dir: dir, shared: map[*topic]struct{}{}, Needed: func() {}, Later: func(fn func()) { fn() }}
	for k := range h.topics {
		h.topics[k] = map[string]*topic{}
	}
	return h
}

// Directory is what all loops subscribed.
func (h *Hub) Directory() *Directory { return h.dir }

// Active tells if links are needed.
func (h *Hub) Active() bool {
	return len(h.topics[Channel])+len(h.topics[Pattern])+len(h.topics[Shard]) > 0 || len(h.waiting) > 0
}

// Memory is what all subscriptions take, about, in bytes.
func (h *Hub) Memory() int64 { return h.bytes }

// Stats returns the counters.
func (h *Hub) Stats() Stats { return h.stats }

// Deliver gives a push of a server to the clients it is for. whole, if not nil,
// holds exactly the push; it is used up.
func (h *Hub) Deliver(frame []byte, whole *buffer.Chunk) {
	m := Message{pool: h.Pool, frame: frame}
	switch {
	case whole == nil:
	case len(frame) >= shareSize && cap(whole.B) <= 2*len(frame):
		m.whole = whole
	default: // it would keep much that is empty
		defer h.Pool.Put(whole)
	}
	if k, name, ok := classify(frame); ok {
		h.stats.Messages++
		if t := h.topics[k][string(name)]; t != nil {
			h.stats.Deliveries += uint64(len(t.members))
			for _, member := range t.members {
				member.to.Push(&m)
			}
		}
	}
	m.release()
}

// join makes a client a member of a topic.
func (h *Hub) join(m *Member, t *topic) {
	if _, already := m.sets[t.kind][t]; already {
		return
	}
	if m.sets[t.kind] == nil {
		m.sets[t.kind] = map[*topic]int{}
	}
	if m.Total() == 0 {
		h.stats.Subscribers++
	}
	h.stats.Subscriptions++
	m.sets[t.kind][t] = len(t.members)
	t.members = append(t.members, m)
	t.refs++
	h.charge(m, t, 1)
	loops := 0
	if !t.counted {
		t.counted, loops = true, 1
	}
	h.dir.add(t.kind, t.name, 1, loops, 0)
}

// part ends a membership. It returns true when nobody uses the topic any more:
// then it is to be dropped.
func (h *Hub) part(m *Member, t *topic) (unused bool) {
	place := m.sets[t.kind][t]
	delete(m.sets[t.kind], t)
	last := len(t.members) - 1
	moved := t.members[last]
	t.members[last] = nil
	t.members = t.members[:last]
	if place != last {
		t.members[place] = moved
		moved.sets[t.kind][t] = place
	}
	h.stats.Subscriptions--
	if m.Total() == 0 {
		h.stats.Subscribers--
	}
	h.charge(m, t, -1)
	if _, uncounted := m.leaving[t]; uncounted {
		delete(m.leaving, t)
	} else {
		h.dir.add(t.kind, t.name, -1, 0, 0)
	}
	t.clients--
	t.refs--
	return t.refs == 0
}

func (h *Hub) charge(m *Member, t *topic, sign int) {
	n := sign * (memberBytes + len(t.name))
	m.bytes += n
	h.bytes += int64(n)
}

// topicOf returns the topic of a name, which it makes if need be.
func (h *Hub) topicOf(k Kind, name []byte) *topic {
	t := h.topics[k][string(name)]
	if t == nil {
		t = &topic{name: string(name), kind: k, slot: slot.Of(name)}
		if !h.Active() {
			h.wake()
		}
		h.topics[k][t.name] = t
		h.bytes += int64(topicBytes + len(t.name))
	}
	return t
}

// wake is called when links are needed that were not.
func (h *Hub) wake() {
	for _, link := range h.links {
		if !link.synced {
			link.since = *h.now // nobody tried until now
		}
	}
	h.Needed()
}

// hold counts one more use of a topic. It returns true for the first: then the
// servers must be asked for it.
func (h *Hub) hold(t *topic) (first bool) {
	if t.refs++; t.refs > 1 {
		return false
	}
	if t.kind == Shard {
		t.at = h.linkOf(t.slot)
	}
	return true
}

// want asks the servers for topics of one kind that were not wanted before.
func (h *Hub) want(k Kind, topics []*topic) {
	if len(topics) == 0 {
		return
	}
	h.ask(verbs[k].on, k, topics)
}

// ask sends a command about topics of one kind to the servers that are concerned.
func (h *Hub) ask(verb string, k Kind, topics []*topic) {
	if k != Shard {
		for _, link := range h.links {
			link.ask(verb, topics...)
		}
		return
	}
	byLink := map[*Link][]*topic{}
	for _, t := range topics {
		byLink[t.at] = append(byLink[t.at], t)
	}
	for link, topics := range byLink {
		if link != nil {
			link.ask(verb, topics...)
		}
	}
}

// drop tells the servers of topics of one kind that nobody uses any more.
func (h *Hub) drop(k Kind, topics []*topic) {
	if len(topics) == 0 {
		return
	}
	h.ask(verbs[k].off, k, topics)
	for _, t := range topics {
		t.at = nil
		h.settle(t)
	}
}

// settle is called when nothing may be in flight about a topic any more: who
// waited for that goes on, and a topic that nobody uses is forgotten.
func (h *Hub) settle(t *topic) {
	if t.inFlight > 0 {
		return
	}
	waiters := t.waiters
	t.waiters = nil
	for _, op := range waiters {
		if op.missing--; op.missing == 0 {
			h.finish(op)
		}
	}
	if t.refs > 0 || t.inFlight > 0 || h.topics[t.kind][t.name] != t {
		return
	}
	delete(h.topics[t.kind], t.name)
	h.bytes -= int64(topicBytes + len(t.name))
	if t.counted {
		h.dir.add(t.kind, t.name, 0, -1, 0)
	}
}

// linkOf is the link of the shard that owns a slot; nil when nobody does.
func (h *Hub) linkOf(at uint16) *Link {
	if h.table == nil || h.table.Owner[at] == routing.NoShard {
		return nil
	}
	return h.links[h.table.Owner[at]]
}

// publishedAt is the link of the shard at which messages to a name are published, and
// its clients counted; nil when there is none.
func (h *Hub) publishedAt(k Kind, name []byte) *Link {
	switch {
	case h.table == nil:
		return nil
	case k == Shard:
		return h.linkOf(slot.Of(name))
	case k == Pattern:
		return h.linkOf(uint16(h.table.PatternSlot()))
	}
	return h.linkOf(uint16(h.table.ChannelSlot(name)))
}

// Apply takes another epoch: links are those of its shards, in its order. A link
// that is not among them was taken down before.
func (h *Hub) Apply(t *routing.Table, links []*Link) {
	before := h.links
	h.links, h.table, h.deleting = links, t, t.Phase == routing.Deleting
	for _, t := range h.topics[Shard] {
		if t.refs == 0 {
			continue
		}
		at := h.linkOf(t.slot)
		if at == t.at {
			continue
		}
		if t.at != nil {
			t.at.ask(verbs[Shard].off, t)
		}
		if t.at = at; at != nil {
			at.ask(verbs[Shard].on, t)
		}
	}
	h.tellElsewhere()
	if len(links) > 0 || len(before) > 0 {
		h.Recheck()
	}
}

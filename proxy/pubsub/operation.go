package pubsub

// operation is a SUBSCRIBE or UNSUBSCRIBE of one client that waits for servers.
// A client has one at a time, for the next request waits for it.
type operation struct {
	member *Member
	kind   Kind
	// topics of a SUBSCRIBE, each held once per mention; nil for UNSUBSCRIBE.
	topics []*topic
	// news are the topics that it counts its client for.
	news []*topic
	// missing topics have commands in flight.
	missing int
	started int64
	// reply is that of an UNSUBSCRIBE, which is known at once.
	reply []byte
	done  func(reply []byte)
	// ended: it was answered or given up.
	ended bool
}

var (
	lineDown     = []byte("-CLUSTERDOWN no master serves this slot; retry later\r\n")
	lineDeleting = []byte("-CLUSTERDOWN the cluster is being deleted\r\n")
)

// Subscribe makes a client listen to names. done is called with the reply, at
// once or when the servers have confirmed; with nil when the client left before.
// Until then the client has no other operation.
func (h *Hub) Subscribe(m *Member, k Kind, names [][]byte, done func(reply []byte)) {
	if h.deleting {
		done(lineDeleting)
		return
	}
	op := &operation{member: m, kind: k, done: done, started: *h.now, topics: make([]*topic, len(names))}
	m.op = op
	var fresh []*topic
	for i, name := range names {
		t := h.topicOf(k, name)
		if op.topics[i] = t; h.hold(t) {
			fresh = append(fresh, t)
		}
		if _, already := m.sets[k][t]; !already && t.latest != op {
			t.latest = op
			t.clients++
			op.news = append(op.news, t)
		}
	}
	h.want(k, fresh)
	h.tell(op.news)
	for _, t := range op.topics {
		op.await(t)
	}
	if op.missing == 0 {
		h.finish(op)
	}
}

// await makes the operation wait for what is in flight about a topic.
func (op *operation) await(t *topic) {
	if n := len(t.waiters); t.inFlight > 0 && (n == 0 || t.waiters[n-1] != op) {
		t.waiters = append(t.waiters, op)
		op.missing++
	}
}

// Depart no longer counts a client among those that listen to names; no names are
// all of the kind. It is called when the client asked to unsubscribe, which takes
// until the servers sent what was published before: a PUBLISH that comes after the
// request shall not count it.
func (h *Hub) Depart(m *Member, k Kind, names [][]byte) {
	leave := func(t *topic) {
		if _, already := m.leaving[t]; already {
			return
		}
		if m.leaving == nil {
			m.leaving = map[*topic]struct{}{}
		}
		m.leaving[t] = struct{}{}
		h.dir.add(t.kind, t.name, -1, 0, 0)
	}
	if len(names) == 0 {
		for t := range m.sets[k] {
			leave(t)
		}
		return
	}
	for _, name := range names {
		if t := h.topics[k][string(name)]; t != nil {
			if _, in := m.sets[k][t]; in {
				leave(t)
			}
		}
	}
}

// Unsubscribe makes a client listen to names no longer, at once; no names are
// all of the kind. done is called as by Subscribe, when the servers have
// confirmed: from then on they do not count it.
func (h *Hub) Unsubscribe(m *Member, k Kind, names [][]byte, done func(reply []byte)) {
	op := &operation{member: m, kind: k, done: done, started: *h.now}
	m.op = op
	verb, proto := verbs[k].off, m.to.Proto()
	var left, unused []*topic
	leave := func(t *topic) {
		left = append(left, t)
		if h.part(m, t) {
			unused = append(unused, t)
		}
	}
	switch {
	case len(names) > 0:
		for _, name := range names {
			if t := h.topics[k][string(name)]; t != nil {
				if _, in := m.sets[k][t]; in {
					leave(t)
				}
			}
			op.reply = appendConfirmation(op.reply, proto, verb, string(name), m.told(k))
		}
	case len(m.sets[k]) == 0:
		op.reply = appendNothing(nil, proto, verb, m.told(k))
	default:
		for t := range m.sets[k] {
			leave(t)
			op.reply = appendConfirmation(op.reply, proto, verb, t.name, m.told(k))
		}
	}
	h.tell(left)
	h.drop(k, unused)
	for _, t := range left {
		op.await(t)
	}
	if op.missing == 0 {
		h.finish(op)
	}
}

// Leave ends everything of a client that is going, or was reset.
func (h *Hub) Leave(m *Member) {
	if op := m.op; op != nil {
		h.end(op, nil)
	}
	m.to = nobody{}
	h.leaveSome(m)
}

// leaveStep is how many topics are left before others have their turn.
const leaveStep = 1024

// leaveSome ends some memberships of a client that is gone, the rest later.
func (h *Hub) leaveSome(m *Member) {
	left := leaveStep
	for k := range kinds {
		var parted, unused []*topic
		for t := range m.sets[k] {
			if left--; left < 0 {
				break
			}
			parted = append(parted, t)
			if h.part(m, t) {
				unused = append(unused, t)
			}
		}
		h.tell(parted)
		h.drop(k, unused)
	}
	if m.Total() > 0 {
		h.Later(func() { h.leaveSome(m) })
	}
}

// nobody is the receiver of a client that is gone.
type nobody struct{}

func (nobody) Proto() int    { return 2 }
func (nobody) Push(*Message) {}

// finish answers an operation whose commands were answered, unless a link that
// it needs is not there: then it waits for that.
func (h *Hub) finish(op *operation) {
	if op.ended {
		return
	}
	if op.topics == nil {
		h.end(op, op.reply)
		return
	}
	if !h.ready(op) {
		if *h.now-op.started < h.Limit {
			h.waiting = append(h.waiting, op)
			return
		}
		h.end(op, lineDown)
		return
	}
	var reply []byte
	verb, proto := verbs[op.kind].on, op.member.to.Proto()
	for _, t := range op.topics {
		h.join(op.member, t)
		reply = appendConfirmation(reply, proto, verb, t.name, op.member.told(op.kind))
	}
	op.joined()
	h.end(op, reply)
}

// end answers an operation and lets go of what it held.
func (h *Hub) end(op *operation, reply []byte) {
	op.ended = true
	op.member.op = nil
	for _, t := range op.news {
		t.clients--
	}
	h.tell(op.news)
	op.joined()
	var unused []*topic
	for _, t := range op.topics {
		if t.refs--; t.refs == 0 {
			unused = append(unused, t)
		}
	}
	h.drop(op.kind, unused)
	op.done(reply)
}

// joined: the client that the operation counted is a member, or not counted any more.
func (op *operation) joined() {
	for _, t := range op.news {
		if t.latest == op {
			t.latest = nil
		}
	}
	op.news = nil
}

// ready tells if an operation may be confirmed: its links have everything. A channel
// or a pattern is there for any of them, so it is enough when one has and the others
// are away, or have been waited for; they are asked when they come up. A shard
// channel is of its shard alone.
func (h *Hub) ready(op *operation) bool {
	if op.kind == Shard {
		for _, t := range op.topics {
			if t.at == nil || !t.at.synced {
				return false
			}
		}
		return true
	}
	some := false
	for _, link := range h.links {
		switch {
		case link.synced:
			some = true
		case !link.absent() && *h.now-op.started < h.Patience:
			return false
		}
	}
	return some
}

// Recheck looks again at operations that wait for links. It is called when a
// link changed, and now and then, because patience ends.
func (h *Hub) Recheck() {
	if len(h.waiting) == 0 {
		return
	}
	waiting := h.waiting
	h.waiting = nil
	for _, op := range waiting {
		if op.ended {
			continue
		}
		if h.deleting {
			h.end(op, lineDeleting)
			continue
		}
		h.finish(op)
	}
}

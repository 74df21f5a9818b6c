package pubsub

// What the servers are told of clients beyond the first one of a loop (census.go).

// telling is what changes at one link.
type telling struct {
	on, off []string
	topics  []*topic
}

// tell tells the servers how many clients topics have now.
func (h *Hub) tell(topics []*topic) {
	var at map[*Link]*telling
	for _, t := range topics {
		surplus := max(t.clients-1, 0)
		if surplus == t.surplus {
			continue
		}
		if at == nil {
			at = map[*Link]*telling{}
		}
		if t.surplus == 0 {
			h.shared[t] = struct{}{}
			t.toldAt = h.publishedAt(t.kind, []byte(t.name))
		}
		if surplus == 0 {
			delete(h.shared, t)
		}
		if t.kind == Pattern && (t.surplus == 0 || surplus == 0) {
			h.signature.change(t.name, surplus > 0)
		}
		h.dir.add(t.kind, t.name, 0, 0, surplus-t.surplus)
		change := tellingAt(at, t.toldAt)
		change.bits(t, bitsOf(t.surplus), bitsOf(surplus))
		change.topics = append(change.topics, t)
		t.surplus = surplus
	}
	if at == nil {
		return
	}
	h.sign(at)
	h.send(at)
}

// tellElsewhere follows the places where names are counted to the present table's.
func (h *Hub) tellElsewhere() {
	at := map[*Link]*telling{}
	for t := range h.shared {
		if to := h.publishedAt(t.kind, []byte(t.name)); to != t.toldAt {
			tellingAt(at, t.toldAt).bits(t, bitsOf(t.surplus), 0)
			tellingAt(at, to).bits(t, 0, bitsOf(t.surplus))
			t.toldAt = to
		}
	}
	h.sign(at)
	h.send(at)
}

// tellAll tells everything at a link that came up.
func (h *Hub) tellAll(l *Link) {
	change := &telling{}
	for t := range h.shared {
		if t.toldAt == l {
			change.bits(t, 0, bitsOf(t.surplus))
		}
	}
	if h.signedAt == l {
		eachBit(h.signed, func(bit int) { change.on = append(change.on, signatureName(bit)) })
	}
	l.tell(change)
}

func tellingAt(at map[*Link]*telling, l *Link) *telling {
	if at[l] == nil {
		at[l] = &telling{}
	}
	return at[l]
}

// bits changes those of one topic.
func (c *telling) bits(t *topic, before, now uint32) {
	eachBit(now&^before, func(bit int) { c.on = append(c.on, bitName(t.kind, bit, t.name)) })
	eachBit(before&^now, func(bit int) { c.off = append(c.off, bitName(t.kind, bit, t.name)) })
}

// sign changes the signature of the patterns, if need be.
func (h *Hub) sign(at map[*Link]*telling) {
	before, to := h.signed, h.publishedAt(Pattern, nil)
	h.signed = h.signature.bits()
	if to != h.signedAt {
		if before != 0 {
			off := tellingAt(at, h.signedAt)
			eachBit(before, func(bit int) { off.off = append(off.off, signatureName(bit)) })
		}
		before, h.signedAt = 0, to
	}
	if before == h.signed {
		return
	}
	change := tellingAt(at, to)
	eachBit(h.signed&^before, func(bit int) { change.on = append(change.on, signatureName(bit)) })
	eachBit(before&^h.signed, func(bit int) { change.off = append(change.off, signatureName(bit)) })
}

func (h *Hub) send(at map[*Link]*telling) {
	for link, change := range at {
		if link != nil {
			link.tell(change)
		}
	}
}

// tell sends what changed, unless the link is down: then everything is told when it
// comes up.
func (l *Link) tell(c *telling) {
	if l.wire == nil || len(c.on)+len(c.off) == 0 {
		return
	}
	raw := appendNames(appendNames(nil, verbs[Channel].on, c.on), verbs[Channel].off, c.off)
	for _, t := range c.topics {
		t.inFlight++
	}
	l.wire.Send(append(raw, ping...), &Batch{link: l, topics: c.topics})
}

// appendNames appends commands about names, each of about batchBytes.
func appendNames(raw []byte, verb string, names []string) []byte {
	for len(names) > 0 {
		n, size := 0, 0
		for n < len(names) && size < batchBytes {
			size += len(names[n]) + 16
			n++
		}
		raw = appendBulk(appendArray(raw, n+1), verb)
		for _, name := range names[:n] {
			raw = appendBulk(raw, name)
		}
		names = names[n:]
	}
	return raw
}

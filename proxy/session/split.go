package session

import (
	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
)

// A split is a command whose keys lie in several shards (MGET, MSET, DEL …): the
// owner of its parts, one for each shard. The client's own request, the whole,
// waits in the client's order.
//
// MGET is what pages are made of, so this is a hot path: the memory of splits
// and of what finds out about the parts (scatter) is used again, and replies
// are read where they arrived.
type split struct {
	sh      *Shared
	client  *Client
	whole   *backend.Request
	replies []buffer.Queue // of the parts
	order   []int32        // the part of each key
	keys    int
	read    []fanout.Reader
	waiting int
	next    *split // free
	// long is the request that this is a batch of, following the next batch of it.
	long      *longSplit
	following *split
}

// scatter is how the keys of a request spread over the shards.
type scatter struct {
	parts  []scattered
	order  []int32 // the part of each key
	partOf []int32 // of a shard, plus 1; 0 for none
}

// scattered are the keys of one shard.
type scattered struct {
	slot, shard int // shard is -1 when nobody owns the slot
	keys        int
	raw         []byte
}

// keptScratch bounds what is kept of the memory for one part, in bytes, and
// keptOrder that for a key each.
const (
	keptScratch = 64 << 10
	keptOrder   = 16 << 10
)

// split serves a command whose keys may lie in several shards. It uses up the
// chunk, which holds the request if it is not nil.
func (c *Client) split(spec *command.Spec, args [][]byte, raw []byte, chunk *buffer.Chunk) bool {
	sh := c.sh
	at, line := spec.Slot(args)
	crosses := at == command.ManySlots && sh.Table.OneShard
	if crosses {
		at = spec.FirstSlot(args)
	}
	if line == nil && at < 0 && isLong(len(args), len(raw)) && (c.tracking == nil || !c.tracks(spec)) {
		c.splitLong(spec, args, raw, chunk)
		return true
	}
	defer c.release(chunk)
	if line != nil {
		c.answer(spec, line)
		return true
	}
	s := &sh.scatter
	if at < 0 {
		sh.keys = spec.Keys(args, sh.keys[:0])
		if s.sort(sh, args); len(s.parts) == 1 {
			at = s.parts[0].slot
		}
	}
	if at >= 0 || len(s.parts) == 0 {
		if raw[0] != '*' {
			raw = sh.encode(args)
		}
		r := c.forward(spec, max(at, 0))
		if crosses {
			c.cross(r)
		}
		if c.tracking != nil && c.tracks(spec) {
			raw = c.tracked(r, raw)
		}
		sh.Router.Route(r, raw)
		return true
	}
	s.write(sh, args, widthOf(spec))
	whole := c.begin(spec)
	whole.ReadOnly, whole.Replica = spec.ReadOnly, c.fromReplica(spec)
	c.sendParts(c.newSplit(whole, s), s)
	return true
}

// sendParts sends each part of a split.
func (c *Client) sendParts(m *split, s *scatter) {
	sh, spec := c.sh, m.whole.Spec
	for i := range s.parts {
		p := &s.parts[i]
		r := sh.part(m.whole, m)
		r.Part, r.Slot = int32(i), int32(p.slot)
		r.ReadOnly, r.Replica = m.whole.ReadOnly, m.whole.Replica
		if spec.Write {
			c.touch(p.slot)
		}
		raw := p.raw
		if c.tracking != nil && c.tracks(spec) {
			raw = c.tracked(r, raw)
		}
		sh.Router.Route(r, raw)
		if cap(p.raw) > keptScratch {
			p.raw = nil
		}
	}
}

// sort finds the part of each key in sh.keys.
func (s *scatter) sort(sh *Shared, args [][]byte) {
	if n := len(sh.Table.Shards); len(s.partOf) < n {
		s.partOf = make([]int32, n)
	}
	s.parts, s.order = s.parts[:0], s.order[:0]
	if cap(s.order) > keptOrder {
		s.order = nil
	}
	for _, k := range sh.keys {
		at := int(slot.Of(args[k]))
		p := s.part(at, sh.ownerOf(at))
		s.parts[p].keys++
		s.order = append(s.order, int32(p))
	}
	for i := range s.parts {
		if shard := s.parts[i].shard; shard >= 0 {
			s.partOf[shard] = 0
		}
	}
}

// part returns the index of the part for a shard, or for a slot that nobody
// owns.
func (s *scatter) part(at, shard int) int {
	if shard >= 0 && s.partOf[shard] > 0 {
		return int(s.partOf[shard]) - 1
	}
	if shard < 0 {
		for i := range s.parts {
			if s.parts[i].shard < 0 && s.parts[i].slot == at {
				return i
			}
		}
	}
	n := len(s.parts)
	if n < cap(s.parts) {
		s.parts = s.parts[:n+1] // with the memory of its last use
	} else {
		s.parts = append(s.parts, scattered{})
	}
	p := &s.parts[n]
	p.slot, p.shard, p.keys = at, shard, 0
	if shard >= 0 {
		s.partOf[shard] = int32(n) + 1
	}
	return n
}

// write writes the request of each part.
func (s *scatter) write(sh *Shared, args [][]byte, width int) {
	for i := range s.parts {
		p := &s.parts[i]
		p.raw = redcon.AppendArray(p.raw[:0], 1+width*p.keys)
		p.raw = redcon.AppendBulk(p.raw, args[0])
	}
	for i, k := range sh.keys {
		p := &s.parts[s.order[i]]
		for _, arg := range args[k : k+width] {
			p.raw = redcon.AppendBulk(p.raw, arg)
		}
	}
}

// newSplit begins a command of several parts.
func (c *Client) newSplit(whole *backend.Request, s *scatter) *split {
	sh := c.sh
	m := sh.splits
	if m == nil {
		m = &split{sh: sh}
	} else {
		sh.splits = m.next
	}
	m.client, m.whole, m.next = c, whole, nil
	whole.Relayed = true
	m.waiting, m.keys = len(s.parts), len(s.order)
	for len(m.replies) < m.waiting {
		m.replies = append(m.replies, buffer.Queue{})
	}
	m.replies = m.replies[:m.waiting]
	if m.order = m.order[:0]; whole.Spec.Name == "mget" {
		m.order = append(m.order, s.order...)
	}
	return m
}

// Reply takes a piece of the reply to a part.
func (m *split) Reply(r *backend.Request, piece []byte, last bool, _ byte) {
	r.Out.Append(&m.sh.Pool, piece)
	if !last {
		return
	}
	if r.Block != nil {
		m.client.saw(r, m.whole)
	}
	m.replies[r.Part] = r.Out
	r.Out = buffer.Queue{}
	m.sh.Requests.Put(r)
	if m.waiting--; m.waiting > 0 {
		return
	}
	if m.long != nil {
		m.long.ended()
		return
	}
	m.finish()
}

// Fail fails the whole, once every part ended.
func (m *split) Fail(r *backend.Request, line []byte) {
	r.Out.Reset(&m.sh.Pool)
	m.Reply(r, line, true, '-')
}

// finish joins the replies, completes the whole, or tells the long request that
// this is a batch of, and frees the split.
func (m *split) finish() {
	sh, c, whole, long := m.sh, m.client, m.whole, m.long
	for range m.replies {
		m.read = append(m.read, fanout.Reader{})
	}
	var refusal []byte
	size := 0
	for i := range m.replies {
		q := &m.replies[i]
		size += q.Len()
		b := q.First()
		if len(b) < q.Len() {
			b = q.Bytes() // it arrived in pieces
		}
		if m.read[i] = fanout.NewReader(b); m.read[i].Refused() && refusal == nil {
			refusal = b
		}
	}
	var err error
	var sum int64
	reply := sh.text[:0]
	switch {
	case refusal != nil:
		reply = append(reply, refusal...)
	case whole.Owner == nil: // the client left meanwhile
	case whole.Spec.Name == "mget":
		if long == nil {
			reply = redcon.AppendArray(reply, len(m.order))
		}
		reply, err = fanout.Interleave(reply, m.order, m.read, m.spill)
	case whole.Spec.Name == "mset":
		if err = m.allOK(); long == nil {
			reply = append(reply, lineOK...)
		}
	default:
		if sum, err = m.sum(); long == nil {
			reply = redcon.AppendInt(reply, sum)
		}
	}
	if long != nil {
		long.measure(m.keys, size)
		long.took(reply, sum, refusal, err)
	} else if err != nil {
		whole.Out.Reset(&sh.Pool)
		reply = append(append(append(reply[:0], "-ERR "...), err.Error()...), "\r\n"...)
	}
	if sh.text = reply; cap(reply) > 4*keptScratch {
		sh.text = nil
	}
	for i := range m.replies {
		m.replies[i].Reset(&sh.Pool)
		m.read[i] = fanout.Reader{}
	}
	m.read = m.read[:0]
	if cap(m.order) > keptOrder {
		m.order = nil
	}
	m.client, m.whole, m.long, m.following = nil, nil, nil, nil
	m.next, sh.splits = sh.splits, m
	if long == nil {
		c.Complete(whole, reply)
	}
}

// spill moves what there is of a large reply to the memory of the request.
func (m *split) spill(reply []byte) []byte {
	if len(reply) < keptScratch {
		return reply
	}
	if m.long != nil {
		m.long.add(reply)
	} else {
		m.whole.Out.Append(&m.sh.Pool, reply)
	}
	return reply[:0]
}

func (m *split) allOK() error {
	for i := range m.read {
		if string(m.read[i].Rest()) != string(lineOK) {
			return fanout.ErrReply
		}
	}
	return nil
}

func (m *split) sum() (sum int64, err error) {
	for i := range m.read {
		n, err := fanout.Integer(m.read[i].Rest())
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

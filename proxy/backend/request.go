package backend

import (
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
)

// Owner is who sent a request and takes its reply: a client, or the merge of a
// command that was split.
type Owner interface {
	// Reply takes a piece of the reply to r; last says that it is the last one.
	// kind is the first byte of the reply. After the last piece r belongs to the
	// owner alone. The piece is only valid during the call.
	Reply(r *Request, piece []byte, last bool, kind byte)
	// Fail ends r without a reply of the server; line is a complete RESP error.
	// After it r belongs to the owner alone.
	Fail(r *Request, line []byte)
}

// Request is one command on its way. It stands in at most one of the queues
// of a Conn or a Hold, and in the order of its client. It is made by Requests
// and given back by its Owner.
type Request struct {
	// Owner takes the reply; nil when nobody waits for it any more.
	Owner Owner
	// Spec of the command; nil for those of the proxy itself.
	Spec *command.Spec
	// Start is when it was parsed, in nanoseconds of the loop's clock.
	Start int64
	// HeldSince is when it was first held; 0 when it never was.
	HeldSince int64
	// Slot routes it; -1 when Shard does.
	Slot int32
	// Crosses: its keys lie in several slots, of which Slot is one. It may only be sent
	// where one shard owns all of them.
	Crosses bool
	// Shard is an index into the routing table's shards, for requests that are
	// for a shard rather than a slot.
	Shard int32
	// Part is the index of this request in the merge that owns it.
	Part int32
	// As is on whose behalf it is sent; nil for the connections that all share.
	As *Identity
	// Proto is the protocol version of the reply: 2 or 3. DB is the database it
	// works on, below command.Databases. Who makes a request for a client sets both.
	Proto, DB uint8
	// Bulk requests take the connections for what is large or many.
	Bulk bool
	// ReadOnly requests may be sent again when their connection broke, and may
	// be served by the read set when Replica is set.
	ReadOnly, Replica bool
	// Block is for a request of several commands, or one that depends on its
	// connection; else nil.
	Block *Block
	// Cursor is the tag of the master that gave out the cursor in it; 0 for one that
	// any takes. Paged: the cursor in the reply was replaced.
	Cursor uint8
	Paged  bool
	// Scripted: it runs scripts by their SHA-1, so a server that it was not meant
	// for at first may have to be given their sources.
	Scripted bool

	// Asked is the request as the client sent it, for the slow log, when it is none
	// that a server gets as it is.
	Asked []byte

	// After is what follows the reply: pushes that came when the reply, or a part
	// of it, was there, and its turn had not come. Registered: such pushes may
	// come.
	After      []byte
	Registered bool

	// Following is the next request of the same client.
	Following *Request
	// Relayed: it is answered by what servers said to other requests. Rejected: it was
	// refused before it was executed.
	Relayed, Rejected bool
	// Done: the reply is complete. Silent: it is dropped. Streamed: a part of it
	// already went to the client.
	Done, Silent, Streamed bool
	// Out is the reply, or the part that is there, until its turn comes.
	Out buffer.Queue

	next  *Request // in a Conn or a Hold
	raw   []byte   // its bytes, in chunk or, while held, its own
	chunk *buffer.Chunk
	start uint64 // position in the stream of its Conn
}

// Lanes is how many kinds of connections to one server there are, for a
// connection has one protocol version and one database, and is for bulk or not.
const (
	Lanes    = 2 * bulkLane
	bulkLane = 2 * command.Databases
)

// Lane tells which kind of connection the request needs. Lanes of database 0 are
// 0 for RESP2 and 1 for RESP3.
func (r *Request) Lane() int { return Lane(r.Proto, r.DB, r.Bulk) }

// In is the target of connections of a lane.
func (t Target) In(k LaneKey) Target {
	t.Proto, t.DB, t.Bulk = 2+k.At&1, uint8(k.At%bulkLane>>1), k.At >= bulkLane
	if t.As = k.As; t.As != nil {
		t.User = t.As.User
	}
	return t
}

// Lane of connections to the target.
func (t *Target) Lane() int { return Lane(uint8(t.Proto), t.DB, t.Bulk) }

// Lane of a protocol version and a database, for bulk or not.
func Lane(proto, db uint8, bulk bool) int {
	at := int(proto&1 | db<<1)
	if bulk {
		at |= bulkLane
	}
	return at % Lanes
}

// ForBulk is the lane for bulk beside a lane.
func ForBulk(lane int) int { return lane | bulkLane }

// Raw is the request as it is sent. It is valid while the request waits for
// its reply, including the last call of Owner.Reply.
func (r *Request) Raw() []byte { return r.raw }

// Keep gives the request bytes of its own. It is for one that was answered and
// will be sent again: its connection uses the memory of the old bytes anew, or
// gives it back to the system, as soon as the answer was taken.
func (r *Request) Keep(raw []byte) { r.raw, r.chunk = raw, nil }

// Requests makes requests and takes them back. It belongs to one loop.
type Requests struct {
	free *Request
	// Count of requests in use.
	Count int
}

// Get returns a zero request.
func (p *Requests) Get() *Request {
	p.Count++
	r := p.free
	if r == nil {
		return &Request{}
	}
	p.free = r.next
	r.next = nil
	return r
}

// Put takes back a request that stands in no queue. Its Out must be empty.
func (p *Requests) Put(r *Request) {
	p.Count--
	*r = Request{next: p.free}
	p.free = r
}

// Hold is a queue of requests that wait for a server.
type Hold struct {
	first, last *Request
	// Count of requests and their Bytes.
	Count int
	Bytes int64
}

// Push adds a request at the end. raw is copied unless the request owns it.
func (h *Hold) Push(r *Request, raw []byte) {
	h.adopt(r, raw)
	r.next = nil
	if h.last == nil {
		h.first = r
	} else {
		h.last.next = r
	}
	h.last = r
}

func (h *Hold) adopt(r *Request, raw []byte) {
	if r.chunk != nil || r.raw == nil {
		r.raw = append([]byte(nil), raw...)
		r.chunk = nil
	}
	h.Count++
	h.Bytes += int64(len(r.raw))
}

// Pop takes the oldest request out; nil when there is none.
func (h *Hold) Pop() *Request {
	r := h.first
	if r == nil {
		return nil
	}
	h.first = r.next
	if h.first == nil {
		h.last = nil
	}
	r.next = nil
	h.Count--
	h.Bytes -= int64(len(r.raw))
	return r
}

// First is the oldest request, nil when there is none.
func (h *Hold) First() *Request { return h.first }

// Prepend moves everything in front to the front of h, in its order.
func (h *Hold) Prepend(front *Hold) {
	if front.first == nil {
		return
	}
	front.last.next = h.first
	if h.last == nil {
		h.last = front.last
	}
	h.first = front.first
	h.Count += front.Count
	h.Bytes += front.Bytes
	*front = Hold{}
}

// Append moves everything in back to the end of h, in its order.
func (h *Hold) Append(back *Hold) {
	back.Prepend(h)
	*h, *back = *back, Hold{}
}

// Readdress sets Shard of requests that are for a shard rather than a slot.
func (h *Hold) Readdress(shard int32) {
	for r := h.first; r != nil; r = r.next {
		if r.Slot < 0 {
			r.Shard = shard
		}
	}
}

// Share has requests take the lanes that all share.
func (h *Hold) Share() {
	for r := h.first; r != nil; r = r.next {
		r.As = nil
	}
}

// Stamp sets HeldSince of requests that were never held before.
func (h *Hold) Stamp(now int64) {
	for r := h.first; r != nil; r = r.next {
		if r.HeldSince == 0 {
			r.HeldSince = now
		}
	}
}

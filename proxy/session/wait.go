package session

import (
	"slices"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// WAIT and WAITAOF.
//
// They ask how many replicas have what this client wrote. The client's writes
// went over connections that it shares with others, so the proxy asks the shards
// that it wrote to on connections of its own, first with a command that makes the
// server take all that was written so far for the client's, then with WAIT. The
// answer is the smallest number of any shard. A client that wrote nothing asks
// all shards that have a master.
//
// A failover may lose what replicas did not have. Redis says so by closing the
// connection to the old master; the proxy does not, so WAIT says it, once, to a
// client that wrote to a master that was replaced that way before (writes.lost).

// writes is what a client wrote, as far as WAIT is concerned: a bit for each
// writeRange slots.
type writes struct {
	slots uint64
	// lost are those whose master was replaced without being asked to wait for
	// its replicas.
	lost uint64
}

const writeRange = slot.Count / 64

// touch notes a write to a slot.
func (c *Client) touch(at int) { c.writes.slots |= 1 << (uint(at) / writeRange) }

// touchShard notes a write to a shard, by one of its slots.
func (c *Client) touchShard(i int) {
	if t := c.sh.Table; i < len(t.Shards) && t.Shards[i].Midst >= 0 {
		c.touch(t.Shards[i].Midst)
	}
}

// touchAll notes a write to all slots.
func (c *Client) touchAll() { c.writes.slots = ^uint64(0) }

// Lost is told by the loop that the master of some slots was replaced, and what
// was written there may be lost: a bit for each 256 slots.
func (c *Client) Lost(slots uint64) {
	c.writes.lost |= c.writes.slots & slots
	if k := c.blocking; k != nil && c.writes.lost != 0 && k.parts[0].Spec.Kind == command.Local {
		for _, b := range k.parts {
			if b.words != nil {
				if b.waiting != nil {
					b.waiting.Drop()
				}
				c.forgetLost()
				b.Fail(lineWritesLost) // and with it all
				return
			}
		}
	}
}

// forgetLost: the client knows.
func (c *Client) forgetLost() { c.writes = writes{slots: c.writes.slots &^ c.writes.lost} }

// SlotBits are the bits of the slots of a shard, as Lost takes them.
func SlotBits(s *slot.Set) (bits uint64) {
	for n := range slot.Count {
		if s.Has(n) {
			bits |= 1 << (uint(n) / writeRange)
		}
	}
	return bits
}

var lineWritesLost = []byte("-ERR the master of a shard that this connection wrote to was replaced by a failover; what was written there just before may be lost\r\n")

// askReplicas serves WAIT and WAITAOF. Earlier commands were answered.
func (c *Client) askReplicas(spec *command.Spec, args [][]byte, raw []byte) {
	if c.writes.lost != 0 {
		c.forgetLost()
		c.answer(spec, lineWritesLost)
		return
	}
	slots := c.writtenShards()
	if len(slots) == 0 {
		c.answer(spec, noShards)
		return
	}
	sh := c.sh
	w := &replicasAsked{client: c, whole: c.begin(spec), replies: make([][]byte, len(slots)), missing: len(slots)}
	w.whole.Relayed = true
	for i, at := range slots {
		r := sh.Requests.Get()
		r.Owner, r.Spec, r.Start, r.Proto, r.DB, r.Part, r.Slot = w, spec, sh.Now, c.proto, c.db, int32(i), int32(at)
		b := c.newBlocked(r, spec, at, args, raw)
		b.timeoutAt, b.unit = spec.Timeout(args)
		b.Deadline = b.deadline(args[b.timeoutAt])
		w.parts = append(w.parts, b)
	}
	c.wait(w.parts...)
}

// writtenShards returns one slot of each shard that the client wrote to, or of
// all that are there when there is none.
func (c *Client) writtenShards() (slots []int) {
	bits, t := c.writes.slots, c.sh.Table
	seen := make([]bool, len(t.Shards))
	if bits == 0 {
		bits = ^uint64(0)
		for i := range seen {
			seen[i] = c.sh.Router.Away(i)
		}
		if !slices.Contains(seen, false) {
			clear(seen)
		}
	}
	for at := 0; at < slot.Count; at++ {
		if bits&(1<<(uint(at)/writeRange)) == 0 {
			at += writeRange - 1
			continue
		}
		if owner := t.Owner[at]; owner != routing.NoShard && !seen[owner] {
			seen[owner] = true
			slots = append(slots, at)
		}
	}
	return slots
}

// replicasAsked is a WAIT or WAITAOF at several shards: the owner of its parts.
type replicasAsked struct {
	client  *Client
	whole   *backend.Request
	parts   []*Blocked
	replies [][]byte
	missing int
	failed  bool
}

// Reply takes the answer of a shard. An error is that of the whole at once.
func (w *replicasAsked) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	part := r.Part
	reply := w.client.sh.Collect(r, piece, last)
	if !last {
		return
	}
	w.replies[part] = reply
	w.missing--
	switch {
	case w.failed:
	case kind == '-':
		w.failed = true
		for _, b := range w.parts {
			b.drop()
		}
		w.client.Complete(w.whole, reply)
	case w.missing == 0:
		reply, err := fanout.Least(nil, w.replies)
		if err != nil {
			reply = []byte("-ERR " + err.Error() + "\r\n")
		}
		w.client.Complete(w.whole, reply)
	}
}

// Fail takes an error in place of the answer of a shard.
func (w *replicasAsked) Fail(r *backend.Request, line []byte) {
	r.Out.Reset(&w.client.sh.Pool)
	w.Reply(r, line, true, '-')
}

// role serves ROLE: to its clients the proxy is a master, its offset is the sum
// of the shards' as in INFO, and its replicas are all theirs.
func (c *Client) role(spec *command.Spec, args [][]byte) {
	c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) {
		offset, replicas, count := int64(0), []byte(nil), 0
		for _, reply := range m.replies {
			parts, err := fanout.Elements(reply)
			if err != nil || len(parts) != 3 {
				continue // a node that is no master any more
			}
			n, err := fanout.Integer(parts[1])
			if err != nil {
				return nil, err
			}
			offset += n
			own, err := fanout.Elements(parts[2])
			if err != nil {
				return nil, err
			}
			for _, one := range own {
				replicas = append(replicas, one...)
				count++
			}
		}
		dst = redcon.AppendBulkString(redcon.AppendArray(dst, 3), "master")
		dst = redcon.AppendArray(redcon.AppendInt(dst, offset), count)
		return append(dst, replicas...), nil
	})
}

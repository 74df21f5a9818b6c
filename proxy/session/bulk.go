package session

import (
	"sync/atomic"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
)

// Bulk.
//
// Goal: who asks for much does not delay those who ask for little. All clients
// of a loop share their connections to the servers, and replies come in order,
// so a reply of 512 MB, or a thousand that stand in front, is waited for by
// everybody behind it. So each lane (protocol version and database) has two
// connections: one is for bulk, which is what is large or many. A server takes
// and gives pieces of each in turn.
//
//  1. A client uses one of the two at a time. It changes over only when nothing
//     of it is in flight, for requests on two connections could overtake each
//     other: a request that belongs to bulk waits for the earlier ones (barrier),
//     and so does everything behind it.
//  2. To bulk belong: requests of bulkRequest and more; requests to slots that
//     were seen to hold something large (LargeSlots), because what a request
//     returns is not known before; clients that just got a large reply; and
//     clients with more than ordinaryDepth requests in flight: long pipelines.
//  3. A client leaves bulk when nothing of it is in flight, so at no cost, and
//     nothing speaks for bulk any more. After a large reply or a long pipeline
//     that takes bulkStay such moments, so that a client which goes on like that
//     does not wait at a barrier each time.
//  4. In bulk, a client may have as many requests in flight as it lately had
//     replies of windowBytes, and at most maxPending. So the large replies of one
//     client do not stand in the way of others by the thousand there, either. A
//     client with connections of its own (noloop.go) delays nobody and never
//     changes over; it may have ordinaryDepth, or less by the same rule.
//  5. What is large takes long to get to its server, longer when many send such to it.
//     So what a client sends behind it waits for the reply, unless both are for one
//     shard, whose connection keeps the order: a job that is announced behind its
//     payload is not seen before.
//
// While there is no connection for bulk, because it broke, is not open yet, or the
// server lets in no more, a client goes on as an ordinary one: better delayed than
// not served. What was on its way to bulk then takes the ordinary connection of that
// shard (Diverted); clients in bulk wait once for all they sent, so that nothing
// overtakes it when there is a connection for bulk again.

const (
	// bulkRequest and bulkReply are sizes in bytes.
	bulkRequest   = moveSize
	bulkReply     = 64 << 10
	ordinaryDepth = 64
	bulkStay      = 32
	// firstWindow is how many requests may be in flight in bulk at first,
	// largeWindow if their replies may be large; that is doubled each time it was
	// not enough.
	firstWindow = 256
	largeWindow = 8
	windowBytes = 8 << 20
)

// LargeSlots are the slots of which a request or reply was large lately. All
// loops share them.
type LargeSlots struct {
	count          atomic.Int64
	known, renewed [slots / 64]atomic.Uint64
}

const (
	slots = 16384
	// mostLarge is how many slots may be large for the knowledge to be of use: if
	// everything is, then nothing is.
	mostLarge = slots / 16
)

// mark notes a slot.
func (l *LargeSlots) mark(slot int) {
	bit := uint64(1) << (slot % 64)
	l.renewed[slot/64].Or(bit)
	if l.known[slot/64].Or(bit)&bit == 0 {
		l.count.Add(1)
	}
}

// has tells if a slot is noted; slot may be negative.
func (l *LargeSlots) has(slot int) bool {
	n := l.count.Load()
	return n > 0 && n <= mostLarge && slot >= 0 && l.known[slot/64].Load()&(1<<(slot%64)) != 0
}

// Age forgets the slots that were not noted since the last call. It is
// to be called every minute or so, by one goroutine or loop at a time.
func (l *LargeSlots) Age() {
	if l.count.Load() == 0 {
		return
	}
	for i := range l.known {
		recent := l.renewed[i].Swap(0)
		for old := l.known[i].Swap(recent) &^ recent; old != 0; old &= old - 1 {
			l.count.Add(-1)
		}
	}
}

// bulk is what a client knows about itself and bulk.
type bulk struct {
	// now: what is in flight, is in bulk.
	now bool
	// stay is how often it still takes bulk when nothing is in flight.
	stay uint8
	// window is how many requests may be in flight in bulk. widen: it was full.
	window uint16
	widen  bool
	// slow: it took too long for others to wait for.
	slow bool
	// large is where requests of bulkRequest and more are in flight: at one shard, as
	// placeOf tells, 0 for none; manyPlaces for several.
	large int32
	// diverted is Shared.Diverted from before all that is in flight.
	diverted uint64
	// streamed are the bytes of a reply that is passed on in pieces.
	streamed int
}

// enter chooses between bulk and the rest for a request that is about to begin:
// of a slot, or -1, and a size. It returns false when the request must wait for
// the earlier ones; the client is then stalled.
func (c *Client) enter(slot, size int) bool {
	if c.bulk.large != 0 {
		switch {
		case c.first == nil:
			c.bulk.large = 0
		case c.bulk.large != c.placeOf(slot) || c.bulk.large == manyPlaces:
			c.stalled, c.barrier = true, true
			return false
		}
	}
	if !c.enterLane(slot, size) {
		return false
	}
	if size >= bulkRequest {
		c.bulk.large = c.placeOf(slot)
	}
	return true
}

// manyPlaces are those of a request for several shards, or any.
const manyPlaces = -1

// placeOf is the shard of a slot.
func (c *Client) placeOf(slot int) int32 {
	if slot < 0 {
		return manyPlaces
	}
	return int32(c.sh.Table.Owner[slot]) + 1
}

// enterLane chooses the connection.
func (c *Client) enterLane(slot, size int) bool {
	if c.as.IsPrivate() {
		return true // it delays nobody else
	}
	if c.first == nil {
		c.bulk.diverted = c.sh.Diverted
	} else if c.bulk.now && c.bulk.diverted != c.sh.Diverted {
		c.stalled, c.barrier = true, true
		return false
	}
	large := c.sh.Large.has(slot)
	if size < bulkRequest && c.bulk.stay == 0 && !large {
		if c.first == nil {
			c.bulk.now = false
		}
		return true
	}
	if size >= bulkRequest && slot >= 0 {
		c.sh.Large.mark(slot)
	}
	if large && c.first == nil {
		c.bulk.window = min(c.bulk.window, largeWindow)
	}
	return c.enterBulk(slot)
}

func (c *Client) enterBulk(slot int) bool {
	b := &c.bulk
	if c.first == nil {
		if b.stay > 0 {
			b.stay--
		}
		b.now = c.sh.Router.Bulk(slot, c.proto, c.db)
		return true
	}
	if b.now || !c.sh.Router.Bulk(slot, c.proto, c.db) {
		return true
	}
	c.stalled, c.barrier = true, true
	return false
}

// window is how many requests of the client may be in flight.
func (c *Client) window() int {
	switch {
	case c.bulk.now:
		return int(c.bulk.window)
	case c.as.IsPrivate():
		return min(int(c.bulk.window), ordinaryDepth)
	}
	return ordinaryDepth
}

// full is called when so many requests are in flight and there is more.
func (c *Client) full() {
	c.stalled = true
	b := &c.bulk
	if b.now || c.as.IsPrivate() {
		b.widen = true
		return
	}
	b.stay, b.window = bulkStay, max(b.window, firstWindow)
	c.barrier = c.sh.Router.Bulk(-1, c.proto, c.db)
}

// doubled is called when half of a full window was answered.
func (b *bulk) doubled() {
	b.widen = false
	b.window = min(2*b.window, maxPending)
}

// Streamed is how much of the reply that is passed on in pieces was passed on.
func (c *Client) Streamed() int {
	if c.first == nil || !c.first.Streamed {
		return 0
	}
	return c.bulk.streamed
}

// large notes that a reply was large, or is going to be.
func (c *Client) large(r *backend.Request, size int) {
	b := &c.bulk
	b.stay = bulkStay
	b.window = max(2, min(b.window, uint16(min(windowBytes/size, maxPending))))
	if r.Spec != nil && r.Spec.Kind == command.Keyed && r.Slot >= 0 && r.Block == nil {
		c.sh.Large.mark(int(r.Slot))
	}
}

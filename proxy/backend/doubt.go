package backend

import "github.com/basalt-redis/basalt/proxy/command"

// doubts are the writes that a broken connection may have carried to the server:
// for each client and slot where the last of them begins.
//
// A read that is sent again is executed behind all of them. If its client sent one
// of them after it, to the same slot, then the reply could be what the client
// wrote later: commands of one client on one slot would be reordered. So such a
// read is not sent again.
type doubts map[doubt]uint64

// doubt is a slot to which a client wrote, or one of these.
type doubt struct {
	sender any
	slot   int32
}

const (
	// anySlot is for writes to slots that are not known, or several.
	anySlot = int32(-1)
	// everySlot is for all writes of the client.
	everySlot = int32(-2)
)

// doubts finds them in the requests of the connection that has ended; written is
// the position behind the last byte that the server may have.
func (c *Conn) doubts(queue *Request, written uint64) (d doubts) {
	reads := false
	for r := queue; r != nil && r.start < written; r = r.next {
		switch {
		case r.Owner == nil || r.Spec == nil:
		case r.ReadOnly:
			reads = true
		case reads:
			sender := c.host.Sender(r.Owner)
			if sender == nil {
				continue
			}
			if d == nil {
				d = doubts{}
			}
			d[doubt{sender, everySlot}] = r.start
			d[doubt{sender, slotOf(r)}] = r.start
		}
	}
	return d
}

// behind tells if the sender of a read wrote to its slot behind it.
func (d doubts) behind(host Host, read *Request) bool {
	if d == nil {
		return false
	}
	sender := host.Sender(read.Owner)
	slot := slotOf(read)
	if slot == anySlot {
		return d[doubt{sender, everySlot}] > read.start
	}
	return d[doubt{sender, slot}] > read.start || d[doubt{sender, anySlot}] > read.start
}

// slotOf is the slot that a request is about, or anySlot.
func slotOf(r *Request) int32 {
	if r.Slot < 0 || r.Crosses || r.Spec.Kind != command.Keyed {
		return anySlot
	}
	return r.Slot
}

package session

import (
	"bytes"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/resp"
)

// A reread is a transaction that only reads, and that the server would not queue.
//
// While its memory is short, a server queues nothing between MULTI and EXEC, but
// EXEC executes what was queued before, if that only reads. Behind the proxy the
// server gets the commands with EXEC. When it had said QUEUED to each (rehearsal)
// and refuses them now for want of memory, they are read all the same:
//
//  1. On a connection of the client's own: WATCH of their keys, the commands
//     themselves, and an empty transaction.
//  2. If that one is executed, nothing has changed since WATCH: what was read is
//     the state of one instant, and becomes the reply to EXEC.
//  3. Else all of it is done again, a few times; in the end the refusal stands.
//
// The client's next commands wait. When it sent some already they may be executed
// by now, so the refusal stands; and so it does for a client that tracks, since
// what it reads here the server would not remember.
type reread struct {
	client  *Client
	whole   *backend.Request
	refusal []byte
	pin     Pinned
	// parts are the requests: WATCH, the commands, MULTI and EXEC.
	parts   [][]byte
	replies [][]byte
	waiting int
	tries   int
}

// rereadTries is how often others may change what is read.
const rereadTries = 8

var abortedForMemory = []byte("-EXECABORT Transaction discarded because of: OOM ")

// onlyReads tells if a command that was queued may be executed without MULTI: it
// reads, does not wait, and keeps nothing.
func onlyReads(spec *command.Spec) bool {
	switch spec.Kind {
	case command.Keyed, command.Split:
		return spec.ReadOnly && !spec.Blocking
	}
	return spec.Name == "ping" || spec.Name == "echo" || spec.Name == "time"
}

// mayReread keeps the bytes of a transaction, in case that the server refuses it.
func (t *transaction) mayReread(r *backend.Request, block []byte) {
	if t.readOnly && !t.unseen && t.pin == nil && t.slot >= 0 && len(t.asides) == 0 && len(block) < moveSize {
		r.Block.Reads = bytes.Clone(block)
	}
}

// readAgain begins a reread of r when that is what its reply asks for; it returns
// false when the reply is the client's.
func (c *Client) readAgain(r *backend.Request, reply []byte) bool {
	block := r.Block.Reads
	r.Block.Reads = nil
	if !bytes.HasPrefix(reply, abortedForMemory) || r != c.last || c.tracking != nil || c.Closed {
		return false
	}
	x := &reread{client: c, whole: r, refusal: bytes.Clone(reply)}
	if !x.prepare(block) {
		return false
	}
	pin, line := c.sh.Router.Pin(int(r.Slot), r.Proto)
	if line != nil {
		return false
	}
	if x.pin = pin; r.Crosses {
		pin.Cross()
	}
	c.waitForAll()
	x.send()
	return true
}

// prepare makes the requests from the bytes of the transaction.
func (x *reread) prepare(block []byte) bool {
	watch, keys := [][]byte{[]byte("WATCH")}, []int(nil)
	x.parts = [][]byte{nil}
	var scan resp.Scanner
	for first := true; len(block) > 0; first = false {
		n, err := scan.Scan(block, &anyLimits, true)
		if n == 0 || err != nil {
			return false
		}
		args, err := resp.Args(block[:n], nil)
		if err != nil {
			return false
		}
		if spec, _ := command.Lookup(args); spec != nil && !first && n < len(block) {
			if !onlyReads(spec) {
				return false
			}
			keys = spec.Keys(args, keys[:0])
			for _, at := range keys {
				watch = append(watch, args[at])
			}
			x.parts = append(x.parts, block[:n])
		}
		block = block[n:]
	}
	x.parts[0] = appendCommand(nil, watch)
	x.parts = append(x.parts, rawMulti, rawExec)
	return len(watch) > 1
}

// send sends all of it.
func (x *reread) send() {
	x.tries++
	x.waiting, x.replies = len(x.parts), make([][]byte, len(x.parts))
	for i, raw := range x.parts {
		r := x.client.sh.part(x.whole, x)
		r.Part, r.Slot, r.ReadOnly = int32(i), x.whole.Slot, true
		r.Block = &backend.Block{Lost: nullRESP2Array}
		x.pin.Send(r, raw)
	}
}

// Reply takes a piece of the reply to a part.
func (x *reread) Reply(r *backend.Request, piece []byte, last bool, _ byte) {
	part := r.Part
	reply := x.client.sh.Collect(r, piece, last)
	if !last {
		return
	}
	x.replies[part] = reply
	if x.waiting--; x.waiting == 0 {
		x.ended()
	}
}

// Fail ends a part that was not answered.
func (x *reread) Fail(r *backend.Request, line []byte) {
	r.Out.Reset(&x.client.sh.Pool)
	x.Reply(r, line, true, '-')
}

func (x *reread) ended() {
	end := len(x.parts) - 1
	exec := x.replies[end]
	changed := bytes.Equal(exec, nullRESP2Array) || bytes.Equal(exec, nullRESP3)
	if changed && x.tries < rereadTries && x.whole.Owner != nil {
		x.send()
		return
	}
	reply := x.refusal
	if read := x.replies[1 : end-1]; bytes.Equal(exec, lineEmpty) && bytes.Equal(x.replies[0], lineOK) {
		reply = redcon.AppendArray(nil, len(read))
		for _, element := range read {
			reply = append(reply, element...)
		}
	}
	x.pin.Release(false)
	x.client.Complete(x.whole, reply)
}

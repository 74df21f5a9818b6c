package session

import (
	"bytes"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
)

// A rehearsal asks the server what it says to a command that is queued between
// MULTI and EXEC: whether memory is short, a script runs too long, the disk is
// full, too few replicas are there.
//
//  1. The command is sent to the shard of the transaction between MULTI and
//     DISCARD, as one block over the connection that all clients share. The
//     server checks it as it checks every command that it queues, and forgets it.
//  2. QUEUED, or the server's error, is the reply to the client. After an error
//     EXEC answers EXECABORT.
//  3. The client's next command waits for that reply.
//
// It is only done for a client that reads each reply before it sends what
// follows, as people and tests do. One that sent more already cannot act on the
// reply, and would wait for nothing: it gets QUEUED at once, and the server's
// reason with the reply to EXEC. The same is true of large commands, which are not
// sent twice, and while the shard has no master.
type rehearsal struct {
	client *Client
	tx     *transaction
	whole  *backend.Request
}

// rehearses tells if a command that was queued is shown to the server now.
func (c *Client) rehearses(spec *command.Spec, raw []byte) bool {
	if c.behind > 0 || c.mode != replyOn || c.tx.slot < 0 || len(raw) >= moveSize || spec.Kind != command.Keyed && spec.Kind != command.Split {
		return false
	}
	owner := c.sh.ownerOf(c.tx.slot)
	return owner >= 0 && !c.sh.Table.Shards[owner].Held()
}

// rehearse answers a command that was queued with what the server says to it.
func (c *Client) rehearse(spec *command.Spec, args [][]byte, raw []byte) {
	sh := c.sh
	if raw[0] != '*' {
		raw = sh.encode(args)
	}
	whole := c.begin(spec)
	whole.Relayed = true
	r := sh.Requests.Get()
	r.Owner, r.Spec, r.Start = &rehearsal{client: c, tx: c.tx, whole: whole}, spec, sh.Now
	r.Proto, r.DB, r.Slot, r.ReadOnly = c.proto, c.db, int32(c.tx.slot), true
	r.Block, r.Crosses = &backend.Block{Before: 2, Lost: lineOK}, c.tx.crosses
	block := sh.Pool.Get(len(backend.RehearsalBegin) + len(raw) + len(backend.RehearsalEnd))
	block.B = append(append(append(block.B, backend.RehearsalBegin...), raw...), backend.RehearsalEnd...)
	sh.Router.Route(r, block.B)
	sh.Pool.Put(block)
	c.waitForAll()
}

// Reply takes the reply to DISCARD, before which the server told what it says to
// the command.
func (h *rehearsal) Reply(r *backend.Request, _ []byte, last bool, _ byte) {
	if last {
		h.end(r, r.Block.Refusal())
	}
}

// Fail is for a server that is busy or did not answer: then EXEC will tell.
func (h *rehearsal) Fail(r *backend.Request, line []byte) {
	if !bytes.HasPrefix(line, prefixBusy) {
		line = nil
	}
	h.end(r, line)
}

func (h *rehearsal) end(r *backend.Request, refusal []byte) {
	c := h.client
	line := lineQueued
	if refusal != nil {
		line = refusal
		if c.tx == h.tx {
			c.abort()
		}
	}
	c.sh.Requests.Put(r)
	c.Complete(h.whole, line)
}

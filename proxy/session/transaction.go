package session

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
)

// Transactions: MULTI, EXEC, DISCARD, WATCH and UNWATCH.
//
// Goal: what a client sees is what one Redis would have answered, and the
// commands of a transaction run on one server with nothing in between, without
// a connection of the client's own.
//
//  1. From MULTI on, commands are checked as Redis checks them when it queues
//     (name, arity, whether they may be in a transaction) and, because the
//     transaction goes to one shard, that all keys lie in one slot, unless there is
//     only one shard (crossing.go). The reply
//     is QUEUED or the error; after an error EXEC answers EXECABORT, and nothing
//     more is kept.
//  2. Their bytes are appended to one piece of memory of the pool that begins
//     with MULTI: it counts for the memory budget, and is at most as long as one
//     request may be.
//  3. EXEC ends the piece, which is routed as one request (backend.Block) to
//     the slot's shard over the connection that all clients share. So everything
//     true of a request is true of the transaction: it is held while the shard
//     has no master, goes to one master whole, delays the ack of an epoch until
//     it is answered, and is never sent again when it may have been executed.
//     Of the server's replies only the one to EXEC is passed on.
//  4. WATCH needs a server connection of the client's own (Pinned), to the
//     master of the slot, as the server keeps the watched keys per connection.
//     WATCH waits for earlier commands and delays later ones until it was
//     answered, for these go over the shared connection and could overtake it;
//     so does the EXEC that follows. Reads of a client that watches go to the
//     master: a replica may be older than WATCH. An epoch that takes the slot or
//     its master away, and a break of the connection, count as a change of the
//     watched keys: EXEC returns null.
//  5. Commands that the shard cannot answer are put aside and run when the
//     server executed the rest (execution).
//
// What may be lost: as with any command, the reply, when the connection breaks
// after the bytes were sent; the client is told so.
//
// PUBLISH and SPUBLISH in a transaction return the server's number, which counts
// each loop of a proxy that listens once, however many clients it serves.
// SUBSCRIBE and its kin are refused when queued: they wait for all shards.
//
// A refusal by the server itself (out of memory) is told at queueing to a client
// that waits for each reply (rehearsal); in a pipeline it is only seen at EXEC, with
// its reason.
type transaction struct {
	// limits of the user when MULTI was sent.
	limits *acl.Limits
	// multi: between MULTI and EXEC. Without it, only WATCH was sent.
	multi bool
	// dirty: a command could not be queued, EXEC will be refused.
	dirty bool
	// readOnly: no command changes data or publishes. unseen: the server was not
	// asked about each that has keys, or they do more than to read (reread).
	readOnly, unseen bool
	// replicates: a command may change data, or is passed on to replicas.
	// calls: a command runs a script, which may do the same.
	replicates, calls bool
	// first and last are MULTI and EXEC as the client wrote them, for those who
	// monitor the server.
	first [5]byte
	last  [4]byte
	// slot of the keys, watched ones included; -1 while there is none. crosses: some lie
	// in others.
	slot    int
	crosses bool
	// block is what is sent: MULTI and the commands so far.
	block *buffer.Chunk
	// count is the number of commands, sent those in the block.
	count, sent int
	asides      []aside
	asideBytes  int
	// selects: a SELECT is in the block.
	selects bool
	// scripted: it runs scripts or functions; scripts are those it uses.
	scripted bool
	scripts  blockScripts
	// pin is the connection that watches; nil without WATCH.
	pin Pinned
}

// Pinned is a connection to the master of a slot that serves one client.
type Pinned interface {
	// Send sends a request that has a Block, or holds it until the shard serves.
	// raw is copied. When the connection was lost, the reply is Block.Lost.
	Send(r *backend.Request, raw []byte)
	// Speak changes the protocol version of the replies to come: 2 or 3.
	Speak(proto uint8)
	// Cross says that the requests are about several slots, of which the pin's is one.
	Cross()
	// Release gives the connection back after the requests that were sent; it
	// is not used any more by the caller. clean says that the server then keeps
	// nothing of the client's.
	Release(clean bool)
}

// Bounds of what is put aside in one transaction.
const (
	maxAsides     = 1024
	maxAsideBytes = 256 << 10
)

var (
	wrongNumber     = []byte("-ERR wrong number of arguments")
	lineQueued      = []byte("+QUEUED\r\n")
	lineNested      = []byte("-ERR MULTI calls can not be nested\r\n")
	lineNoExec      = []byte("-ERR EXEC without MULTI\r\n")
	lineNoDiscard   = []byte("-ERR DISCARD without MULTI\r\n")
	lineWatchInside = []byte("-ERR WATCH inside MULTI is not allowed\r\n")
	lineNotInside   = []byte("-ERR Command not allowed inside a transaction\r\n")
	lineExecAbort   = []byte("-EXECABORT Transaction discarded because of previous errors.\r\n")
	lineEmpty       = []byte("*0\r\n")
	lineTooLong     = []byte("-ERR the transaction is longer than one request may be, it cannot be queued\r\n")
	lineTooMany     = []byte("-ERR too many commands in this transaction, or too many that the proxy answers itself\r\n")
	lineHelloInside = []byte("-ERR HELLO that changes the protocol is not supported inside MULTI behind the proxy: send it before\r\n")
	lineSelectUser  = []byte("-ERR SELECT and a script in one transaction are supported behind the proxy for users without limits only: send SELECT before MULTI\r\n")
	lineReplyInside = []byte("-ERR CLIENT REPLY is not supported inside MULTI behind the proxy: the reply of EXEC would be cut short\r\n")

	rawMulti       = []byte("*1\r\n$5\r\nMULTI\r\n")
	rawExec        = []byte("*1\r\n$4\r\nEXEC\r\n")
	nullRESP2Array = []byte("*-1\r\n")
)

// nullArray is the reply of EXEC when a watched key was touched.
func nullArray(proto uint8) []byte {
	if proto == 3 {
		return nullRESP3
	}
	return nullRESP2Array
}

// inMulti tells if commands are queued.
func (c *Client) inMulti() bool { return c.tx != nil && c.tx.multi }

// watching tells if the client has a connection that watches keys.
func (c *Client) watching() bool { return c.tx != nil && c.tx.pin != nil }

// notQueued are the commands that MULTI does not queue.
func notQueued(spec *command.Spec) bool {
	switch spec.Name {
	case "multi", "exec", "discard", "watch", "quit", "reset":
		return true
	}
	return false
}

// refuseInside is called for a command that is refused before it is looked at
// any further. It returns the reply.
func (c *Client) refuseInside(spec *command.Spec, line []byte) []byte {
	if c.inMulti() {
		c.abort()
		if spec != nil && !bytes.HasPrefix(line, wrongNumber) {
			switch spec.Name {
			case "sync", "psync", "shutdown":
				line = lineNotInside
			}
		}
	}
	if spec != nil && spec.Name == "exec" {
		c.dropTransaction()
		text := strings.TrimPrefix(strings.TrimPrefix(string(line), "-"), "ERR ")
		return []byte("-EXECABORT Transaction discarded because of: " + text)
	}
	return line
}

// transact serves the five commands of transactions outside of MULTI, and those
// of them that are not queued inside.
func (c *Client) transact(spec *command.Spec, args [][]byte, raw []byte) {
	switch spec.Name {
	case "multi":
		if c.inMulti() {
			c.showWords(args)
			c.answer(spec, lineNested)
			return
		}
		t := c.begun()
		t.multi, t.limits = true, c.limits
		copy(t.first[:], args[0])
		c.answer(spec, lineOK)
	case "discard":
		if !c.inMulti() {
			c.showWords(args)
			c.answer(spec, lineNoDiscard)
			return
		}
		c.showUnsent(args)
		c.dropTransaction()
		c.answer(spec, lineOK)
	case "unwatch":
		c.dropTransaction()
		c.answer(spec, lineOK)
	case "watch":
		c.watch(spec, args, raw)
	case "exec":
		c.exec(spec, args)
	}
}

// showUnsent tells those who monitor of a transaction that no server gets.
func (c *Client) showUnsent(end [][]byte) {
	c.showWords([][]byte{c.tx.first[:]})
	c.showWords(end)
}

func (c *Client) begun() *transaction {
	if c.tx == nil {
		c.tx = &transaction{slot: command.NoSlot, readOnly: true}
	}
	return c.tx
}

// dropTransaction forgets what was queued and watched.
func (c *Client) dropTransaction() {
	t := c.tx
	if t == nil {
		return
	}
	c.tx = nil
	if t.block != nil {
		c.sh.Pool.Put(t.block)
	}
	if t.pin != nil {
		t.pin.Release(false)
	}
}

// abort makes EXEC fail. What was queued is not needed any more.
func (c *Client) abort() {
	t := c.tx
	t.dirty = true
	if t.block != nil {
		c.sh.Pool.Put(t.block)
	}
	t.block, t.asides, t.asideBytes, t.scripts = nil, nil, 0, blockScripts{}
}

// watch serves WATCH.
func (c *Client) watch(spec *command.Spec, args [][]byte, raw []byte) {
	if c.inMulti() {
		c.answer(spec, lineWatchInside)
		return
	}
	at, line := spec.Slot(args)
	crosses := at == command.ManySlots
	if crosses {
		at, line = c.crossing(spec, args)
	}
	if line == nil && c.watching() && c.tx.slot != at {
		if crosses = c.sh.Table.CrossSlot; crosses {
			at = c.tx.slot
		} else {
			c.crossed(spec)
			line = command.CrossSlot(c.tx.slot, nil, args[1])
		}
	}
	if line == nil && !c.watching() {
		var pin Pinned
		if pin, line = c.sh.Router.Pin(at, c.proto); line == nil {
			t := c.begun()
			t.pin, t.slot = pin, at
		}
	}
	if line != nil {
		c.answer(spec, line)
		return
	}
	r := c.begin(spec)
	r.Slot, r.ReadOnly = int32(at), true
	r.Block = &backend.Block{Lost: lineOK}
	if crosses {
		c.cross(r)
		c.tx.crosses = true
		c.tx.pin.Cross()
	}
	if raw[0] != '*' {
		raw = c.sh.encode(args)
	}
	c.tx.pin.Send(r, raw)
	c.waitForAll()
}

// waitForAll delays the client's next commands until all so far are answered.
func (c *Client) waitForAll() {
	if c.first != nil && !c.Closed {
		c.stalled, c.barrier = true, true
	}
}

// queue takes a command between MULTI and EXEC.
func (c *Client) queue(spec *command.Spec, args [][]byte, raw []byte) {
	t := c.tx
	line := c.sh.Busy
	if line == nil {
		line = c.admit(spec, args)
	}
	if line == nil && !t.dirty {
		line = c.enqueue(spec, args, raw)
	}
	if line == nil {
		if c.rehearses(spec, raw) {
			t.unseen = t.unseen || !onlyReads(spec)
			c.rehearse(spec, args, raw)
			return
		}
		t.unseen = t.unseen || spec.Kind != command.Local || !onlyReads(spec)
		c.answer(spec, lineQueued)
		return
	}
	c.abort()
	c.reject(spec, line)
}

// admit tells what speaks against a command in this transaction: an error line,
// or nil. It notes the slot of its keys.
func (c *Client) admit(spec *command.Spec, args [][]byte) []byte {
	sh := c.sh
	switch spec.Kind {
	case command.Keyed, command.Split, command.Script, command.AnyShard:
		at, line := spec.Slot(args)
		if bytes.HasPrefix(line, wrongNumber) {
			return nil // a key without a value: the server will say so
		}
		if line != nil {
			return line
		}
		crosses := at == command.ManySlots
		if crosses {
			if !sh.Table.CrossSlot {
				return c.refuseCrossing(spec.CrossSlot(args))
			}
			at = spec.FirstSlot(args)
		}
		if sh.keys = spec.Keys(args, sh.keys[:0]); len(sh.keys) == 0 || spec.Unbalanced(args) {
			return nil // the server will say what is wrong with it
		}
		return c.join(at, crosses, args[sh.keys[0]])
	case command.AllShards, command.ScriptAdmin:
		switch {
		case spec.Name == "debug" && !sh.Debug:
			return lineNoDebug
		case spec.Name == "save":
			return lineNotInside
		}
		if handlingOf(spec) != refused {
			return nil
		}
	case command.PubSub:
		if spec.Name == "spublish" {
			// Shard channels are listened to at the master of their slot.
			if line := c.join(int(slot.Of(args[1])), false, args[1]); line != nil {
				return line
			}
		}
		if handlingOf(spec) != refused {
			return nil
		}
	case command.Local:
		switch {
		case spec.Name == "hello" && len(args) > 1 && (string(args[1]) == "2" || string(args[1]) == "3") && args[1][0] != '0'+c.proto:
			return lineHelloInside
		case spec.Name == "client|reply":
			return lineReplyInside
		case handlingOf(spec) != refused:
			return nil
		}
	}
	return []byte("-ERR " + strings.ToUpper(strings.ReplaceAll(spec.Name, "|", " ")) + " is not supported inside MULTI behind the proxy: send it before or after the transaction\r\n")
}

// join makes the slot of a command that of the transaction, or one of them: the error
// line says why not.
func (c *Client) join(at int, crosses bool, key []byte) []byte {
	t := c.tx
	if t.slot < 0 {
		t.slot = at
	}
	if t.slot != at && !c.sh.Table.CrossSlot {
		return c.refuseCrossing(command.CrossSlot(t.slot, nil, key))
	}
	t.crosses = t.crosses || crosses || t.slot != at
	return nil
}

// refuseCrossing counts a transaction that is refused for its slots.
func (c *Client) refuseCrossing(line []byte) []byte {
	if !c.tx.dirty {
		c.crossed(specMulti)
	}
	return line
}

var specMulti = command.ByName("multi")

// enqueue adds a command.
func (c *Client) enqueue(spec *command.Spec, args [][]byte, raw []byte) []byte {
	t, sh := c.tx, c.sh
	how := handlingOf(spec)
	if spec.Name == "publish" && len(sh.Table.Shards) == 1 {
		how = alsoHere // every message is published there
	}
	if t.count >= sh.Limits.Args {
		return lineTooMany
	}
	if how != served {
		if line := t.putAside(spec, args, how); line != nil {
			return line
		}
	}
	t.count++
	if spec.Kind == command.Script {
		t.calls = true
	} else {
		t.replicates = t.replicates || spec.MayReplicate(args)
	}
	if how == aloneAfter {
		return nil
	}
	if how == passedOn {
		if server, tag, err := sh.servers(args[spec.Cursor], t.slot); err == nil {
			t.asides[len(t.asides)-1].tag = tag
			args[spec.Cursor] = strconv.AppendUint(nil, server, 10)
			raw = sh.encode(args)
		}
	}
	t.selects = t.selects || spec.Name == "select"
	if raw[0] != '*' {
		raw = sh.encode(args)
	}
	t.readOnly = t.readOnly && !spec.Write && spec.Kind != command.PubSub
	t.sent++
	if t.block != nil && len(t.block.B)+len(raw)+len(rawExec) > sh.Limits.RequestBytes {
		return lineTooLong
	}
	t.block = c.extend(t.block, raw)
	if spec.Kind == command.Script {
		t.scripted = true
		t.scripts.note(sh, spec, args)
	}
	return nil
}

// extend adds bytes to a block, which begins with MULTI.
func (c *Client) extend(block *buffer.Chunk, raw []byte) *buffer.Chunk {
	pool := &c.sh.Pool
	if block == nil {
		block = pool.Get(len(rawMulti) + len(raw) + len(rawExec))
		block.B = append(block.B, rawMulti...)
	}
	block = pool.Grow(block, len(block.B)+len(raw))
	block.B = append(block.B, raw...)
	pool.Charge(block)
	return block
}

// exec serves EXEC.
func (c *Client) exec(spec *command.Spec, args [][]byte) {
	t := c.tx
	switch {
	case !c.inMulti():
		c.showWords(args)
		c.answer(spec, lineNoExec)
		return
	case t.dirty:
		c.showUnsent(args)
		c.dropTransaction()
		c.answer(spec, lineExecAbort)
		return
	case t.count == 0 && t.pin == nil:
		c.showUnsent(args)
		c.dropTransaction()
		c.answer(spec, lineEmpty)
		return
	}
	if t.limits != c.limits && c.limits != nil {
		if line := c.recheck(t); line != nil {
			c.dropTransaction()
			c.answer(spec, line)
			return
		}
	}
	if t.crosses && !c.sh.Table.CrossSlot {
		c.crossed(specMulti)
		c.dropTransaction()
		c.answer(spec, lineAborted)
		return
	}
	if t.selects && t.scripted && c.limits != nil {
		// A server that refuses the SELECT at its end leaves the connection in a
		// database that others do not expect.
		c.dropTransaction()
		c.answer(spec, lineSelectUser)
		return
	}
	c.tx = nil
	copy(t.last[:], args[0])
	r := c.begin(spec)
	if len(t.asides) > 0 {
		if r = c.execute(t, r); r == nil {
			return // nothing of it is for a server
		}
	}
	c.sendBlock(t, r)
	if t.pin != nil || len(t.asides) > 0 {
		c.waitForAll()
	}
}

// enterBlock is enter for a transaction.
func (c *Client) enterBlock(t *transaction) bool {
	size, at := 0, t.slot
	if t.block != nil {
		size = len(t.block.B)
	}
	if len(t.asides) > 0 {
		at = command.NoSlot // some may be for other shards
	}
	return c.enter(at, size)
}

// sendBlock sends the transaction as r, and lets go of its connection.
func (c *Client) sendBlock(t *transaction, r *backend.Request) {
	sh := c.sh
	switch r.ReadOnly = t.readOnly; {
	case t.readOnly:
	case t.slot < 0 || t.crosses:
		c.touchAll()
	default:
		c.touch(t.slot)
	}
	r.Block = &backend.Block{Before: 1 + t.sent + t.homing(), Lost: nullArray(r.Proto)}
	if r.Slot = int32(t.slot); t.slot < 0 {
		sh.toAnyShard(r)
	}
	if t.crosses {
		r.Crosses = true
		c.crossed(specMulti)
	}
	block := t.block
	if t.selects {
		block = c.extend(block, selectRequest(r.DB))
	}
	block = c.extend(block, rawExec)
	copy(block.B[len(rawMulti)-len("MULTI\r\n"):], t.first[:])
	copy(block.B[len(block.B)-len("EXEC\r\n"):], t.last[:])
	t.block = nil
	t.mayReread(r, block.B)
	if t.scripts.any() {
		if t.pin == nil && c.tracking != nil && c.tracking.now {
			block = c.trackedBlock(r, block)
		}
		c.withScripts(t, r, block)
		return
	}
	c.routeBlock(t, r, block)
}

// trackedBlock puts CLIENT CACHING YES in front of a block.
func (c *Client) trackedBlock(r *backend.Request, block *buffer.Chunk) *buffer.Chunk {
	raw := c.tracked(r, block.B)
	marked := c.sh.Pool.Get(len(raw))
	marked.B = append(marked.B, raw...)
	c.sh.Pool.Charge(marked)
	c.sh.Pool.Put(block)
	return marked
}

// routeBlock sends the bytes of a transaction.
func (c *Client) routeBlock(t *transaction, r *backend.Request, block *buffer.Chunk) {
	sh := c.sh
	switch tracking := c.tracking; {
	case t.pin != nil:
		c.unkept(c.last, block.B)
		t.pin.Send(r, block.B)
		t.pin.Release(true)
	case tracking != nil && tracking.now && !t.scripts.any():
		sh.Router.Route(r, c.tracked(r, block.B))
	case len(block.B) >= moveSize:
		sh.Router.RouteChunk(r, block)
		return
	default:
		sh.Router.Route(r, block.B)
	}
	sh.Pool.Put(block)
}

// homing is the number of commands that the proxy adds to the block: a SELECT of
// the database that the connection is for.
func (t *transaction) homing() int {
	if t.selects {
		return 1
	}
	return 0
}

// toAnyShard routes a request to a shard that serves, if any, and notes what it
// may write there.
func (c *Client) toAnyShard(r *backend.Request) {
	c.sh.toAnyShard(r)
	switch {
	case !r.Spec.Write:
	case r.Slot >= 0:
		c.touch(int(r.Slot))
	default:
		c.touchShard(int(r.Shard))
	}
}

// toAnyShard of the loop: without shards it waits for the owner of some slot.
func (s *Shared) toAnyShard(r *backend.Request) {
	r.Slot, r.Shard = command.NoSlot, int32(s.servingShard())
	if len(s.Table.Shards) == 0 {
		r.Slot = 0
	}
}

// servingShard is the first that has a master and is not frozen, if any, and whose
// master is not away; those that were tried are left out.
func (s *Shared) servingShard(tried ...string) int {
	best, found := 0, false
	for i := range s.Table.Shards {
		ts := &s.Table.Shards[i]
		if ts.Held() || slices.Contains(tried, ts.ID) {
			continue
		}
		if !s.Router.Away(i) {
			return i
		}
		if !found {
			best, found = i, true
		}
	}
	return best
}

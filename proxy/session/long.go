package session

import (
	"bytes"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/resp"
)

// Requests with very many keys.
//
// Goal: a million keys in one MGET, MSET, DEL, UNLINK, EXISTS or TOUCH keep
// neither a loop nor a server for long, and take little memory beside the request
// itself.
//
//  1. The request stays where it arrived. It is taken apart by a batch of keys in
//     each wake-up, others have their turn in between; the client's next requests
//     wait until the last batch was sent, so that nothing overtakes.
//  2. First its keys are looked at until two of them lie in different slots. If
//     none do, the request goes to its shard as it is: keys of one slot are one
//     atomic command, however many.
//  3. Otherwise each batch is a split of its own: one part for each shard, which
//     is atomic there. So a request that is taken apart is atomic in each part of
//     a batch, not in all that is for a shard.
//  4. Few batches are in flight, and they have fewer keys when values are large.
//     Replies are joined in the order of the batches and passed on, so a reply of
//     any length takes little memory while the client reads; no more is asked for
//     while it does not.
//  5. An error of a part ends it: no more batches are sent, and the error is the
//     reply. What was sent before may have been executed, as with every request
//     over several shards. When a part of the reply is out already, the client is
//     closed.
//  6. A script with very many keys is looked at the same way before it goes to the
//     shard of its keys, or is refused because they lie in several slots.
//  7. Where one shard owns every slot, nothing is taken apart.
//  8. When the client leaves, reads end. Writes go on, as on a server: the request
//     had arrived.

const (
	// longArgs and longBytes are what a request over several slots may have to be
	// sent at once.
	longArgs  = 4096
	longBytes = 1 << 20
	// firstKeys, fewestKeys and mostKeys are how many keys a batch has at first, at
	// least and at most, batchBytes how long it may be, and about how long its
	// reply; batches is how many are in flight.
	firstKeys  = 128
	fewestKeys = 8
	mostKeys   = 1024
	batchBytes = 256 << 10
	batches    = 4
	// probeKeys is how many keys are looked at in one wake-up to find two slots.
	probeKeys = 8192
	// keptArgs is how many arguments the scratch of the parser keeps room for.
	keptArgs = 64 << 10
)

// longSplit is such a request. It belongs to its client (Client.long) until all of
// it was sent, then to its batches.
type longSplit struct {
	client *Client
	spec   *command.Spec
	whole  *backend.Request // nil for a script
	chunk  *buffer.Chunk    // the request; nil when all of it was sent
	name   []byte           // the command, in chunk
	pos    int              // of the next argument
	left   int              // keys
	keys   int
	before int // arguments before the keys
	width  int // arguments of one key
	batch  int // keys of the next batch
	// slot is that of all keys so far, -1 when there are several. crosses: there are, and
	// it goes to the one shard.
	slot    int
	crosses bool

	first, last *split // batches in flight, in order
	inFlight    int
	begun       bool // the header of the reply is out
	sum         int64
	refusal     []byte // the first error
}

// isLong tells if a request must not be sent at once.
func isLong(args, size int) bool { return args > longArgs || size > longBytes }

// express handles a large request without parsing all of it, if it may. chunk is
// then used up. handled is false when the request must wait for the earlier ones.
func (c *Client) express(chunk *buffer.Chunk) (mine, handled bool) {
	sh := c.sh
	args, count := resp.FirstArgs(chunk.B, sh.args[:0], fewArgs)
	sh.args = args
	if len(args) < fewArgs && len(chunk.B) <= longBytes || count < 2 || !c.open() || c.tx != nil || c.tracking != nil || sh.Pause != PauseNone {
		return false, false
	}
	spec, line := command.Lookup(args)
	switch {
	case line != nil || spec.Arity > 0 && spec.Arity != count:
		return false, false
	case spec.Kind == command.Keyed && spec.FirstKey() > 0 && !spec.Blocking:
	case spec.Kind == command.Split && isLong(count, len(chunk.B)) && (spec.Name != "mset" || count%2 == 1):
	case spec.IsScript() && count > longArgs:
		if n, ok := command.Integer(args[2]); !ok || n < 1 || n > int64(count-3) {
			return false, false
		}
	default:
		return false, false
	}
	if c.limits != nil && !c.limits.AllowsAll(spec) || c.confinement(spec, args) != nil {
		return false, false
	}
	if !c.shares() && !c.changeOver(spec) {
		return true, false
	}
	c.latest = int16(spec.ID)
	first := spec.FirstKey()
	if spec.Kind == command.Split {
		if !sh.Table.OneShard {
			if !c.enter(command.NoSlot, len(chunk.B)) {
				return true, false
			}
			c.beginLong(spec, args, count, chunk)
			return true, true
		}
		first = 1
	}
	if spec.IsScript() {
		first = 3
	}
	at := int(slot.Of(args[first]))
	if !c.enter(at, len(chunk.B)) {
		return true, false
	}
	if spec.IsScript() {
		n, _ := command.Integer(args[2])
		c.probeScript(spec, at, int(n), chunk)
		return true, true
	}
	r := c.forward(spec, at)
	if spec.Kind == command.Split {
		c.cross(r)
	}
	sh.Router.RouteChunk(r, chunk)
	return true, true
}

// fewArgs is how many arguments express looks at: no command needs more.
const fewArgs = 8

// beginLong begins a request of count arguments, of which args are the first; it
// takes the chunk.
func (c *Client) beginLong(spec *command.Spec, args [][]byte, count int, chunk *buffer.Chunk) {
	width := widthOf(spec)
	l := &longSplit{client: c, spec: spec, chunk: chunk, name: args[0], before: 1, width: width, batch: firstKeys, keys: (count - 1) / width}
	l.start()
	l.slot = int(slot.Of(args[1]))
	l.whole = c.begin(spec)
	l.whole.Slot, l.whole.ReadOnly, l.whole.Replica = int32(l.slot), spec.ReadOnly, c.fromReplica(spec)
	c.long, c.stalled = l, true
	c.yield()
}

// probeScript begins a script with n keys, of which the first lies in a slot; it
// takes the chunk.
func (c *Client) probeScript(spec *command.Spec, at, n int, chunk *buffer.Chunk) {
	l := &longSplit{client: c, spec: spec, chunk: chunk, before: 3, width: 1, keys: n, slot: at}
	l.start()
	c.long, c.stalled = l, true
	c.yield()
}

// firstKey of the request.
func (l *longSplit) firstKey() []byte {
	args, _ := resp.FirstArgs(l.chunk.B, nil, l.before+1)
	return args[l.before]
}

// start goes to the first key.
func (l *longSplit) start() {
	l.pos, l.left = bytes.IndexByte(l.chunk.B, '\n')+1, l.keys
	for range l.before {
		_, l.pos = resp.NextArg(l.chunk.B, l.pos)
	}
}

// splitLong begins a request that was parsed.
func (c *Client) splitLong(spec *command.Spec, args [][]byte, raw []byte, chunk *buffer.Chunk) {
	if chunk == nil {
		if raw[0] != '*' {
			raw = c.sh.encode(args)
		}
		chunk = c.sh.Pool.Get(len(raw))
		chunk.B = append(chunk.B, raw...)
		c.sh.Pool.Charge(chunk)
	}
	first, count := resp.FirstArgs(chunk.B, nil, 2)
	c.beginLong(spec, first, count, chunk)
}

// yield has the client resumed in the next wake-up.
func (c *Client) yield() {
	if !c.Resuming {
		c.Resuming = true
		c.sh.Router.Yield(c)
	}
}

// full tells if no batch may be sent now. Memory that is short is no reason: the
// request itself takes more than its batches, and goes away when they are sent.
func (l *longSplit) full() bool {
	c := l.client
	if l.inFlight >= batches || l.overtakes() {
		return true
	}
	switch {
	case c.Closed || l.whole == nil:
		return false
	case l.whole != c.first:
		return l.whole.Out.Len() > maxUnread/2
	}
	return c.out.Len() > maxUnread/2 && !c.mayOwe()
}

// overtakes tells if what is sent now could overtake what is in flight, because
// some of that was diverted (bulk.go).
func (l *longSplit) overtakes() bool {
	c := l.client
	if !c.bulk.now || c.bulk.diverted == c.sh.Diverted {
		return false
	}
	if l.inFlight > 0 || c.first != nil && c.first != l.whole {
		return true
	}
	c.bulk.diverted = c.sh.Diverted
	return false
}

// step does the work of one wake-up.
func (l *longSplit) step() {
	c := l.client
	switch {
	case c.Closed && l.spec.ReadOnly:
		l.sent()
		return
	case l.overtakes():
	case l.slot >= 0:
		l.probe()
	case !l.full():
		l.send()
	}
	if l.chunk != nil && !l.full() {
		c.yield()
	}
}

// probe looks for a key of another slot.
func (l *longSplit) probe() {
	c, b := l.client, l.chunk.B
	for range probeKeys {
		if l.left == 0 {
			l.forward()
			return
		}
		key, next := resp.NextArg(b, l.pos)
		for range l.width - 1 {
			_, next = resp.NextArg(b, next)
		}
		l.pos = next
		l.left--
		if int(slot.Of(key)) == l.slot {
			continue
		}
		if l.whole == nil && c.sh.Table.CrossSlot {
			l.crosses = true
			l.forward()
			return
		}
		at := l.slot
		if l.slot = -1; l.whole != nil {
			l.start()
			return
		}
		var line []byte
		if !c.Closed {
			line = command.CrossSlot(at, l.firstKey(), key)
		}
		c.sh.Pool.Put(l.chunk)
		if l.chunk, c.long = nil, nil; !c.Closed {
			c.crossed(l.spec)
			c.answer(l.spec, line)
		}
		return
	}
}

// forward sends a request whose keys all lie in one slot as it is.
func (l *longSplit) forward() {
	c, chunk, whole := l.client, l.chunk, l.whole
	l.chunk, c.long = nil, nil
	switch {
	case whole == nil && !c.Closed:
		args, _ := resp.FirstArgs(chunk.B, nil, l.before)
		c.runScript(l.spec, l.slot, l.crosses, args, chunk.B, chunk)
		return
	case whole == nil:
		whole = c.sh.Requests.Get()
		whole.Spec, whole.Start, whole.Proto, whole.DB, whole.Bulk, whole.As = l.spec, c.sh.Now, c.proto, c.db, c.bulk.now, c.as
		whole.Slot, whole.Crosses, whole.Scripted = int32(l.slot), l.crosses, true
	case l.spec.Write:
		c.touch(l.slot)
	}
	if whole.Owner == nil {
		whole.Owner = gone{c.sh}
	}
	c.sh.Router.RouteChunk(whole, chunk)
}

// send sends the next batch.
func (l *longSplit) send() {
	c := l.client
	sh, b, begin := c.sh, l.chunk.B, l.pos
	args := append(sh.args[:0], l.name)
	sh.keys = sh.keys[:0]
	for l.left > 0 && len(sh.keys) < l.batch && l.pos-begin < batchBytes {
		sh.keys = append(sh.keys, len(args))
		for range l.width {
			var arg []byte
			arg, l.pos = resp.NextArg(b, l.pos)
			args = append(args, arg)
		}
		l.left--
	}
	sh.args = args
	s := &sh.scatter
	s.sort(sh, args)
	s.write(sh, args, l.width)
	m := c.newSplit(l.whole, s)
	m.long = l
	if l.inFlight++; l.last == nil {
		l.first = m
	} else {
		l.last.following = m
	}
	l.last = m
	if l.left == 0 {
		l.sent()
	}
	c.sendParts(m, s)
}

// sent ends the part of the client: there is nothing more to send.
func (l *longSplit) sent() {
	c := l.client
	if l.chunk == nil {
		return // it was sent before
	}
	c.sh.Pool.Put(l.chunk)
	l.chunk, l.name, c.long = nil, nil, nil
	if l.inFlight == 0 {
		l.complete()
	}
}

// ended is called when all parts of a batch have ended.
func (l *longSplit) ended() {
	for m := l.first; m != nil && m.waiting == 0; m = l.first {
		if l.first = m.following; l.first == nil {
			l.last = nil
		}
		l.inFlight--
		m.finish()
	}
	switch {
	case l.refusal != nil:
		l.sent()
	case l.chunk != nil && l.client.Closed:
		l.client.yield()
	case l.chunk != nil:
		l.client.unstall()
	}
	if l.chunk == nil && l.inFlight == 0 {
		l.complete()
	}
}

// add passes on a piece of the reply to MGET.
func (l *longSplit) add(piece []byte) {
	w := l.whole
	if w.Owner == nil || len(piece) == 0 {
		return
	}
	if !l.begun {
		l.begun = true
		w.Owner.Reply(w, redcon.AppendArray(nil, l.keys), false, '*')
	}
	w.Owner.Reply(w, piece, false, '*')
}

// complete completes the whole.
func (l *longSplit) complete() {
	c, w := l.client, l.whole
	if w == nil {
		return
	}
	l.whole = nil
	switch {
	case w.Owner == nil:
		c.Complete(w, nil)
	case l.refusal != nil:
		c.Fail(w, l.refusal)
	case w.Spec.Name == "mget":
		c.Complete(w, nil)
	case w.Spec.Name == "mset":
		c.Complete(w, lineOK)
	default:
		c.Complete(w, redcon.AppendInt(nil, l.sum))
	}
}

// measure learns from the length of the replies to a batch.
func (l *longSplit) measure(keys, size int) {
	l.batch = max(min(keys*batchBytes/max(size, 1), 2*l.batch, mostKeys), fewestKeys)
}

// took takes what a batch came to: the rest of its reply, a number, or an error.
func (l *longSplit) took(reply []byte, sum int64, refusal []byte, err error) {
	switch {
	case l.refusal != nil:
	case refusal != nil:
		l.refusal = bytes.Clone(refusal)
	case err != nil:
		l.refusal = []byte("-ERR " + err.Error() + "\r\n")
	default:
		l.sum += sum
		l.add(reply)
	}
}

// memory is what the request takes, in bytes.
func (l *longSplit) memory() int64 {
	if l == nil || l.chunk == nil {
		return 0
	}
	return l.chunk.Memory()
}

// gone takes the reply to a write whose client has left.
type gone struct{ sh *Shared }

func (g gone) Reply(r *backend.Request, _ []byte, last bool, _ byte) {
	if last {
		r.Out.Reset(&g.sh.Pool)
		g.sh.Requests.Put(r)
	}
}

func (g gone) Fail(r *backend.Request, _ []byte) { g.Reply(r, nil, true, '-') }

// widthOf is how many arguments each key of a Split command has.
func widthOf(spec *command.Spec) int {
	if spec.Name == "mset" {
		return 2
	}
	return 1
}

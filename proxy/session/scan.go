package session

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// SCAN, HSCAN, SSCAN and ZSCAN. What cursors are made of, and why, is in package
// fanout (scan.go). They go to masters, whatever the read policy: a replica hashes in
// its own way.
//
// A request that waits for its master, or is sent again, may go to another one than
// its cursor was meant for. So the cursor is looked at once more when it is released
// (Shared.Renew), and a reply is always of the master in the present table: with an
// epoch that replaces it, a connection gives no more replies.
//
// In a transaction the server gets its own cursor with the others' commands, and the
// reply is taken from that of EXEC (execution.paged); if the master changed in
// between it is an empty page, from which the client begins again. In scripts cursors
// are the server's: those that a script hands out are not to be kept beyond it.

var badCursor = []byte("-ERR invalid cursor\r\n")

// tagOf is the tag of cursors of a shard's master; 0 while there is none.
func (s *Shared) tagOf(shard int) uint8 {
	if uint(shard) >= uint(len(s.Table.Shards)) {
		return 0
	}
	return CursorTag(&s.Table.Shards[shard])
}

// CursorTag is the tag of cursors of a shard's master; 0 while there is none.
func CursorTag(ts *routing.TableShard) uint8 {
	if ts.MasterIndex < 0 {
		return 0
	}
	return fanout.TagOf(ts.Term, ts.Nodes[ts.MasterIndex].Incarnation)
}

// servers is the cursor that the server gets for a client's that is about a key in
// a slot, and the tag of the master that it is for; 0 when it begins, which it may
// anywhere. An error is the server's to tell.
func (s *Shared) servers(cursor []byte, slot int) (server uint64, tag uint8, err error) {
	at, err := fanout.ParseCursor(cursor, 1)
	if err != nil || at.Server == 0 {
		return 0, 0, err
	}
	if tag = s.tagOf(s.ownerOf(slot)); tag == 0 || at.Tag != tag {
		return 0, 0, nil
	}
	return at.Server, tag, nil
}

// iterate serves HSCAN, SSCAN and ZSCAN.
func (c *Client) iterate(spec *command.Spec, slot int, args [][]byte, raw []byte) {
	sh := c.sh
	server, tag, err := sh.servers(args[spec.Cursor], slot)
	r := c.forward(spec, slot)
	r.Replica = false
	if err == nil {
		r.Owner, r.Cursor = (*page)(c), tag
		if string(args[spec.Cursor]) != "0" {
			args[spec.Cursor], raw = strconv.AppendUint(nil, server, 10), nil
		}
	}
	if len(raw) == 0 || raw[0] != '*' {
		raw = sh.encode(args)
	}
	if c.tracks(spec) {
		raw = c.tracked(r, raw)
	}
	sh.Router.Route(r, raw)
}

// Renew returns the bytes of a request that is released to a master with a tag:
// when its cursor is of another one, it begins again.
func (s *Shared) Renew(r *backend.Request, tag uint8, raw []byte) []byte {
	r.Paged = false
	if r.Cursor == 0 || r.Cursor == tag {
		return raw
	}
	r.Cursor = 0
	last := raw
	for {
		var scan resp.Scanner
		n, err := scan.Scan(last, &anyLimits, true)
		if n == 0 || err != nil {
			return raw
		}
		if n == len(last) {
			break
		}
		last = last[n:]
	}
	args, err := resp.Args(last, nil)
	if err != nil || len(args) <= r.Spec.Cursor {
		return raw
	}
	args[r.Spec.Cursor] = []byte{'0'}
	return appendCommand(slices.Clone(raw[:len(raw)-len(last)]), args)
}

// page is a Client as the owner of an HSCAN, SSCAN or ZSCAN: in the reply it puts
// the client's cursor in place of the server's.
type page Client

// Reply takes a piece of a reply.
func (o *page) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	c := (*Client)(o)
	sh := c.sh
	if kind != '*' || r.Paged {
		c.Reply(r, piece, last, kind)
		return
	}
	if r.Out.Len() > 0 {
		piece = append(r.Out.Bytes(), piece...)
		r.Out.Reset(&sh.Pool)
	}
	head, server, err := fanout.PageHead(piece)
	if head == 0 && err == nil && !last {
		r.Out.Append(&sh.Pool, piece)
		return
	}
	cursor := uint64(0)
	if err == nil {
		cursor, err = fanout.Passed(server, sh.tagOf(sh.ownerOf(int(r.Slot))))
	}
	r.Paged = true
	if err != nil || head == 0 {
		o := &unfit{client: c, err: cmp.Or(err, fanout.ErrReply)}
		r.Owner = o
		o.Reply(r, nil, last, kind)
		return
	}
	text := fanout.AppendPage(sh.text[:0], cursor)
	if last && len(piece) < keptScratch {
		text = append(text, piece[head:]...)
		sh.text = text
		c.Reply(r, text, true, kind)
		return
	}
	sh.text = text
	c.Reply(r, text, false, kind)
	c.Reply(r, piece[head:], last, kind)
}

// unfit is the owner of a request whose reply cannot be passed on.
type unfit struct {
	client *Client
	err    error
}

// Reply drops the reply and says why.
func (o *unfit) Reply(r *backend.Request, _ []byte, last bool, _ byte) {
	if last {
		o.client.Fail(r, []byte("-ERR "+o.err.Error()+"\r\n"))
	}
}

// Fail ends the request.
func (o *unfit) Fail(r *backend.Request, line []byte) { o.client.Fail(r, line) }

// Fail ends the request.
func (o *page) Fail(r *backend.Request, line []byte) { (*Client)(o).Fail(r, line) }

// scanBytes is how long a page of SCAN may be, in bytes, before the next shard
// waits for the next call.
const scanBytes = 1 << 20

// sweep is a call of SCAN. It visits shards one after the other until it has looked at
// as many keys as were asked for. So what is small comes as one page, as from one
// server, and shards without keys cost the client no call.
type sweep struct {
	client *Client
	whole  *backend.Request
	args   [][]byte
	// count is how many keys it shall look at; of shards that were visited from their
	// beginning to their end it is known how many that were, of others how many there
	// are in the page, unless filters leave some out.
	count, looked int64
	filters       bool
	// page has n keys so far.
	page []byte
	n    int
}

// scanShards serves SCAN. What follows waits: it must not come in between.
func (c *Client) scanShards(spec *command.Spec, args [][]byte, shards int) {
	at, err := fanout.ParseCursor(args[spec.Cursor], shards)
	if err != nil {
		c.answer(spec, badCursor)
		return
	}
	w := &sweep{client: c, whole: c.begin(spec), args: CloneArgs(args), count: 10}
	w.whole.ReadOnly = true
	for i := 2; i+1 < len(args); i += 2 {
		if !bytes.EqualFold(args[i], []byte("count")) {
			w.filters = true
		} else if n, ok := command.Integer(args[i+1]); ok {
			w.count = n
		}
	}
	if at.Tag != c.sh.tagOf(at.Shard) {
		at.Server = 0
	}
	w.visit(at.Shard, at.Server)
	if shards > 1 {
		c.waitForAll()
	}
}

// visit asks a shard, from a server's cursor on. At its beginning the shard is asked
// how many keys it has, too.
func (w *sweep) visit(shard int, server uint64) {
	sh := w.client.sh
	id, parts := sh.Table.Shards[shard].ID, 1
	if server == 0 && shard+1 < len(sh.Table.Shards) {
		parts = 2
	}
	m := &merge{sh: sh, client: w.client, whole: w.whole, replies: make([][]byte, parts), waiting: parts}
	m.join = func(m *merge, dst []byte) ([]byte, error) { return w.take(m, dst, id) }
	if parts > 1 {
		m.send(1, shard, rawDBSize)
	}
	w.args[w.whole.Spec.Cursor] = strconv.AppendUint(nil, server, 10)
	r := sh.part(w.whole, m)
	r.Slot, r.Shard, r.ReadOnly = command.NoSlot, int32(shard), true
	if server != 0 {
		r.Cursor = sh.tagOf(shard)
	}
	sh.Router.Route(r, appendCommand(nil, w.args))
}

// take takes the answer of a shard, and goes on or answers the client.
func (w *sweep) take(m *merge, dst []byte, id string) ([]byte, error) {
	sh := w.client.sh
	shards := len(sh.Table.Shards)
	server, n, keys, err := fanout.Page(m.replies[0])
	if err != nil {
		return dst, err
	}
	looked := int64(n)
	if len(m.replies) > 1 {
		size, err := fanout.Integer(m.replies[1])
		if err != nil {
			return dst, err
		}
		looked = max(looked, size)
	} else if w.filters {
		looked = w.count
	}
	w.looked += looked
	w.page, w.n = append(w.page, keys...), w.n+n
	at := fanout.Cursor{Shard: sh.shardNamed(id), Server: server}
	switch {
	case at.Shard < 0:
		at = fanout.Cursor{} // the shard is gone: all over again
	case server == 0:
		at.Shard++
	}
	if server == 0 && at.Shard > 0 && at.Shard < shards && w.goesOn(at.Shard) {
		w.visit(at.Shard, 0)
		return nil, nil
	}
	cursor := uint64(0)
	if at.Shard < shards {
		at.Tag = max(sh.tagOf(at.Shard), 1)
		if cursor, err = at.Encode(shards); err != nil {
			return dst, err
		}
	}
	return append(redcon.AppendArray(fanout.AppendPage(dst, cursor), w.n), w.page...), nil
}

// goesOn tells if the next shard is visited in the same call. Keys that are there
// already do not wait for a shard that is not.
func (w *sweep) goesOn(next int) bool {
	sh := w.client.sh
	return w.looked < w.count && len(w.page) < scanBytes && w.whole.Owner != nil &&
		(w.n == 0 || !sh.Table.Shards[next].Held() && !sh.Router.Away(next))
}

package session

import (
	"syscall"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
)

// Reply takes a piece of the reply to one of the client's requests. When it is
// the request's turn, the bytes go straight to the output, else they are kept.
func (c *Client) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	sh := c.sh
	if !last {
		if r.Streamed && r == c.first && !r.Silent {
			c.bulk.streamed += len(piece)
			c.out.Append(&sh.Pool, piece) // so that it fills its chunks
			c.wrote()
			return
		}
		r.Out.Append(&sh.Pool, piece)
		if r == c.first && r.Out.Len() > streamSize {
			c.stream(r)
			c.wrote()
		}
		return
	}
	if r.Block != nil && r.Block.Reads != nil && c.readAgain(r, piece) {
		return
	}
	if kind == '-' {
		c.ownError(r, piece)
	}
	sh.Router.Count(c, r, kind)
	if n := r.Out.Len() + len(piece); n >= bulkReply || r.Streamed {
		c.large(r, max(n, c.bulk.streamed))
	}
	if r.Block != nil && r.Block.Tracked {
		c.saw(r, r)
	}
	if r != c.first {
		r.Out.Append(&sh.Pool, piece)
		r.Done = true
		return
	}
	if r.Out.Len() > 0 {
		c.take(r)
	}
	if !r.Silent {
		c.out.Reserve(&sh.Pool, outputRoom)
		c.out.Append(&sh.Pool, piece)
	}
	c.pop()
	c.advance()
}

// Fail ends a request with an error line.
func (c *Client) Fail(r *backend.Request, line []byte) {
	r.Out.Reset(&c.sh.Pool)
	if r.Streamed {
		// Half a reply is out: there is no way to say that it ended.
		c.Close()
		c.sh.Requests.Put(r)
		return
	}
	if r.Relayed || r.Raw() != nil {
		c.sh.countError(line) // instead of a reply of the server
	}
	c.Reply(r, line, true, '-')
}

// Complete ends a request whose reply is in r.Out already, or of which piece
// is the rest.
func (c *Client) Complete(r *backend.Request, piece []byte) {
	if r.Owner == nil { // the client left meanwhile
		r.Out.Reset(&c.sh.Pool)
		c.sh.Requests.Put(r)
		return
	}
	kind := byte('+')
	if r.Out.Len() > 0 {
		kind = r.Out.First()[0]
	} else if len(piece) > 0 {
		kind = piece[0]
	}
	r.Owner.Reply(r, piece, true, kind)
}

// take moves what is there of a reply to the output.
func (c *Client) take(r *backend.Request) {
	if r.Silent {
		r.Out.Reset(&c.sh.Pool)
		return
	}
	if r.Out.Len() > 0 {
		c.out.Reserve(&c.sh.Pool, outputRoom)
		c.out.Take(&c.sh.Pool, &r.Out)
	}
}

// stream begins to pass on the first request's reply, which is not complete.
func (c *Client) stream(r *backend.Request) {
	r.Streamed, c.bulk.streamed = true, r.Out.Len()
	c.large(r, c.bulk.streamed)
	c.take(r)
}

// pop frees the first request, whose reply is out.
func (c *Client) pop() {
	r := c.first
	c.first = r.Following
	if c.first == nil {
		c.last = nil
	}
	c.pending--
	if r.After != nil {
		c.out.Append(&c.sh.Pool, r.After)
	}
	if r.Streamed && c.subs != nil {
		c.takeLate()
	}
	c.sh.Requests.Put(r)
}

// advance sends the replies whose turn has come.
func (c *Client) advance() {
	for c.first != nil && c.first.Done {
		c.take(c.first)
		c.pop()
	}
	if r := c.first; r != nil && r.Out.Len() > streamSize {
		// It is not complete, but large, and now it is its turn.
		c.stream(r)
	}
	c.wrote()
}

// wrote has the output flushed, and the client resumed if that helps.
func (c *Client) wrote() {
	if !c.Dirty {
		c.Dirty = true
		c.sh.Router.FlushClient(c)
	}
	if c.stalled {
		c.unstall()
	}
}

// flushMost is how many bytes one Flush writes, about: others wait meanwhile.
const flushMost = buffer.WriteMost

// Flush writes what waits, or a good part of it. left says that some is left:
// call it again when the socket is writable. full says that the socket took no
// more.
func (c *Client) Flush() (left, full bool) {
	for most := c.out.Len() - flushMost; c.out.Len() > 0; {
		n, errno := c.out.Write(&c.sh.Pool, c.FD)
		if n > 0 && errno == 0 {
			c.taken = c.sh.Now
			c.sh.BytesOut += uint64(n)
		}
		if errno == syscall.EAGAIN {
			full = true
			break
		}
		if errno != 0 && errno != syscall.EINTR {
			c.Close()
			return false, false
		}
		if c.out.Len() <= most {
			break
		}
	}
	if c.stalled {
		c.unstall()
	}
	left = c.out.Len() > 0
	if !left && c.ending && c.first == nil {
		c.Close()
	}
	return left, full
}

// Unstall asks for the client to be resumed when it was not read for lack of
// memory.
func (c *Client) Unstall() {
	if !c.Closed {
		c.unstall()
	}
}

// Memory is what the client's requests and replies take, in bytes. It walks
// its requests: not for every wake-up.
func (c *Client) Memory() int {
	n := c.out.Len()
	if c.in != nil {
		n += len(c.in.B)
	}
	if c.tx != nil && c.tx.block != nil {
		n += len(c.tx.block.B)
	}
	n += int(c.long.memory())
	for r := c.first; r != nil; r = r.Following {
		n += r.Out.Len() + len(r.Raw())
	}
	if k := c.blocking; k != nil {
		for _, b := range k.parts {
			if b.words != nil {
				n += len(b.words.B)
			}
		}
	}
	for m := c.merges; m != nil; m = m.next {
		n += m.size
	}
	if c.subs != nil {
		n += c.subs.late.Len() + c.subs.member.Memory()
	}
	return n
}

// Stuck is how many bytes of the pool will not go away while clients are not
// read: those of a request or transaction that is not complete, and replies of which the
// client took nothing since a time. It walks the replies: not for every wake-up.
func (c *Client) Stuck(since int64) (request, replies int64) {
	if c.in != nil && c.scan.Begun() {
		request = c.in.Memory()
	}
	if c.tx != nil && c.tx.block != nil {
		request += c.tx.block.Memory()
	}
	if c.taken < since {
		replies = c.out.Memory()
		if c.out.Len() > maxUnread/2 {
			replies += c.long.memory() // which waits for that
		}
	}
	return request, replies
}

// Takes tells if the client took some of its replies since a time, so that
// others may wait for it.
func (c *Client) Takes(since int64) bool { return !c.Closed && !c.bulk.slow && c.taken >= since }

// TooSlowToWaitFor: nobody will wait for this client any more.
func (c *Client) TooSlowToWaitFor() { c.bulk.slow = true }

// TooSlow tells if the client left more unread than it may.
func (c *Client) TooSlow() bool {
	if c.Subscribed() || c.Monitoring() {
		return c.out.Len()+c.subs.late.Len() > c.sh.PubSubLimit
	}
	return c.out.Len() > c.sh.ReplyLimit
}

// answer replies to a request at once.
func (c *Client) answer(spec *command.Spec, reply []byte) {
	if c.first == nil && c.mode == replyOn && spec == nil {
		if reply[0] == '-' {
			c.sh.countError(reply)
		}
		c.out.Reserve(&c.sh.Pool, outputRoom)
		c.out.Append(&c.sh.Pool, reply)
		c.wrote()
		return
	}
	c.Complete(c.begin(spec), reply)
}

// fatal tells the client what is wrong with its bytes and closes it.
func (c *Client) fatal(err error) {
	c.answer(nil, append(append([]byte("-ERR "), err.Error()...), "\r\n"...))
	c.sh.Router.Malformed(c)
	c.End()
}

// End closes the client when everything it sent was answered.
func (c *Client) End() {
	c.ending = true
	c.unpostpone()
	if c.in != nil {
		c.sh.Pool.Put(c.in)
		c.in = nil
	}
	c.wrote()
}

// Close closes the client at once. Replies to requests in flight are dropped
// when they come, so the order on the servers' connections stays.
func (c *Client) Close() {
	if c.Closed {
		return
	}
	c.Closed = true
	c.unpostpone()
	for r := c.first; r != nil; {
		next := r.Following
		r.Following = nil
		r.Out.Reset(&c.sh.Pool)
		if r.Owner = nil; r.Done {
			c.sh.Requests.Put(r)
		}
		r = next
	}
	c.first, c.last, c.pending = nil, nil, 0
	c.dropMerges()
	c.dropTransaction()
	c.dropBlocked()
	if c.long != nil {
		c.yield() // a read ends, a write goes on
	}
	if c.in != nil {
		c.sh.Pool.Put(c.in)
		c.in = nil
	}
	c.out.Reset(&c.sh.Pool)
	c.unsubscribeAll()
	c.stopTracking()
	c.wrote()
}

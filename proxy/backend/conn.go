// Package backend is the proxy's side of its connections to servers: what is on
// its way, in which order, and what became of it when a connection broke.
package backend

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"syscall"
	"unsafe"

	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/software"
)

// A Conn is the one pipelined connection of a loop to a node in one protocol
// version and one database, one of two: for bulk, or for the rest. All clients
// of the loop that want the same share it, but for those of an Identity.
//
// Goal: requests of many clients go out in one write, replies come back in the
// same order, and when the connection breaks it is known of every request
// whether the server can have executed it.
//
//  1. Enqueue copies the request into the newest chunk (large ones bring a
//     chunk of their own) and appends it to the queue of unanswered requests,
//     with its position in the stream of bytes.
//  2. Flush writes what is new in one system call. `written` is the position
//     behind the last byte the kernel took.
//  3. Read frames replies; each belongs to the first request of the queue.
//     A chunk is reused when every request in it was answered. So the bytes of
//     an unanswered request are still there, and it can be sent again without
//     a copy having been made for that case.
//  4. Break ends the connection. Requests that start at or behind `written`
//     were never seen by the server: they go back to the shard's hold queue.
//     The others may have been executed: those that only read go back too,
//     the rest is answered with an error that says so. This is invariant 7. A
//     read that its client sent before one of that rest to the same slot would
//     be executed behind it now, so it gets the error as well (doubt.go).
//
// Ordinary requests are accepted in state Ready only; the login is made of
// requests of the Conn itself, so it needs no second reader.
//
// The database is chosen in the login and stays. A SELECT between the requests
// of different clients would be one connection less, but not safe: a server that
// is busy with a script refuses the SELECT, and executes what arrives behind it
// when the script has just ended, in the wrong database.
type Conn struct {
	// Target it is connected to.
	Target Target
	// FD is the socket, -1 when there is none. Slot and Events belong to the
	// loop: its place in the loop's table and the epoll interest.
	FD     int
	Slot   uint32
	Events uint32
	// Dirty: it is in the loop's list of connections to flush.
	Dirty bool
	// Paused: the loop does not read it for now.
	Paused bool
	// Resting: the loop neither reads nor writes it for now.
	Resting bool
	// MustDrain: the loop waits for its last reply before it acks an epoch.
	// Retired: it gets no new request and is closed after its last reply.
	MustDrain, Retired bool
	// Blocks: requests of the shard are held until it is drained.
	Blocks bool
	// Lean: it serves one client, so its memory is kept small.
	Lean bool
	// ClientID is the number of this connection at the server, 0 while it is not
	// known. It belongs to the loop.
	ClientID int64
	// Unasked is the first byte of what the server sends beside replies and pushes,
	// to Host.Pushed: '+' after MONITOR. 0 for nothing.
	Unasked byte
	// Software of the server, as it said at the login; of connections that ask who
	// answers (Target.Incarnation).
	Software software.Software
	// Context is the loop's own.
	Context any
	// RetryAt is when to connect again, Deadline when connecting or the login
	// fails; in nanoseconds of the loop's clock, 0 for none.
	RetryAt, Deadline int64
	// WaitingSince is when the last reply arrived or, if later, when the queue
	// of unanswered requests stopped being empty, or the server took a part of a
	// long request.
	WaitingSince int64
	// Part is what the loop keeps of a push that did not arrive whole.
	Part []byte
	// LastReply is when a reply last arrived; 0 when none ever did.
	LastReply int64
	// Opened counts logins; Sent counts requests of clients.
	Opened, Sent uint64
	// SentBefore and UnusedSince are the loop's own: Sent when it last looked,
	// and since when that has not changed.
	SentBefore  uint64
	UnusedSince int64

	host    Host
	state   State
	backoff int64
	attempt uint64

	head, tail *buffer.Chunk // unanswered and unwritten bytes
	wchunk     *buffer.Chunk // the chunk with the next byte to write
	woff       int
	queued     uint64 // position behind the last byte enqueued
	written    uint64

	first, last *Request
	inFlight    int

	framer  resp.Framer
	kind    byte // first byte of the current reply
	inReply bool
}

// State of a Conn.
type State uint8

// States.
const (
	// Closed: no socket. It connects at RetryAt when it is wanted.
	Closed State = iota
	// Connecting: the address is being resolved, or the connection made.
	Connecting
	// Login: it is connected and waits for the answer to its credentials.
	Login
	// Ready: it takes requests.
	Ready
)

// Target is what a Conn connects to, and as whom.
type Target struct {
	Node, Address, Incarnation string
	Username, Password         string
	Generation                 uint64
	// ScriptUsername begins the names of the users of identities (acl.NodeUser), and
	// ScriptPassword is theirs.
	ScriptUsername, ScriptPassword string
	// Proto is 2 or 3.
	Proto int
	// DB is the database.
	DB uint8
	// Bulk: it is for what is large or many.
	Bulk bool
	// As is on whose behalf, nil for all clients; User is the identity's when it was
	// connected.
	As   *Identity
	User string
	// Control: it must reach a server that is busy with a script, and asks nothing
	// but to be let in.
	Control bool
}

// Host is the loop that owns a Conn.
type Host interface {
	// Now is the loop's clock in nanoseconds.
	Now() int64
	// Pool and Requests are the loop's memory.
	Pool() *buffer.Pool
	Requests() *Requests
	// Watch adds a new socket to the loop. Unwatch is called before it is closed,
	// and before any of its requests is failed: from then on the Conn takes none.
	Watch(c *Conn)
	Unwatch(c *Conn)
	// Sender is the client that an owner belongs to, as something to compare; nil
	// when there is none. Its requests on one Conn are executed in their order.
	Sender(o Owner) any
	// Resolve looks up the host name of the address and calls Dial on the loop,
	// with the same attempt.
	Resolve(c *Conn, attempt uint64)
	// Flush asks for a call of Conn.Flush at the end of the wake-up.
	Flush(c *Conn)
	// Opened: the login succeeded, the state is Ready.
	Opened(c *Conn)
	// Broken: the connection ended; the state is Closed. retry are requests
	// that may be sent again, in order.
	Broken(c *Conn, retry *Hold, sight Sight, err error)
	// Answered: the last unanswered request was answered, and the Conn must
	// drain or is retired.
	Answered(c *Conn)
	// Pushed: a piece of a message that answers no request arrived. last
	// says that it is the last one; the piece is only valid during the call.
	Pushed(c *Conn, piece []byte, last bool)
}

// Errors of a Conn.
var (
	errUnasked  = errors.New("the server sent a reply that nobody waits for")
	errFenced   = errors.New("the server refuses the credentials")
	errRestart  = errors.New("another incarnation of the server answers")
	errNoAnswer = errors.New("no answer in time")
)

// Lines for requests whose connection ended while they were in flight.
var (
	LineLost = []byte("-ERR connection to the node was lost while the command was in flight; it may or may not have been executed\r\n")
	// LineReplaced is for masters that an epoch replaced.
	LineReplaced = []byte("-ERR the master of this slot was replaced while the command was in flight; it may or may not have been executed\r\n")
)

// ownChunk is the size from which a request gets a chunk of its own, and
// chunkSize that of the shared ones.
const (
	ownChunk  = 16 << 10
	chunkSize = 32 << 10
	// leanChunk is the size of chunks of a lean connection.
	leanChunk = buffer.Smallest
)

// New makes a Conn in state Closed.
func New(host Host, target Target) *Conn {
	return &Conn{Target: target, FD: -1, host: host}
}

// State it is in.
func (c *Conn) State() State { return c.state }

// InFlight is the number of requests that were not answered.
func (c *Conn) InFlight() int { return c.inFlight }

// Unanswered are the requests that were written, at least in part, and have no reply,
// the oldest first.
func (c *Conn) Unanswered() iter.Seq[*Request] {
	return func(yield func(*Request) bool) {
		for r := c.first; r != nil && r.start < c.written && yield(r); r = r.next {
		}
	}
}

// Recipient is who gets the current reply, or the next one; nil when that is
// nobody.
func (c *Conn) Recipient() Owner {
	if c.first == nil {
		return nil
	}
	return c.first.Owner
}

// Unsent tells if bytes wait to be written.
func (c *Conn) Unsent() bool { return c.written < c.queued }

// Written is the number of bytes that were written to the connection.
func (c *Conn) Written() uint64 { return c.written }

// Writing is the size of the request that is being written, if it is a large one,
// else of some that are.
func (c *Conn) Writing() int {
	if !c.Unsent() {
		return 0
	}
	return len(c.wchunk.B)
}

// Enqueue takes a request; raw is copied. The state is Ready, or Login for the
// login's own requests.
func (c *Conn) Enqueue(r *Request, raw []byte) {
	t := c.tail
	if t == nil || cap(t.B)-len(t.B) < len(raw) {
		n := chunkSize
		switch {
		case c.Lean:
			n = max(leanChunk, len(raw))
		case len(raw) > ownChunk:
			n = len(raw)
		}
		t = c.host.Pool().Get(n)
		c.link(t)
	}
	start := len(t.B)
	t.B = append(t.B, raw...)
	c.host.Pool().Charge(t)
	c.push(r, t, t.B[start:])
}

// EnqueueChunk takes a request that fills a chunk, which is moved, not copied.
func (c *Conn) EnqueueChunk(r *Request, chunk *buffer.Chunk) {
	c.link(chunk)
	c.push(r, chunk, chunk.B)
}

func (c *Conn) link(t *buffer.Chunk) {
	if c.tail == nil {
		c.head, c.wchunk, c.woff = t, t, 0
	} else {
		c.tail.SetNext(t)
	}
	c.tail = t
}

func (c *Conn) push(r *Request, chunk *buffer.Chunk, raw []byte) {
	chunk.Refs++
	r.chunk, r.raw, r.start, r.next = chunk, raw, c.queued, nil
	if r.Block != nil {
		r.Block.restart()
	}
	c.queued += uint64(len(raw))
	if c.last == nil {
		c.first = r
		c.WaitingSince = c.host.Now()
	} else {
		c.last.next = r
	}
	c.last = r
	c.inFlight++
	if r.Spec != nil {
		c.Sent++
	}
	if !c.Dirty {
		c.Dirty = true
		c.host.Flush(c)
	}
}

// flushMost is how many bytes one Flush writes, about: others wait meanwhile.
const flushMost = buffer.WriteMost

// Flush writes what waits, or a good part of it. full says that some is left:
// call it again when the socket is writable.
func (c *Conn) Flush() (full bool) {
	if c.FD < 0 || c.state == Connecting {
		return false
	}
	for begin := c.written; c.written < c.queued; {
		if c.written-begin >= flushMost {
			// A server that takes a long request is alive.
			c.WaitingSince = c.host.Now()
			return true
		}
		for c.woff == len(c.wchunk.B) {
			c.wchunk, c.woff = c.wchunk.Next(), 0
		}
		n, errno := buffer.WriteChunks(c.FD, c.wchunk, c.woff)
		switch errno {
		case 0:
		case syscall.EAGAIN:
			return true
		case syscall.EINTR:
			continue
		default:
			c.Break(SightRefused, fmt.Errorf("write: %w", errno), LineLost)
			return false
		}
		c.written += uint64(n)
		for n > 0 {
			rest := len(c.wchunk.B) - c.woff
			if n < rest || c.wchunk.Next() == nil {
				c.woff += n
				break
			}
			n -= rest
			c.wchunk, c.woff = c.wchunk.Next(), 0
		}
	}
	return false
}

// Read reads once into scratch and delivers what came. It returns how many bytes
// that was.
func (c *Conn) Read(scratch []byte) int {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.FD), uintptr(unsafe.Pointer(unsafe.SliceData(scratch))), uintptr(len(scratch)))
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno != 0:
		c.Break(SightRefused, fmt.Errorf("read: %w", errno), LineLost)
	case n == 0:
		c.Break(SightRefused, fmt.Errorf("read: %w", io.EOF), LineLost)
	default:
		now := c.host.Now()
		c.LastReply, c.WaitingSince = now, now
		if err := c.deliver(scratch[:n]); err != nil {
			c.Break(SightRefused, err, LineLost)
		}
		return int(n)
	}
	return 0
}

// deliver frames replies and hands each to the owner of the oldest request.
func (c *Conn) deliver(b []byte) error {
	for len(b) > 0 {
		begins := !c.inReply
		if begins {
			c.inReply, c.kind = true, b[0]
		}
		n, last, err := c.framer.Feed(b)
		if err != nil {
			return err
		}
		piece := b[:n]
		b = b[n:]
		if last {
			c.inReply = false
		}
		if c.kind == '>' || c.kind == c.Unasked {
			if c.host.Pushed(c, piece, last); c.FD < 0 {
				return nil
			}
			continue
		}
		r := c.first
		if r == nil {
			return errUnasked
		}
		if block := r.Block; block != nil {
			if block.left > 0 {
				block.swallow(piece, begins, last)
				continue
			}
			piece = block.explain(piece, last)
		}
		if !last {
			if r.Owner != nil {
				r.Owner.Reply(r, piece, false, c.kind)
			}
			continue
		}
		c.first = r.next
		if c.first == nil {
			c.last = nil
		}
		r.next = nil
		c.inFlight--
		chunk := r.chunk
		if r.Owner != nil {
			r.Owner.Reply(r, piece, true, c.kind)
		} else {
			c.drop(r)
		}
		if c.FD < 0 {
			return nil // an owner ended the connection, and with it the chunks
		}
		chunk.Refs--
		if c.inFlight == 0 || chunk.Refs == 0 && chunk != c.tail {
			c.reuse()
		}
		if c.inFlight == 0 && (c.MustDrain || c.Retired) {
			if c.host.Answered(c); c.FD < 0 {
				return nil
			}
		}
	}
	return nil
}

// drop frees a request that nobody waits for.
func (c *Conn) drop(r *Request) {
	r.Out.Reset(c.host.Pool())
	c.host.Requests().Put(r)
}

// reuse gives back the chunks whose requests were all answered. The last one
// is kept and written from its beginning again.
func (c *Conn) reuse() {
	for c.head != nil && c.head != c.tail && c.head.Refs == 0 && c.head != c.wchunk {
		next := c.head.Next()
		c.host.Pool().Put(c.head)
		c.head = next
	}
	if t := c.tail; t != nil && c.head == t && t.Refs == 0 && c.written == c.queued {
		if cap(t.B) != chunkSize {
			c.host.Pool().Put(t)
			c.head, c.tail, c.wchunk = nil, nil, nil
		} else {
			t.B = t.B[:0]
		}
		c.woff = 0
	}
}

// Break ends the connection. Requests that may have been executed are failed
// with line, unless they only read; those and the ones that were never sent
// are handed to Host.Broken.
func (c *Conn) Break(sight Sight, err error, line []byte) {
	if c.state == Closed {
		return
	}
	if c.FD >= 0 {
		c.host.Unwatch(c)
		// Nothing can be done about an error of close.
		_ = syscall.Close(c.FD)
	}
	written := c.written
	queue := c.first
	head := c.head
	c.FD, c.state, c.Deadline, c.Paused, c.Resting = -1, Closed, 0, false, false
	c.head, c.tail, c.wchunk, c.woff = nil, nil, nil, 0
	c.first, c.last, c.inFlight = nil, nil, 0
	c.queued, c.written, c.ClientID = 0, 0, 0
	c.framer, c.inReply, c.Part, c.Unasked = resp.Framer{}, false, nil, 0
	doubts := c.doubts(queue, written)
	var retry Hold
	for r := queue; r != nil; {
		next := r.next
		r.next = nil
		switch {
		case r.Owner == nil:
			c.drop(r)
		case r.Streamed || r.Spec == nil || r.start < written && (!r.ReadOnly || doubts.behind(c.host, r)):
			r.Owner.Fail(r, line)
		default:
			r.Out.Reset(c.host.Pool())
			retry.Push(r, r.raw)
		}
		r = next
	}
	for head != nil {
		next := head.Next()
		c.host.Pool().Put(head)
		head = next
	}
	c.host.Broken(c, &retry, sight, err)
}

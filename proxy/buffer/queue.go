package buffer

import (
	"syscall"
	"unsafe"
)

// maxVectors is how many chunks one system call writes, and WriteMost how many
// bytes: the kernel copies them before it returns, a gigabyte in a tenth of a
// second or more, and nobody else is served meanwhile.
const (
	maxVectors = 64
	WriteMost  = 128 << 10
)

// Queue is output that waits to be written. The zero value is empty and holds
// no memory.
type Queue struct {
	head, tail *Chunk
	size       int
}

// Len is the number of bytes that wait.
func (q *Queue) Len() int { return q.size }

// Memory is what the queue takes of the pool, in bytes. It walks the chunks.
func (q *Queue) Memory() (n int64) {
	for c := q.head; c != nil; c = c.next {
		n += c.Memory()
	}
	return n
}

// Pieces is the memory of the first chunk in bytes, the number of chunks, and
// the memory of the others.
func (q *Queue) Pieces() (first int64, n int, others int64) {
	for c := q.head; c != nil; c = c.next {
		if n++; n == 1 {
			first = c.Memory()
		} else {
			others += c.Memory()
		}
	}
	return first, n, others
}

// Append copies b to the end.
func (q *Queue) Append(p *Pool, b []byte) {
	q.size += len(b)
	for len(b) > 0 {
		c := q.tail
		if c == nil || len(c.B) == cap(c.B) {
			c = q.extend(p, len(b))
		}
		n := min(len(b), cap(c.B)-len(c.B))
		c.B = append(c.B, b[:n]...)
		b = b[n:]
	}
}

// extend adds a chunk: one that fits first, then larger ones, so that one short
// reply takes little and a long one few chunks.
func (q *Queue) extend(p *Pool, n int) *Chunk {
	if q.tail != nil && q.tail.origin == nil { // a view says nothing about this queue
		n = max(n, 2*cap(q.tail.B))
	}
	return q.add(p.Get(min(n, 256<<10)))
}

// AppendView appends a chunk that Pool.View made; the queue owns it.
func (q *Queue) AppendView(v *Chunk) {
	q.size += len(v.B)
	q.add(v)
}

func (q *Queue) add(c *Chunk) *Chunk {
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
	return c
}

// Reserve makes the first chunk of an empty queue hold n bytes.
func (q *Queue) Reserve(p *Pool, n int) {
	if q.head == nil {
		q.add(p.Get(n))
	}
}

// small is the size below which moving bytes costs less than writing them from
// a chunk of their own.
const small = 2 << 10

// Take moves everything in other to the end of q.
func (q *Queue) Take(p *Pool, other *Queue) {
	if other.head == nil {
		return
	}
	if other.size < small && q.head != nil {
		for c := other.head; c != nil; c = c.next {
			q.Append(p, c.B[c.off:])
		}
		other.Reset(p)
		return
	}
	if q.tail == nil {
		q.head = other.head
	} else {
		q.tail.next = other.head
	}
	q.tail = other.tail
	q.size += other.size
	*other = Queue{}
}

// Write writes to fd once, at most WriteMost bytes, and forgets what was
// written. It returns how much that was, and the error of the system call.
func (q *Queue) Write(p *Pool, fd int) (int, syscall.Errno) {
	n, errno := WriteChunks(fd, q.head, q.headOff())
	if errno == 0 {
		q.consume(p, n)
	}
	return n, errno
}

func (q *Queue) headOff() int {
	if q.head == nil {
		return 0
	}
	return q.head.off
}

func (q *Queue) consume(p *Pool, n int) {
	q.size -= n
	for n > 0 || q.head != nil && q.head.off == len(q.head.B) {
		c := q.head
		rest := len(c.B) - c.off
		if n < rest {
			c.off += n
			return
		}
		n -= rest
		q.head = c.next
		if q.head == nil {
			q.tail = nil
		}
		p.Put(c)
	}
}

// Reset forgets everything.
func (q *Queue) Reset(p *Pool) {
	for c := q.head; c != nil; {
		next := c.next
		p.Put(c)
		c = next
	}
	*q = Queue{}
}

// Bytes joins the content. It allocates; it is for merging and for tests.
func (q *Queue) Bytes() []byte {
	b := make([]byte, 0, q.size)
	for c := q.head; c != nil; c = c.next {
		b = append(b, c.B[c.off:]...)
	}
	return b
}

// First returns the content of the first chunk.
func (q *Queue) First() []byte {
	if q.head == nil {
		return nil
	}
	return q.head.B[q.head.off:]
}

// WriteChunks writes the chunks from c on, the first one from off, in one raw
// system call, at most WriteMost bytes: the descriptor must be non-blocking, so the Go scheduler need
// not know.
func WriteChunks(fd int, c *Chunk, off int) (int, syscall.Errno) {
	if c == nil {
		return 0, 0
	}
	if c.next == nil {
		b := c.B[off:]
		b = b[:min(len(b), WriteMost)]
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		return int(n), errno
	}
	var vec [maxVectors]syscall.Iovec
	count, room := 0, WriteMost
	for ; c != nil && count < maxVectors && room > 0; c = c.next {
		if n := min(len(c.B)-off, room); n > 0 {
			vec[count].Base = &c.B[off]
			vec[count].SetLen(n)
			count++
			room -= n
		}
		off = 0
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&vec)), uintptr(count))
	return int(n), errno
}

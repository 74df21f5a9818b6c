// Package buffer is the memory of an event loop: chunks that are reused, and
// queues of chunks that one system call writes. Nothing here is safe for use
// by several goroutines; each loop has its own Pool.
package buffer

import (
	"golang.org/x/sys/unix"
)

// Sizes of pooled chunks in bytes, each eight times the one before. Larger
// chunks are mapped: memory is spent on them only as bytes arrive, growing
// them copies nothing, and the garbage collector never sees them.
const (
	Smallest = 512
	Largest  = 2 << 20
	classes  = 5
	mapped   = classes
	// keepBytes is how much of each class is kept for reuse.
	keepBytes = 4 << 20
)

// Chunk is a piece of memory. B is its content; its capacity is fixed until
// Grow.
type Chunk struct {
	B []byte
	// Refs counts users of the content, for owners that need it.
	Refs    int
	next    *Chunk
	off     int // bytes of B that were consumed, in a Queue
	charged int64
	class   uint8
	// origin is the chunk whose content a view shows.
	origin *Chunk
}

// Memory is what the chunk takes of its pool, in bytes; of a view, what it
// keeps from being given back.
func (c *Chunk) Memory() int64 {
	if c.origin != nil {
		return int64(len(c.B))
	}
	return c.charged
}

// Next is the chunk behind this one in its list.
func (c *Chunk) Next() *Chunk { return c.next }

// SetNext links another chunk behind this one, for owners with lists of their
// own.
func (c *Chunk) SetNext(next *Chunk) { c.next = next }

// Pool hands out chunks and counts the bytes in use.
type Pool struct {
	free  [classes]*Chunk
	kept  [classes]int
	views *Chunk // free ones
	inUse int64
}

// InUse is the memory of all chunks handed out, in bytes; of mapped chunks,
// the content.
func (p *Pool) InUse() int64 { return p.inUse }

// Get returns an empty chunk that holds at least n bytes.
func (p *Pool) Get(n int) *Chunk {
	class, size := 0, Smallest
	for size < n && class < classes {
		class++
		size <<= 3
	}
	if class >= classes {
		return mapChunk(n)
	}
	c := p.free[class]
	if c == nil {
		c = &Chunk{B: make([]byte, 0, size), class: uint8(class)}
	} else {
		p.free[class] = c.next
		p.kept[class]--
		c.next = nil
	}
	c.charged = int64(size)
	p.inUse += c.charged
	return c
}

// tightFrom is the size from which a chunk of just that size is worth two system
// calls.
const tightFrom = 32 << 10

// GetTight is Get for content of a known size that may stay for long: what is
// not needed of the chunk is at most as much as what is.
func (p *Pool) GetTight(n int) *Chunk {
	for size := Smallest; size <= Largest; size <<= 3 {
		if size < n {
			continue
		}
		if n >= tightFrom && size > 2*n {
			return mapChunk(n)
		}
		break
	}
	return p.Get(n)
}

// mapChunk maps memory for n bytes without reserving it.
func mapChunk(n int) *Chunk {
	page := unix.Getpagesize()
	n = (n + page - 1) / page * page
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		// The kernel's limit of mappings; the heap has none.
		return &Chunk{B: make([]byte, 0, n), class: mapped + 1}
	}
	return &Chunk{B: b[:0], class: mapped}
}

// unmapAside is the size in bytes from which memory is given back by another
// thread: the kernel frees pages one by one, those of 512 MB in 30 ms.
const unmapAside = 4 << 20

// unmap gives back what Mmap returned, which cannot fail.
func unmap(b []byte) {
	if len(b) < unmapAside {
		_ = unix.Munmap(b)
		return
	}
	go func() { _ = unix.Munmap(b) }()
}

// View returns a chunk that shows the content of another from an offset on. It
// costs nothing but itself, so that one content can stand in many queues. It is
// full: nothing can be appended. The content is given back when the last of its
// views and the origin itself, which counts as one user from the first View on,
// were Put.
func (p *Pool) View(origin *Chunk, off int) *Chunk {
	if origin.Refs == 0 {
		origin.Refs = 1
	}
	origin.Refs++
	v := p.views
	if v == nil {
		v = &Chunk{}
	} else {
		p.views, v.next = v.next, nil
	}
	n := len(origin.B)
	v.B, v.origin = origin.B[off:n:n], origin
	return v
}

// putView takes a view back.
func (p *Pool) putView(v *Chunk) {
	origin := v.origin
	*v = Chunk{next: p.views}
	p.views = v
	p.unshare(origin)
}

// unshare ends one use of a chunk that has views.
func (p *Pool) unshare(origin *Chunk) {
	if origin.Refs--; origin.Refs == 0 {
		p.Put(origin)
	}
}

// PutShared takes back a chunk that may have views: they keep its content.
func (p *Pool) PutShared(c *Chunk) {
	if c.Refs == 0 {
		p.Put(c)
		return
	}
	p.unshare(c)
}

// Put takes a chunk back. Its content is gone.
func (p *Pool) Put(c *Chunk) {
	if c.origin != nil {
		p.putView(c)
		return
	}
	p.inUse -= c.charged
	c.charged, c.off, c.Refs, c.next = 0, 0, 0, nil
	if c.class >= mapped {
		if c.class == mapped {
			unmap(c.B[:cap(c.B)])
		}
		c.B = nil
		return
	}
	if p.kept[c.class]*cap(c.B) >= keepBytes {
		return
	}
	c.B = c.B[:0]
	c.next = p.free[c.class]
	p.free[c.class] = c
	p.kept[c.class]++
}

// Charge brings the account of a mapped chunk up to its content. Call it after
// bytes were added.
func (p *Pool) Charge(c *Chunk) {
	if c.class >= mapped {
		p.inUse += int64(len(c.B)) - c.charged
		c.charged = int64(len(c.B))
	}
}

// Grow returns a chunk with the same content and room for at least n bytes in
// all; c itself is used up when another is returned.
func (p *Pool) Grow(c *Chunk, n int) *Chunk {
	if n <= cap(c.B) {
		return c
	}
	if c.class == mapped {
		page, size := unix.Getpagesize(), len(c.B)
		n = (max(n, 2*cap(c.B)) + page - 1) / page * page
		if b, err := unix.Mremap(c.B[:cap(c.B)], n, unix.MREMAP_MAYMOVE); err == nil {
			c.B = b[:size]
			return c
		}
	}
	bigger := p.Get(n)
	bigger.B = append(bigger.B, c.B...)
	p.Charge(bigger)
	p.Put(c)
	return bigger
}

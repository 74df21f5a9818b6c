package buffer

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"
)

// TestQueue: what goes in comes out, in order, through a socket that is often
// full, and the pool gets everything back.
func TestQueue(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[0])
	defer syscall.Close(fds[1])
	r := rand.New(rand.NewPCG(1, 1))
	var p Pool
	var q, other Queue
	var want, got []byte
	b := make([]byte, 200000)
	for range 2000 {
		n := r.IntN(3000)
		if r.IntN(50) == 0 {
			n = r.IntN(len(b))
		}
		for i := range b[:n] {
			b[i] = byte(r.Uint32())
		}
		want = append(want, b[:n]...)
		if r.IntN(2) == 0 {
			other.Append(&p, b[:n])
			q.Take(&p, &other)
		} else {
			q.Append(&p, b[:n])
		}
		if r.IntN(3) == 0 && q.Len() > 0 {
			if _, errno := q.Write(&p, fds[0]); errno != 0 && errno != syscall.EAGAIN {
				t.Fatal(errno)
			}
		}
		if r.IntN(3) == 0 {
			if n, err := syscall.Read(fds[1], b); err == nil {
				got = append(got, b[:n]...)
			}
		}
	}
	for len(got) < len(want) {
		if _, errno := q.Write(&p, fds[0]); errno != 0 && errno != syscall.EAGAIN {
			t.Fatal(errno)
		}
		if n, err := syscall.Read(fds[1], b); err == nil {
			got = append(got, b[:n]...)
		}
	}
	if !bytes.Equal(got, want) || q.Len() != 0 || p.InUse() != 0 {
		t.Fatalf("%d of %d bytes, %d left, %d in use", len(got), len(want), q.Len(), p.InUse())
	}
}

// TestGrow: content survives growing through all classes into mapped memory,
// which is counted only as it is filled.
func TestGrow(t *testing.T) {
	var p Pool
	c := p.Get(10)
	var want []byte
	for len(want) < 20<<20 {
		piece := bytes.Repeat([]byte{byte(len(want))}, len(want)/2+100)
		want = append(want, piece...)
		c = p.Grow(c, len(want))
		c.B = append(c.B, piece...)
		p.Charge(c)
	}
	if !bytes.Equal(c.B, want) {
		t.Fatal("content changed")
	}
	if n := p.InUse(); n < int64(len(want)) || n > int64(len(want))+Largest {
		t.Errorf("%d bytes counted for %d", n, len(want))
	}
	p.Put(c)
	c = p.Get(512 << 20)
	if n := p.InUse(); n != 0 {
		t.Errorf("%d bytes counted for an empty mapped chunk", n)
	}
	p.Put(c)
}

// TestViews: one content stands in many queues, is read by each to its end, and
// is given back once, after the last.
func TestViews(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, size := range []int{600, 100 << 10, 3 << 20} {
		var p Pool
		queues := make([]Queue, 50)
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(r.Uint32())
		}
		origin := p.Get(size)
		origin.B = append(origin.B, content...)
		p.Charge(origin)
		for i := range queues {
			queues[i].Append(&p, []byte{'*'})
			queues[i].AppendView(p.View(origin, 1))
			queues[i].Append(&p, []byte{'.'})
		}
		p.PutShared(origin)
		if most := int64(size)*9 + int64(len(queues))*2*Smallest; p.InUse() > most {
			t.Errorf("%d bytes in use for views of %d bytes", p.InUse(), size)
		}
		r.Shuffle(len(queues), func(i, j int) { queues[i], queues[j] = queues[j], queues[i] })
		for i := range queues {
			want := append(append([]byte{'*'}, content[1:]...), '.')
			if queues[i].Len() != len(want) || queues[i].Memory() < int64(size) || !bytes.Equal(queues[i].Bytes(), want) {
				t.Fatalf("queue %d has another content", i)
			}
			if i%2 == 0 {
				queues[i].consume(&p, size/2)
			}
			var other Queue
			other.Take(&p, &queues[i])
			other.Reset(&p)
		}
		if p.InUse() != 0 {
			t.Errorf("%d bytes are in use after the last view of %d bytes", p.InUse(), size)
		}
	}
	var p Pool
	alone := p.Get(10)
	p.PutShared(alone)
	if p.InUse() != 0 {
		t.Error("a chunk without views was not given back")
	}
}

package session

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
)

// TestInvalidationsForgetClientsThatLeft: a key that never changes does not keep
// every client in memory that once read it.
func TestInvalidationsForgetClientsThatLeft(t *testing.T) {
	sh := &Shared{}
	v := &sh.Invalidations
	v.Max = 10
	read := func() *Client {
		c := &Client{sh: sh, tracking: &tracking{}}
		v.join(c)
		v.remember("k", c)
		return c
	}
	stays := read()
	for range 10_000 {
		read().stopTracking()
	}
	if n := len(v.keys["k"]); n > 64 {
		t.Errorf("%d clients are kept under a key, one of which is there", n)
	}
	if under := v.keys["k"]; under[0] != stays {
		t.Error("the client that stays is not among them")
	}
}

// TestInvalidationsThatWaitAreBounded: those of all replies of a client together.
func TestInvalidationsThatWaitAreBounded(t *testing.T) {
	c := &Client{sh: &Shared{}, tracking: &tracking{}, proto: 3}
	push := invalidation([]byte(strings.Repeat("k", 1000)))
	total := func() (n int) {
		for r := c.first; r != nil; r = r.Following {
			n += cap(r.After)
		}
		return n
	}
	for range 20 {
		r := &backend.Request{Registered: true}
		if c.first == nil {
			c.first = r
		} else {
			c.last.Following = r
		}
		c.last = r
		for range maxAfter/len(push) - 1 {
			c.invalidate(push, false)
		}
		if n := total(); n > 2*maxAfter {
			t.Fatalf("%d bytes wait, at most %d should", n, maxAfter)
		}
	}
	if got := string(c.first.After); got != string(invalidateAll) {
		t.Errorf("behind the first reply: %.100q", got)
	}
}

// TestPrefixesAreBounded: those of several CLIENT TRACKING together, and too many
// at once are refused at once.
func TestPrefixesAreBounded(t *testing.T) {
	var now *tracking
	next := func(from, n int) *tracking {
		more := &tracking{bcast: true}
		for i := range n {
			more.prefixes = append(more.prefixes, fmt.Sprintf("%08d", from+i))
		}
		return more
	}
	calls := 0
	for ; calls < 100; calls++ {
		more := next(calls*100, 100)
		if line := now.refuse(more); line != nil {
			if &line[0] != &lineManyPrefixes[0] {
				t.Fatalf("%s", line)
			}
			break
		}
		if now != nil {
			more.prefixes = append(now.prefixes, more.prefixes...)
		}
		now = more
	}
	if calls > 10 {
		t.Errorf("%d calls of 100 prefixes were accepted", calls)
	}
	many := next(0, 500_000)
	if begin := time.Now(); now.refuse(many) == nil || time.Since(begin) > 500*time.Millisecond {
		t.Errorf("500000 prefixes took %v to be refused", time.Since(begin))
	}
}

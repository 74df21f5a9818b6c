package reactor

import (
	"testing"

	"github.com/basalt-redis/basalt/proxy/backend"
)

// TestWhenGiantsRest: behind each slice, while others are served, for giantRest times
// as long as the slice took, and no longer than longestRest.
func TestWhenGiantsRest(t *testing.T) {
	const ms = int64(1e6)
	var g giants
	now, others := 100*ms, int64(0)
	pass := func(took int64, n int, want bool) {
		t.Helper()
		begin := now
		if now += took; g.passed(n, begin, now, others) != want {
			t.Fatalf("at %v ms it rests: %v", now/ms, !want)
		}
	}
	for range 10 { // nobody else is there
		pass(ms, giantSlice, false)
	}
	others = now
	pass(ms/2, giantSlice/2, false)
	pass(ms/2, giantSlice/2, true)
	if end := now + giantRest*ms; g.until != end {
		t.Errorf("rests until %d, want %d", g.until, end)
	}
	now += giantRest*ms - 1
	pass(1, giantSlice, true) // another giant rests as well
	// A slice of two giants that pass in one wake-up takes its time, too.
	if g.passed(giantSlice/2, now, now+ms/4, others) || !g.passed(giantSlice/2, now, now+ms/2, others) {
		t.Fatal("another slice")
	}
	if end := now + ms/2 + giantRest*ms/2; g.until != end {
		t.Errorf("rests until %d, want %d", g.until, end)
	}
	now, others = g.until, g.until
	pass(othersRecent, giantSlice, true)
	if rest := g.until - now; rest != longestRest {
		t.Errorf("rests %d ns", rest)
	}
	now = g.until + othersRecent // the others are gone
	for range 10 {
		pass(ms, giantSlice, false)
	}
}

// TestWhoMayRest: not those whose requests are ordinary.
func TestWhoMayRest(t *testing.T) {
	conn := func(target backend.Target, context any) *backend.Conn {
		c := backend.New(nil, target)
		c.Context = context
		return c
	}
	if mayRest(conn(backend.Target{Proto: 2}, &node{})) {
		t.Error("a connection for the ordinary requests of all may rest")
	}
	if !mayRest(conn(backend.Target{Proto: 2, Bulk: true}, &node{})) || !mayRest(conn(backend.Target{Proto: 2}, &pin{})) {
		t.Error("one for bulk, or of one client, may not")
	}
}

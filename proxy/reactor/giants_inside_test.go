package reactor

import "testing"

// TestWhenGiantsRest: behind each slice, while others are served, for as long as the
// slice took, and no longer than longestRest.
func TestWhenGiantsRest(t *testing.T) {
	const ms = int64(1e6)
	l := &loop{eng: &Engine{}}
	l.sh.Now = 100 * ms
	l.nextTimer = 1000 * ms
	pass := func(took int64, n int, want bool) {
		t.Helper()
		if l.sh.Now += took; l.rests(n) != want {
			t.Fatalf("at %v ms it rests: %v", l.sh.Now/ms, !want)
		}
	}
	for range 10 { // nobody else is there
		pass(ms, giantSlice, false)
	}
	l.eng.others.Store(l.sh.Now)
	pass(ms, giantSlice/2, false)
	pass(ms, giantSlice/2, true)
	if end := l.sh.Now + giantRest*ms; l.giants.until != end || l.nextTimer != end {
		t.Errorf("rests until %d, the timer is at %d, want %d", l.giants.until, l.nextTimer, end)
	}
	pass(giantRest*ms-1, giantSlice, true) // another giant rests as well
	pass(1, giantSlice/2, false)
	l.sh.Now += othersRecent / 2
	l.eng.others.Store(l.sh.Now)
	pass(othersRecent/2, giantSlice, true)
	if rest := l.giants.until - l.sh.Now; rest != longestRest {
		t.Errorf("rests %d ns", rest)
	}
	l.sh.Now += othersRecent // the others are gone
	for range 10 {
		pass(ms, giantSlice, false)
	}
}

package session

import "testing"

// TestLargeSlots: a slot is forgotten when it was not noted between two calls of
// Age, and not before; when too many are noted, none is.
func TestLargeSlots(t *testing.T) {
	var l LargeSlots
	l.mark(0)
	l.mark(16383)
	l.mark(16383)
	for _, step := range []struct {
		slot0, slot16383 bool
		mark             []int
	}{
		{true, true, nil},
		{true, true, []int{0}},
		{true, false, nil},
		{true, false, []int{16383}},
	} {
		if l.has(0) != step.slot0 || l.has(16383) != step.slot16383 || l.has(1) || l.has(-1) {
			t.Fatalf("slot 0 %v, slot 16383 %v; want %v, %v", l.has(0), l.has(16383), step.slot0, step.slot16383)
		}
		l.Age()
		for _, s := range step.mark {
			l.mark(s)
		}
	}
	if !l.has(16383) {
		t.Error("a slot that was noted again is not known")
	}
	for s := range mostLarge + 1 {
		l.mark(s)
	}
	if l.has(1) {
		t.Error("so many slots are large that it should make no difference")
	}
	l.Age()
	l.Age()
	l.mark(5)
	if !l.has(5) || l.has(1) {
		t.Error("the number of slots is not right after they were forgotten")
	}
}

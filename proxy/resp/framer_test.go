package resp

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// randomReply makes a valid reply.
func randomReply(r *rand.Rand, depth int) []byte {
	kind := r.IntN(12)
	if depth == 0 {
		kind = r.IntN(8)
	}
	text := strings.Repeat("x", r.IntN(50))
	aggregate := func(mark string, n, per int) []byte {
		b := []byte(mark + strconv.Itoa(n) + "\r\n")
		for range n * per {
			b = append(b, randomReply(r, depth-1)...)
		}
		return b
	}
	switch kind {
	case 0:
		return []byte("+" + text + "\r\n")
	case 1:
		return []byte("-ERR " + text + "\r\n")
	case 2:
		return []byte(":" + strconv.Itoa(r.IntN(1e9)) + "\r\n")
	case 3:
		return []byte("$-1\r\n")
	case 4:
		return []byte("_\r\n")
	case 5:
		return []byte(",3.14\r\n")
	case 6:
		return []byte("=" + strconv.Itoa(len(text)+4) + "\r\ntxt:" + text + "\r\n")
	case 7:
		text = strings.Repeat("\r\n", r.IntN(100))
		return []byte("$" + strconv.Itoa(len(text)) + "\r\n" + text + "\r\n")
	case 8:
		return aggregate("*", r.IntN(5), 1)
	case 9:
		return aggregate("%", r.IntN(4), 2)
	case 10:
		return aggregate("~", r.IntN(4), 1)
	default:
		return append(aggregate("|", 1, 2), randomReply(r, depth-1)...)
	}
}

func TestFramerFindsEveryReplyInAnyPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var stream []byte
		var want []int // where each reply ends
		for range 1 + r.IntN(8) {
			stream = append(stream, randomReply(r, 4)...)
			want = append(want, len(stream))
		}
		var f Framer
		var got []int
		for at := 0; at < len(stream); {
			end := min(at+1+r.IntN(60), len(stream))
			if r.IntN(3) == 0 {
				end = len(stream)
			}
			for at < end {
				n, done, err := f.Feed(stream[at:end])
				if err != nil {
					t.Fatalf("%q: %v", stream, err)
				}
				if at += n; done {
					got = append(got, at)
				} else if at != end {
					t.Fatalf("%q: %d bytes left and no reply", stream, end-at)
				}
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%q: replies end at %v, want %v", stream, got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%q: replies end at %v, want %v", stream, got, want)
			}
		}
	}
}

func TestFramerRefuses(t *testing.T) {
	for _, in := range []string{
		"hello\r\n", "$x\r\n", "$99999999999999999999\r\n", "*\r\n", "$1\n", "*1\r\n?", "$" + strings.Repeat("0", 50),
		strings.Repeat("*1\r\n", MaxDepth+1),
	} {
		var f Framer
		b := []byte(in)
		var err error
		for len(b) > 0 && err == nil {
			var n int
			n, _, err = f.Feed(b)
			b = b[n:]
		}
		if err == nil {
			t.Errorf("%.30q was taken for a reply", in)
		}
	}
}

// FuzzFramer: no bytes make it panic or stand still, and pieces do not change
// where replies end.
func FuzzFramer(f *testing.F) {
	for _, seed := range []string{"$3\r\nabc\r\n", "*2\r\n:1\r\n$-1\r\n", "|1\r\n+a\r\n+b\r\n:1\r\n", "%1\r\n+a\r\n_\r\n", "$9223372036854775807\r\n"} {
		f.Add([]byte(seed), uint8(2))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		frame := func(step int) (ends []int, failed bool) {
			var f Framer
			for at := 0; at < len(b); {
				end := min(at+step, len(b))
				for at < end {
					n, done, err := f.Feed(b[at:end])
					if err != nil {
						return ends, true
					}
					if n == 0 && !done {
						t.Fatalf("%q: stands still at %d", b, at)
					}
					if at += n; done {
						ends = append(ends, at)
					}
				}
			}
			return ends, false
		}
		whole, failed1 := frame(len(b) + 1)
		pieces, failed2 := frame(int(step) + 1)
		if failed1 != failed2 || len(whole) != len(pieces) {
			t.Fatalf("%q: whole %v %v, in pieces %v %v", b, whole, failed1, pieces, failed2)
		}
	})
}

func TestFramerDoesNotAllocate(t *testing.T) {
	reply := bytes.Repeat([]byte("$5\r\nhello\r\n"), 1)
	var f Framer
	if n := testing.AllocsPerRun(100, func() {
		if n, done, err := f.Feed(reply); n != len(reply) || !done || err != nil {
			t.Fatal(n, done, err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestFramerDeep: replies may be nested as deep as a script's, and the next one
// begins where they end.
func TestFramerDeep(t *testing.T) {
	for _, depth := range []int{1, shallow - 1, shallow, shallow + 1, 8000, MaxDepth} {
		b := []byte(strings.Repeat("*2\r\n", depth) + ":1\r\n" + strings.Repeat(":2\r\n", depth))
		for _, step := range []int{len(b), 3} {
			var f Framer
			for round := range 2 {
				for rest := b; len(rest) > 0; {
					n, done, err := f.Feed(rest[:min(step, len(rest))])
					if rest = rest[n:]; err != nil || done != (len(rest) == 0) {
						t.Fatalf("depth %d, round %d: %v, done %t with %d bytes left", depth, round, err, done, len(rest))
					}
				}
			}
		}
	}
}

package fanout

import (
	"errors"
	"fmt"
	"testing"
)

func parts(replies ...string) (b [][]byte) {
	for _, r := range replies {
		b = append(b, []byte(r))
	}
	return b
}

func interleave(order []int32, replies ...string) ([]byte, error) {
	var readers []Reader
	for _, r := range replies {
		readers = append(readers, NewReader([]byte(r)))
	}
	return Interleave(nil, order, readers, func(dst []byte) []byte { return dst })
}

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func() ([]byte, error)
		want string
	}{
		{"sum", func() ([]byte, error) { return Sum(nil, parts(":1\r\n", ":20\r\n", ":0\r\n")) }, ":21\r\n"},
		{"sum of something else", func() ([]byte, error) { return Sum(nil, parts(":1\r\n", "+OK\r\n")) }, "error"},
		{"ok", func() ([]byte, error) { return OK(nil, parts("+OK\r\n", "+OK\r\n")) }, "+OK\r\n"},
		{"not ok", func() ([]byte, error) { return OK(nil, parts("+OK\r\n", ":1\r\n")) }, "error"},
		{"concat", func() ([]byte, error) {
			return Concat(nil, parts("*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*0\r\n", "*1\r\n$1\r\nc\r\n"))
		},
			"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"},
		{"interleave", func() ([]byte, error) {
			return interleave([]int32{1, 0, 1}, "*1\r\n$1\r\na\r\n", "*2\r\n$-1\r\n$1\r\nb\r\n")
		}, "*3\r\n$-1\r\n$1\r\na\r\n$1\r\nb\r\n"},
		{"interleave RESP3", func() ([]byte, error) {
			return interleave([]int32{0, 1, 1, 0}, "*2\r\n_\r\n$12\r\n0123456789ab\r\n", "*2\r\n$0\r\n\r\n$2\r\n\r\n\r\n")
		}, "*4\r\n_\r\n$0\r\n\r\n$2\r\n\r\n\r\n$12\r\n0123456789ab\r\n"},
		{"one too few here, one too many there", func() ([]byte, error) {
			return interleave([]int32{0, 0, 1}, "*1\r\n$1\r\na\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n")
		}, "error"},
		{"cut short", func() ([]byte, error) { return interleave([]int32{0}, "*1\r\n$9\r\na\r\n") }, "error"},
		{"least", func() ([]byte, error) { return Least(nil, parts(":7\r\n", ":3\r\n", ":5\r\n")) }, ":3\r\n"},
		{"least of arrays", func() ([]byte, error) { return Least(nil, parts("*2\r\n:1\r\n:3\r\n", "*2\r\n:2\r\n:0\r\n")) }, "*2\r\n:1\r\n:0\r\n"},
		{"least of different arrays", func() ([]byte, error) { return Least(nil, parts("*1\r\n:1\r\n", "*2\r\n:2\r\n:0\r\n")) }, "error"},
		{"least of no number", func() ([]byte, error) { return Least(nil, parts(":7\r\n", "+OK\r\n")) }, "error"},
		{"too few", func() ([]byte, error) { return interleave([]int32{0, 0}, "*1\r\n$1\r\na\r\n") }, "error"},
		{"too many", func() ([]byte, error) { return interleave([]int32{0}, "*2\r\n:1\r\n:1\r\n") }, "error"},
	} {
		got, err := c.run()
		if err != nil {
			got = []byte("error")
		}
		if string(got) != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if e := FirstError(parts(":1\r\n", "-ERR x\r\n", "-ERR y\r\n")); string(e) != "-ERR x\r\n" {
		t.Errorf("first error: %q", e)
	}
	for in, want := range map[string]string{"$3\r\nabc\r\n": "abc", "=7\r\ntxt:abc\r\n": "abc", "$-1\r\n": "", ":1\r\n": "error", "$5\r\nabc\r\n": "error"} {
		got, err := Bulk([]byte(in))
		if err != nil {
			got = []byte("error")
		}
		if string(got) != want {
			t.Errorf("bulk %q: %q, want %q", in, got, want)
		}
	}
}

// TestCursorRoundTrip: what a client gives back leads to the shard and cursor
// it came from, and to the end exactly once.
func TestCursorRoundTrip(t *testing.T) {
	for _, shards := range []int{1, 3, 1024} {
		for shard := range shards {
			for _, cursor := range []uint64{1, 7, 1 << 40, maxServerCursor} {
				n, err := EncodeCursor(shard, shards, cursor)
				if err != nil || n == 0 {
					t.Fatalf("shard %d cursor %d: %d %v", shard, cursor, n, err)
				}
				gotShard, got, err := DecodeCursor(fmt.Append(nil, n))
				if err != nil || gotShard != shard || got != cursor {
					t.Fatalf("shard %d cursor %d came back as %d %d %v", shard, cursor, gotShard, got, err)
				}
			}
			n, err := EncodeCursor(shard, shards, 0)
			if last := shard == shards-1; err != nil || last != (n == 0) {
				t.Fatalf("end of shard %d of %d: %d %v", shard, shards, n, err)
			}
			if next, cursor, _ := DecodeCursor(fmt.Append(nil, n)); n != 0 && (next != shard+1 || cursor != 0) {
				t.Fatalf("after shard %d comes %d at %d", shard, next, cursor)
			}
		}
	}
	if _, err := EncodeCursor(0, 3, maxServerCursor+1); !errors.Is(err, ErrWideCursor) {
		t.Errorf("a cursor that does not fit: %v", err)
	}
}

func TestScanReply(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"*2\r\n$1\r\n5\r\n*1\r\n$1\r\na\r\n", "*2\r\n$4\r\n5121\r\n*1\r\n$1\r\na\r\n"},
		{"*2\r\n$1\r\n0\r\n*0\r\n", "*2\r\n$1\r\n2\r\n*0\r\n"},
		{"*1\r\n$1\r\n0\r\n", "error"}, {"+OK\r\n", "error"}, {"*2\r\n$1\r\nx\r\n*0\r\n", "error"}, {"*2\r\n$9\r\nx\r\n", "error"},
	} {
		got, err := ScanReply(nil, []byte(c.in), 1, 3)
		if err != nil {
			got = []byte("error")
		}
		if string(got) != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

// FuzzMerge: no reply of a server makes a merge panic.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("*2\r\n$1\r\n5\r\n*1\r\n$1\r\na\r\n"), []byte(":1\r\n"))
	f.Add([]byte("*-1\r\n"), []byte("$-1\r\n"))
	f.Fuzz(func(_ *testing.T, a, b []byte) {
		both := [][]byte{a, b}
		// Errors are fine, panics are not.
		_, _ = Sum(nil, both)
		_, _ = OK(nil, both)
		_, _ = Concat(nil, both)
		_, _ = interleave([]int32{0, 1, 0}, string(a), string(b))
		_, _ = ScanReply(nil, a, 0, 2)
		_, _ = Bulk(a)
	})
}

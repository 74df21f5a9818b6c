package fanout

import (
	"testing"

	"github.com/tidwall/redcon"
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
	return Interleave(redcon.AppendArray(nil, len(order)), order, readers, func(dst []byte) []byte { return dst })
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
		_, _, _, _ = Page(a)
		_, _ = Bulk(a)
	})
}

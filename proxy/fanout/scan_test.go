package fanout

import (
	"errors"
	"fmt"
	"math"
	"testing"
)

// TestCursorRoundTrip: what a client gives back leads to the shard, server and
// cursor it came from, and is never the end.
func TestCursorRoundTrip(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 1000, 1024} {
		most := uint64(math.MaxInt64/shards>>tagBits - 1)
		for _, shard := range []int{0, shards / 2, shards - 1} {
			for term := range uint64(2 * tags) {
				for _, server := range []uint64{0, 1, 7, 1 << 30, most} {
					c := Cursor{shard, TagOf(term+1, ""), server}
					n, err := c.Encode(shards)
					if err != nil {
						t.Fatalf("%+v: %v", c, err)
					}
					if got, err := ParseCursor(fmt.Append(nil, n), shards); err != nil || got != c || n > math.MaxInt64 || n == 0 {
						t.Fatalf("%+v came back from %d as %+v, %v", c, n, got, err)
					}
				}
			}
		}
		if _, err := (Cursor{0, 1, most + 1}).Encode(shards); !errors.Is(err, ErrWideCursor) {
			t.Errorf("a cursor that does not fit: %v", err)
		}
	}
}

// TestCursorsAreSmall: clients that read cursors as numbers of 32 bits, with a sign,
// or of 53 are not cut off.
func TestCursorsAreSmall(t *testing.T) {
	for _, c := range []struct {
		what            string
		shards, buckets int
		bits            int
	}{
		{"HSCAN of 16 million fields", 1, 1 << 24, 31},
		{"SCAN of 24 million keys in three shards", 3, 1 << 23, 31},
		{"SCAN of 2^36 keys in 1024 shards", 1024, 1 << 36, 53},
		{"HSCAN of 2^36 fields", 1, 1 << 36, 53},
	} {
		n, err := (Cursor{c.shards - 1, tags, uint64(c.buckets - 1)}).Encode(c.shards)
		if err != nil || n >= 1<<c.bits {
			t.Errorf("%s: %d, %v, want less than 2^%d", c.what, n, err, c.bits)
		}
	}
}

// TestTagsTellTermsApart: terms that follow on each other have other tags, until as
// many of them as there are tags have gone by.
func TestTagsTellTermsApart(t *testing.T) {
	for term := uint64(1); term < 300; term++ {
		for after := uint64(1); after < tags; after++ {
			if TagOf(term, "") == TagOf(term+after, "") {
				t.Fatalf("terms %d and %d have one tag", term, term+after)
			}
		}
	}
	seen := map[uint8]bool{} // nobody counts
	for i := range 1000 {
		seen[TagOf(0, fmt.Sprint("run", i))] = true
	}
	if len(seen) != tags || seen[0] {
		t.Errorf("%d tags of run_ids", len(seen))
	}
}

// TestCursorsOfClients are read as strtoul does it, which Redis uses.
func TestCursorsOfClients(t *testing.T) {
	for text, want := range map[string]string{
		"0": "{0 0 0}", "": "{0 0 0}", "+0": "{0 0 0}", "\x00x": "{0 0 0}", "7\x00x": "{1 2 0}", "1": "{1 0 0}", "-1": "{0 21 96076792050570581}", "007": "{1 2 0}", "389": "{2 1 2}",
		"18446744073709551615": "{0 21 96076792050570581}", "18446744073709551616": "error", "-": "error", "x": "error", "1x": "error", " 1": "error", "--1": "error",
	} {
		c, err := ParseCursor([]byte(text), 3)
		got := fmt.Sprint(c)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestPages(t *testing.T) {
	const whole = "*2\r\n$2\r\n57\r\n*1\r\n$1\r\na\r\n"
	for i := range whole {
		n, server, err := PageHead([]byte(whole[:i]))
		if want := len("*2\r\n$2\r\n57\r\n"); err != nil || (n != 0) != (i >= want) || n != 0 && (n != want || server != 57) {
			t.Errorf("%q: %d, %d, %v", whole[:i], n, server, err)
		}
	}
	server, n, elements, err := Page([]byte(whole))
	if server != 57 || n != 1 || string(elements) != "$1\r\na\r\n" || err != nil {
		t.Errorf("%d, %d, %q, %v", server, n, elements, err)
	}
	for _, bad := range []string{"*1\r\n$1\r\n0\r\n", "+OK\r\n", "*2\r\n$1\r\nx\r\n*0\r\n", "*2\r\n$9\r\nx\r\n", "*2\r\n\n", "*2\r\n$" + fmt.Sprintf("%070d", 1)} {
		if _, _, err := PageHead([]byte(bad)); !errors.Is(err, ErrReply) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, _, _, err := Page([]byte("*2\r\n$1\r\n")); !errors.Is(err, ErrReply) {
		t.Errorf("half a reply: %v", err)
	}
	if n, err := Passed(0, 5); n != 0 || err != nil {
		t.Errorf("the end: %d, %v", n, err)
	}
	if n, err := Passed(2, 5); n != 2<<tagBits|5 || err != nil {
		t.Errorf("a cursor: %d, %v", n, err)
	}
}

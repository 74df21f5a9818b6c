package fanout

import (
	"errors"
	"fmt"
	"math"
	"testing"
)

// TestCursorRoundTrip: what a client gives back leads to the shard, server and
// cursor it came from, and to the end exactly once.
func TestCursorRoundTrip(t *testing.T) {
	for _, shards := range []int{1, 3, 1024} {
		for shard := range shards {
			for _, stamp := range []uint16{1, 4711, math.MaxUint16} {
				for _, server := range []uint64{0, 1, 7, 1 << 30, maxServerCursor} {
					c := Cursor{shard, stamp, server}
					n, err := c.next(shards)
					if err != nil {
						t.Fatalf("%+v: %v", c, err)
					}
					if server == 0 {
						if last := shard == shards-1; last != (n == 0) {
							t.Fatalf("end of shard %d of %d: %d", shard, shards, n)
						}
						c.Shard++
					}
					if n == 0 {
						continue
					}
					if got, err := ParseCursor(fmt.Append(nil, n)); err != nil || got != c || n > math.MaxInt64 {
						t.Fatalf("%+v came back from %d as %+v, %v", c, n, got, err)
					}
				}
			}
		}
	}
	if _, err := (Cursor{0, 1, maxServerCursor + 1}).Encode(); !errors.Is(err, ErrWideCursor) {
		t.Errorf("a cursor that does not fit: %v", err)
	}
	if n, _ := (Cursor{1023, math.MaxUint16, 1<<27 - 1}).Encode(); n >= 1<<53 {
		t.Errorf("the cursor %d of a server with 2^27 buckets is no exact floating-point number", n)
	}
	// The beginning of the first shard is not the end.
	if got := string(EmptyPage(nil, 0)); got != "*2\r\n$4\r\n1024\r\n*0\r\n" {
		t.Errorf("an empty page is %q", got)
	}
}

// TestCursorsOfClients are read as strtoul does it, which Redis uses.
func TestCursorsOfClients(t *testing.T) {
	for text, want := range map[string]string{
		"0": "{0 0 0}", "": "{0 0 0}", "+0": "{0 0 0}", "\x00x": "{0 0 0}", "7\x00x": "{7 0 0}", "1": "{1 0 0}", "-1": "{1023 65535 274877906943}", "007": "{7 0 0}",
		"18446744073709551615": "{1023 65535 274877906943}", "18446744073709551616": "error", "-": "error", "x": "error", "1x": "error", " 1": "error", "--1": "error",
	} {
		c, err := ParseCursor([]byte(text))
		got := fmt.Sprint(c)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if a, b := StampOf("4f8cdc2a1b"), StampOf("3788a055f0"); a == b || a == 0 || a != StampOf("4f8cdc2a1b") {
		t.Errorf("stamps %d and %d", a, b)
	}
}

func TestScanReply(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"*2\r\n$1\r\n5\r\n*1\r\n$1\r\na\r\n", "*2\r\n$9\r\n335547393\r\n*1\r\n$1\r\na\r\n"},
		{"*2\r\n$1\r\n0\r\n*0\r\n", "*2\r\n$4\r\n3074\r\n*0\r\n"},
		{"*1\r\n$1\r\n0\r\n", "error"}, {"+OK\r\n", "error"}, {"*2\r\n$1\r\nx\r\n*0\r\n", "error"}, {"*2\r\n$9\r\nx\r\n", "error"},
	} {
		got, err := ScanReply(nil, []byte(c.in), 1, 3, 3)
		if err != nil {
			got = []byte("error")
		}
		if string(got) != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

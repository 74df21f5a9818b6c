package resp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidwall/redcon"
)

// scanAll scans everything in b, fed in pieces that end at the given cuts, and
// returns the requests found.
func scanAll(b []byte, lim *Limits, cuts []int) (requests [][]byte, err error) {
	var s Scanner
	begin := 0
	for _, cut := range append(cuts, len(b)) {
		for begin < cut {
			n, err := s.Scan(b[begin:cut], lim, true)
			if err != nil {
				return requests, err
			}
			if n == 0 {
				break
			}
			requests = append(requests, b[begin:begin+n])
			begin += n
		}
	}
	return requests, nil
}

// everywhere cuts at every byte.
func everywhere(s string) (cuts []int) {
	for i := range s {
		cuts = append(cuts, i)
	}
	return cuts
}

func TestScanErrors(t *testing.T) {
	lim := Limits{RequestBytes: 1000, Args: 5, InlineBytes: 50}
	for _, c := range []struct{ in, want string }{
		{"*1\r\n$9223372036854775807\r\n", "invalid bulk length"}, // redcon panics on these two
		{"*1\r\n$-2\r\n", "invalid bulk length"},
		{"*1\r\n$-1\r\n", "invalid bulk length"},
		{"*1\r\n$1001\r\n", "invalid bulk length"},
		{"*1\r\n$99999999999999999999\r\n", "invalid bulk length"},
		{"*1\r\n$\r\n", "invalid bulk length"},
		{"*1\r\n$x\r\n", "invalid bulk length"},
		{"*1\r\n$1\n", "invalid bulk length"},
		{"*1\r\n$1\r\nabc", "invalid bulk length"},
		{"*2\r\n$990\r\n" + strings.Repeat("x", 990) + "\r\n$990\r\n", "too big request"},
		{"*6\r\n", "invalid multibulk length"},
		{"*2147483648\r\n", "invalid multibulk length"},
		{"*9223372036854775808\r\n", "invalid multibulk length"},
		{"*a\r\n", "invalid multibulk length"},
		{"*+1\r\n", "invalid multibulk length"},
		{"*01\r\n$4\r\nPING\r\n", "invalid multibulk length"},
		{"*00\r\n", "invalid multibulk length"},
		{"*-0\r\n", "invalid multibulk length"},
		{"*-01\r\n", "invalid multibulk length"},
		{"*-\r\n", "invalid multibulk length"},
		{"*\r\n", "invalid multibulk length"},
		{"*0\r\n", ""},
		{"*-9223372036854775808\r\nPING\r\n", ""},
		{"*-9223372036854775809\r\n", "invalid multibulk length"},
		{"*9223372036854775807\r\n", "invalid multibulk length"},
		{"*18446744073709551617\r\n", "invalid multibulk length"},
		{"*1\r\n$04\r\nPING\r\n", "invalid bulk length"},
		{"*1\r\n$-0\r\n\r\n", "invalid bulk length"},
		{"*1\r\n$00\r\n\r\n", "invalid bulk length"},
		{"*1\r\n$-9223372036854775808\r\n", "invalid bulk length"},
		{"*1\r\n$18446744073709551617\r\nx\r\n", "invalid bulk length"},
		{"*" + strings.Repeat("1", 40), ""}, // may become anything but a number
		{"*" + strings.Repeat("1", 40) + "\r", "invalid multibulk length"},
		{"*" + strings.Repeat("1", 60) + "\r\n", "invalid multibulk length"},
		{"*1\r\n$" + strings.Repeat("1", 60), "too big bulk count string"},
		{"*1\r\n$" + strings.Repeat("1", 60) + "\r\n", "invalid bulk length"},
		{"*1\r\n:1\r\n", "expected '$', got ':'"},
		{"*1\r\n\r\n", "expected '$', got ' '"},
		{"*" + strings.Repeat("1", 60), "too big mbulk count string"},
		{strings.Repeat("x", 51), "too big inline request"},
		{strings.Repeat("x", 60) + "\r\n", "too big inline request"},
	} {
		for _, cuts := range [][]int{nil, {1}, {len(c.in) / 2}, everywhere(c.in)} {
			_, err := scanAll([]byte(c.in), &lim, cuts)
			if len(c.in) > 55 && cuts != nil && strings.HasSuffix(c.in, "11\r\n") {
				continue // how much is too much without a CR is told by what came of it
			}
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%.40q: %v", c.in, err)
			case c.want != "" && (err == nil || err.Error() != "Protocol error: "+c.want):
				t.Errorf("%.40q: want %q, got %v", c.in, c.want, err)
			}
		}
	}
}

func TestScanUnauthenticated(t *testing.T) {
	lim := DefaultLimits()
	for in, want := range map[string]string{
		"*11\r\n":             "unauthenticated multibulk length",
		"*1\r\n$16385\r\n":    "unauthenticated bulk length",
		"*10\r\n$16384\r\nab": "",
	} {
		var s Scanner
		_, err := s.Scan([]byte(in), &lim, false)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != "Protocol error: "+want) {
			t.Errorf("%q: want %q, got %v", in, want, err)
		}
	}
}

func TestScanFindsEveryRequestInAnyPieces(t *testing.T) {
	lim := DefaultLimits()
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var stream []byte
		var want [][]byte
		for range 1 + r.IntN(20) {
			begin := len(stream)
			switch r.IntN(4) {
			case 0:
				stream = append(stream, "PING hello\r\n"...)
			case 1:
				stream = append(stream, "*0\r\n"...)
			default:
				n := 1 + r.IntN(5)
				stream = redcon.AppendArray(stream, n)
				for range n {
					stream = redcon.AppendBulk(stream, bytes.Repeat([]byte{'\r'}, r.IntN(40)))
				}
			}
			want = append(want, stream[begin:])
			want[len(want)-1] = stream[begin:len(stream):len(stream)]
		}
		var cuts []int
		for i := range stream {
			if r.IntN(3) == 0 {
				cuts = append(cuts, i)
			}
		}
		got, err := scanAll(stream, &lim, cuts)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d requests, want %d: %v", len(got), len(want), err)
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("request %d: %q, want %q", i, got[i], want[i])
			}
		}
	}
}

func TestSplitInline(t *testing.T) {
	for in, want := range map[string]string{
		"SET a b":               "[SET a b]",
		"  SET\ta   b \r":       "[SET a b]",
		`SET "a b" 'c d'`:       "[SET a b c d]",
		`SET "\x41\n\"" 'i\'m'`: "[SET A\n\" i'm]",
		`SET a"b c"`:            "[SET ab c]",
		"":                      "[]",
		"$5 x":                  "[$5 x]",
		"a\vb c\fd":             "[a\vb c\fd]", // skipped before a word, part of it within
		" \v\f a \vb":           "[a b]",
		"\"a\"\vb 'c'\fd":       "[a b c d]",
		"a\v\"b\"":              "[a\vb]",
		"PING\v":                "[PING\v]",
	} {
		got, err := splitInline([]byte(in), nil)
		if err != nil || fmt.Sprintf("%s", got) != want {
			t.Errorf("%q: %s %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{`SET "a`, `SET 'a`, `SET "a"b`, `SET "a\`, `'`} {
		if got, err := splitInline([]byte(in), nil); err != errQuotes {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
}

// FuzzScan: no bytes make the scanner or the parser behind it panic, pieces do
// not change what is found, and what is found lies within the limits.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		"*1\r\n$9223372036854775807\r\n", "*1\r\n$-2\r\n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
		"*-1\r\nPING\r\n", "PING \"a", "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", "*1000000000\r\n", "$5\r\nhello\r\n", "*1\r\n$4\r\nPI",
	} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		lim := Limits{RequestBytes: 4096, Args: 64, InlineBytes: 256}
		whole, err1 := scanAll(b, &lim, nil)
		var cuts []int
		for i := int(step); step > 0 && i < len(b); i += int(step) {
			cuts = append(cuts, i)
		}
		pieces, err2 := scanAll(b, &lim, cuts)
		if fmt.Sprint(err1) != fmt.Sprint(err2) && !(err1 != nil && err2 != nil) {
			t.Fatalf("whole: %v, in pieces: %v", err1, err2)
		}
		if fmt.Sprintf("%q", whole) != fmt.Sprintf("%q", pieces) && err1 == nil {
			t.Fatalf("whole: %q, in pieces: %q", whole, pieces)
		}
		for _, r := range whole {
			args, err := Args(r, nil)
			if err != nil && r[0] == '*' {
				t.Fatalf("%q passed the scanner and not the parser: %v", r, err)
			}
			if len(args) > lim.Args && r[0] == '*' || len(r) > lim.RequestBytes+lim.InlineBytes {
				t.Fatalf("%q is beyond the limits", r)
			}
		}
	})
}

func TestScanDoesNotAllocate(t *testing.T) {
	lim := DefaultLimits()
	request := []byte("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n")
	args := make([][]byte, 0, 8)
	var s Scanner
	if n := testing.AllocsPerRun(100, func() {
		n, _ := s.Scan(request, &lim, true)
		args, _ = Args(request[:n], args[:0])
	}); n != 0 || len(args) != 3 {
		t.Fatalf("%v allocations, %d arguments", n, len(args))
	}
}

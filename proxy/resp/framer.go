package resp

import (
	"bytes"
	"errors"
)

// MaxDepth is how deep replies may be nested: a little more than Lua lets a
// script's reply be.
const MaxDepth = 16 << 10

// shallow is the depth that takes no memory of its own.
const shallow = 64

// maxLength is beyond what a reply can be long, in bytes or in elements.
const maxLength = 1 << 50

// Errors of a Framer: the server does not speak RESP, so nothing more can be
// read from the connection.
var (
	ErrFrame = errors.New("the server sent something that is not a reply")
	ErrDepth = errors.New("the server sent a reply that is nested too deep")
)

// Framer finds where replies end, in RESP2 and RESP3, without decoding them.
// It is fed the bytes of a connection in any pieces and looks at each byte of
// a header once; payloads are skipped. The zero value stands before a reply.
type Framer struct {
	skip  int // bytes of a payload, with its CRLF, still to come
	depth int // open aggregates
	line  int // bytes of an unfinished header line kept in head; -1: in a line of text
	head  [32]byte
	left  [shallow]int // elements still to come of each open aggregate
	deep  []int        // and of those that are nested deeper
}

// Feed takes the next bytes of the connection. It returns how many of them
// belong to the current reply, and if that is complete now; then the rest
// belongs to the next reply.
func (f *Framer) Feed(b []byte) (n int, done bool, err error) {
	// Most replies are one short value, whole in b.
	if f.skip == 0 && f.depth == 0 && f.line == 0 && len(b) > 3 && b[0] == '$' {
		if size, next := number(b, 1, 0); next > 0 && size >= 0 && size <= len(b)-next-2 {
			return next + size + 2, true, nil
		}
	}
	i := 0
	for {
		if f.skip > 0 {
			if f.skip > len(b)-i {
				f.skip -= len(b) - i
				return len(b), false, nil
			}
			i += f.skip
			f.skip = 0
			if f.element() {
				return i, true, nil
			}
			continue
		}
		if i == len(b) {
			return i, false, nil
		}
		if f.line < 0 {
			end := bytes.IndexByte(b[i:], '\n')
			if end < 0 {
				return len(b), false, nil
			}
			i += end + 1
			f.line = 0
			if f.element() {
				return i, true, nil
			}
			continue
		}
		whole, next, err := f.header(b, i)
		if err != nil {
			return 0, false, err
		}
		i = next
		if whole {
			return i, true, nil
		}
	}
}

// header handles the header line at b[i:], which may have begun in an earlier
// piece. whole tells if it ended the reply; next is the index behind what was
// used.
func (f *Framer) header(b []byte, i int) (whole bool, next int, err error) {
	kind := b[i]
	if f.line > 0 {
		kind = f.head[0]
	}
	switch kind {
	case '+', '-', ':', '_', '#', ',', '(':
		f.line = -1
		return false, i, nil
	case '$', '=', '!', '*', '~', '>', '%', '|':
	default:
		return false, 0, ErrFrame
	}
	var n int
	if f.line == 0 {
		n, next = number(b, i+1, 0)
	}
	if f.line > 0 || next == 0 {
		// Complete the line in head, byte by byte: it is at most 32 long.
		for next = i; next < len(b); {
			if f.line == len(f.head) {
				return false, 0, ErrFrame
			}
			f.head[f.line] = b[next]
			f.line++
			next++
			if f.head[f.line-1] == '\n' {
				break
			}
		}
		var end int
		n, end = number(f.head[:f.line], 1, 0)
		if end == 0 {
			if next < len(b) {
				return false, 0, ErrFrame
			}
			return false, next, nil
		}
		f.line = 0
		if end < 0 {
			next = -1
		}
	}
	if next < 0 || n > maxLength {
		return false, 0, ErrFrame
	}
	switch kind {
	case '$', '=', '!':
		if n < 0 {
			return f.element(), next, nil
		}
		f.skip = n + 2
	case '*', '~', '>':
		return f.open(n, false), next, f.tooDeep()
	case '%':
		return f.open(2*n, false), next, f.tooDeep()
	default:
		// Attributes stand before the value they belong to.
		return f.open(2*n, true), next, f.tooDeep()
	}
	return false, next, nil
}

// open begins an aggregate of n elements and tells if that ended the reply.
// The elements of attributes do not count as the element they stand before.
func (f *Framer) open(n int, attribute bool) bool {
	if n <= 0 {
		return !attribute && f.element()
	}
	if attribute {
		n++ // the value itself ends the attribute
	}
	if f.depth < shallow {
		f.left[f.depth] = n
	} else if f.depth < MaxDepth {
		f.deep = append(f.deep, n)
	}
	f.depth++
	return false
}

func (f *Framer) tooDeep() error {
	if f.depth > MaxDepth {
		return ErrDepth
	}
	return nil
}

// element counts one complete element and tells if that ended the reply.
func (f *Framer) element() bool {
	for n := len(f.deep); n > 0; n-- {
		if f.deep[n-1]--; f.deep[n-1] > 0 {
			return false
		}
		f.depth--
		if f.deep = f.deep[:n-1]; n == 1 {
			f.deep = nil
		}
	}
	for f.depth > 0 {
		if f.left[f.depth-1]--; f.left[f.depth-1] > 0 {
			return false
		}
		f.depth--
	}
	return true
}

package fanout

import "github.com/basalt-redis/basalt/proxy/resp"

// Reader reads one complete reply from front to back. What it returns are parts
// of the reply.
type Reader struct{ rest []byte }

// NewReader reads reply.
func NewReader(reply []byte) Reader { return Reader{reply} }

// Rest is what was not read yet.
func (r *Reader) Rest() []byte { return r.rest }

// Refused tells if the reply is an error.
func (r *Reader) Refused() bool {
	return len(r.rest) > 0 && (r.rest[0] == '-' || r.rest[0] == '!')
}

// Array reads the header of an array and returns the number of its elements.
func (r *Reader) Array() (int, error) {
	n, body, err := array(r.rest)
	if err != nil {
		return 0, err
	}
	r.rest = body
	return n, nil
}

// Next reads the next element.
func (r *Reader) Next() ([]byte, error) {
	b := r.rest
	n := bulkLength(b)
	if n == 0 || n > len(b) {
		// Another kind than a bulk string.
		var f resp.Framer
		end, done, err := f.Feed(b)
		if err != nil || !done {
			return nil, ErrReply
		}
		n = end
	}
	r.rest = b[n:]
	return b[:n], nil
}

// bulkLength is the length of the bulk string at the front of b, its header and
// line ends included; 0 when another reply stands there, or a null.
func bulkLength(b []byte) int {
	if len(b) < 4 || b[0] != '$' {
		return 0
	}
	n := 0
	for i := 1; i < len(b) && i < 12; i++ {
		switch c := b[i]; {
		case c >= '0' && c <= '9':
			n = 10*n + int(c-'0')
		case c == '\r' && i > 1:
			return i + 2 + n + 2
		default:
			return 0
		}
	}
	return 0
}

// Interleave appends the elements of one array, of which i is the next unused
// element of the array parts[order[i]] (MGET). spill is called with what was appended so
// far, and returns what to append to.
func Interleave(dst []byte, order []int32, parts []Reader, spill func([]byte) []byte) ([]byte, error) {
	elements := 0
	for i := range parts {
		n, err := parts[i].Array()
		if err != nil {
			return dst, err
		}
		elements += n
	}
	if elements != len(order) {
		return dst, ErrReply
	}
	for _, part := range order {
		element, err := parts[part].Next()
		if err != nil {
			return dst, err
		}
		dst = spill(append(dst, element...))
	}
	return dst, nil
}

// Package load is a closed-loop generator of Redis requests: one thread, raw
// sockets, epoll. It is made to be cheap and identical for every target, so
// that what is measured is the target.
package load

import (
	"bytes"
	"fmt"
	"strconv"
)

// Command knows one kind of request: how it is written and how its one right
// reply looks. A seed (a key number below Options.Keys) determines both, so a
// reply can be verified without remembering anything but the seed.
type Command interface {
	// AppendRequest appends the request for seed in RESP to dst.
	AppendRequest(dst []byte, seed uint32) []byte
	// CheckReply looks at the reply to seed at the front of buf and returns its
	// length in bytes, or 0 when buf does not hold all of it yet. Any other
	// reply than the right one is an error: nobody is fast by being wrong.
	CheckReply(buf []byte, seed uint32) (int, error)
}

// pattern is what values are cut from; a value's cut depends on its key, so a
// reply with another key's value never verifies.
var pattern = makePattern(1 << 16)

// stride spreads the cuts of neighbouring keys over pattern; prime.
const stride = 61

// idLength is the length of the key number a value begins with.
const idLength = 8

func makePattern(n int) []byte {
	p := make([]byte, n)
	x := uint64(0x9E3779B97F4A7C15)
	for i := range p {
		x = next(x)
		p[i] = 'a' + byte(x>>33)%26
	}
	return p
}

// next is xorshift64: the state that follows x; x must not be 0.
func next(x uint64) uint64 {
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	return x
}

// hexID writes seed as eight hexadecimal digits.
func hexID(dst []byte, seed uint32) []byte {
	const digits = "0123456789abcdef"
	return append(dst,
		digits[seed>>28&15], digits[seed>>24&15], digits[seed>>20&15], digits[seed>>16&15],
		digits[seed>>12&15], digits[seed>>8&15], digits[seed>>4&15], digits[seed&15])
}

// appendValue appends the value of key seed: its number, then its cut of the
// pattern.
func appendValue(dst []byte, seed uint32, size int) []byte {
	if size < idLength {
		id := hexID(nil, seed)
		return append(dst, id[idLength-size:]...)
	}
	dst = hexID(dst, seed)
	for rest := size - idLength; rest > 0; {
		from := int(seed*stride) % (len(pattern) / 2)
		n := min(rest, len(pattern)/2)
		dst = append(dst, pattern[from:from+n]...)
		rest -= n
	}
	return dst
}

// isValue reports whether b is the value of key seed with len(b) bytes.
func isValue(b []byte, seed uint32) bool {
	var id [idLength]byte
	hexID(id[:0], seed)
	if len(b) < idLength {
		return bytes.Equal(b, id[idLength-len(b):])
	}
	if !bytes.Equal(b[:idLength], id[:]) {
		return false
	}
	for b = b[idLength:]; len(b) > 0; {
		from := int(seed*stride) % (len(pattern) / 2)
		n := min(len(b), len(pattern)/2)
		if !bytes.Equal(b[:n], pattern[from:from+n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// keyPrefix precedes the eight digits of the key number.
const keyPrefix = "bench:"

const keyHeader = "$14\r\n" + keyPrefix

func appendKey(dst []byte, seed uint32) []byte {
	dst = append(dst, keyHeader...)
	dst = hexID(dst, seed)
	return append(dst, '\r', '\n')
}

// Set is SET key value with values of one size.
type Set struct {
	valueHeader []byte
	size        int
}

// NewSet makes SET requests with values of size bytes.
func NewSet(size int) *Set {
	return &Set{valueHeader: []byte("$" + strconv.Itoa(size) + "\r\n"), size: size}
}

// AppendRequest implements Command.
func (s *Set) AppendRequest(dst []byte, seed uint32) []byte {
	dst = append(dst, "*3\r\n$3\r\nSET\r\n"...)
	dst = appendKey(dst, seed)
	dst = append(dst, s.valueHeader...)
	dst = appendValue(dst, seed, s.size)
	return append(dst, '\r', '\n')
}

// CheckReply implements Command.
func (s *Set) CheckReply(buf []byte, seed uint32) (int, error) {
	const ok = "+OK\r\n"
	if len(buf) >= len(ok) && string(buf[:len(ok)]) == ok {
		return len(ok), nil
	}
	if len(buf) < len(ok) && string(buf) == ok[:len(buf)] {
		return 0, nil
	}
	return 0, unexpected("SET", seed, buf)
}

// Get is GET of a key that a Set of the same size wrote.
type Get struct {
	valueHeader []byte
	size        int
}

// NewGet makes GET requests for keys that hold values of size bytes.
func NewGet(size int) *Get {
	return &Get{valueHeader: []byte("$" + strconv.Itoa(size) + "\r\n"), size: size}
}

// AppendRequest implements Command.
func (g *Get) AppendRequest(dst []byte, seed uint32) []byte {
	dst = append(dst, "*2\r\n$3\r\nGET\r\n"...)
	return appendKey(dst, seed)
}

// CheckReply implements Command.
func (g *Get) CheckReply(buf []byte, seed uint32) (int, error) {
	h := len(g.valueHeader)
	if len(buf) < h {
		if bytes.Equal(buf, g.valueHeader[:len(buf)]) {
			return 0, nil
		}
		return 0, unexpected("GET", seed, buf)
	}
	if !bytes.Equal(buf[:h], g.valueHeader) {
		return 0, unexpected("GET", seed, buf)
	}
	total := h + g.size + 2
	if len(buf) < total {
		return 0, nil
	}
	if !isValue(buf[h:h+g.size], seed) || buf[total-2] != '\r' || buf[total-1] != '\n' {
		return 0, unexpected("GET", seed, buf[:total])
	}
	return total, nil
}

func unexpected(command string, seed uint32, buf []byte) error {
	const shown = 120
	if len(buf) > shown {
		buf = buf[:shown]
	}
	return fmt.Errorf("wrong reply to %s %s%08x: %q", command, keyPrefix, seed, buf)
}

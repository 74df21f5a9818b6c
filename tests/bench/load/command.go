// Package load is a closed-loop generator of Redis requests: one thread, raw
// sockets, epoll. It is made to be cheap and identical for every target, so
// that what is measured is the target.
package load

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
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

// Space is a set of keys that hold values of one size: a prefix that precedes
// the eight digits of the key number.
type Space struct {
	prefix      string
	keyHeader   string
	valueHeader []byte
	size        int
}

// NewSpace makes a space of keys with a prefix of its own and values of size
// bytes.
func NewSpace(prefix string, size int) *Space {
	return &Space{
		prefix: prefix, keyHeader: "$" + strconv.Itoa(len(prefix)+idLength) + "\r\n" + prefix,
		valueHeader: []byte("$" + strconv.Itoa(size) + "\r\n"), size: size,
	}
}

func (s *Space) appendKey(dst []byte, seed uint32) []byte {
	dst = append(dst, s.keyHeader...)
	dst = hexID(dst, seed)
	return append(dst, '\r', '\n')
}

// checkValue looks at the bulk string that holds the value of key seed.
func (s *Space) checkValue(command string, buf []byte, seed uint32) (int, error) {
	h := len(s.valueHeader)
	if len(buf) < h {
		if bytes.Equal(buf, s.valueHeader[:len(buf)]) {
			return 0, nil
		}
		return 0, s.unexpected(command, seed, buf)
	}
	if !bytes.Equal(buf[:h], s.valueHeader) {
		return 0, s.unexpected(command, seed, buf)
	}
	total := h + s.size + 2
	if len(buf) < total {
		return 0, nil
	}
	if !isValue(buf[h:h+s.size], seed) || buf[total-2] != '\r' || buf[total-1] != '\n' {
		return 0, s.unexpected(command, seed, buf[:total])
	}
	return total, nil
}

func (s *Space) unexpected(command string, seed uint32, buf []byte) error {
	const shown = 120
	if len(buf) > shown {
		buf = buf[:shown]
	}
	return fmt.Errorf("wrong reply to %s %s%08x: %q", command, s.prefix, seed, buf)
}

// checkFixed looks at a reply that is always the same bytes.
func (s *Space) checkFixed(command, want string, buf []byte, seed uint32) (int, error) {
	if len(buf) >= len(want) && string(buf[:len(want)]) == want {
		return len(want), nil
	}
	if len(buf) < len(want) && string(buf) == want[:len(buf)] {
		return 0, nil
	}
	return 0, s.unexpected(command, seed, buf)
}

// Set is SET key value.
type Set struct{ *Space }

// AppendRequest implements Command.
func (s Set) AppendRequest(dst []byte, seed uint32) []byte {
	dst = append(dst, "*3\r\n$3\r\nSET\r\n"...)
	dst = s.appendKey(dst, seed)
	dst = append(dst, s.valueHeader...)
	dst = appendValue(dst, seed, s.size)
	return append(dst, '\r', '\n')
}

// CheckReply implements Command.
func (s Set) CheckReply(buf []byte, seed uint32) (int, error) {
	return s.checkFixed("SET", "+OK\r\n", buf, seed)
}

// Get is GET of a key that a Set of the same space wrote.
type Get struct{ *Space }

// AppendRequest implements Command.
func (g Get) AppendRequest(dst []byte, seed uint32) []byte {
	dst = append(dst, "*2\r\n$3\r\nGET\r\n"...)
	return g.appendKey(dst, seed)
}

// CheckReply implements Command.
func (g Get) CheckReply(buf []byte, seed uint32) (int, error) {
	return g.checkValue("GET", buf, seed)
}

// MGet is MGET of Count neighbouring keys that a Set of the same space wrote;
// their slots, and so their shards, differ. Keys is the size of the key space.
type MGet struct {
	*Space
	Count, Keys uint32
}

// AppendRequest implements Command.
func (m MGet) AppendRequest(dst []byte, seed uint32) []byte {
	dst = strconv.AppendUint(append(dst, '*'), uint64(m.Count)+1, 10)
	dst = append(dst, "\r\n$4\r\nMGET\r\n"...)
	for i := range m.Count {
		dst = m.appendKey(dst, (seed+i)%m.Keys)
	}
	return dst
}

// CheckReply implements Command.
func (m MGet) CheckReply(buf []byte, seed uint32) (int, error) {
	header := "*" + strconv.FormatUint(uint64(m.Count), 10) + "\r\n"
	pos, err := m.checkFixed("MGET", header, buf, seed)
	if pos == 0 || err != nil {
		return 0, err
	}
	for i := range m.Count {
		n, err := m.checkValue("MGET", buf[pos:], (seed+i)%m.Keys)
		if n == 0 || err != nil {
			return 0, err
		}
		pos += n
	}
	return pos, nil
}

// Multi is a transaction of five SETs in one slot, sent in one piece.
type Multi struct{ *Space }

const multiCommands = 5

var multiReply = "+OK\r\n" + strings.Repeat("+QUEUED\r\n", multiCommands) + "*" + strconv.Itoa(multiCommands) + "\r\n" + strings.Repeat("+OK\r\n", multiCommands)

// AppendRequest implements Command.
func (m Multi) AppendRequest(dst []byte, seed uint32) []byte {
	dst = append(dst, "*1\r\n$5\r\nMULTI\r\n"...)
	tagged := strconv.Itoa(len(m.prefix) + idLength + len("{}0"))
	for i := range byte(multiCommands) {
		dst = append(dst, "*3\r\n$3\r\nSET\r\n$"...)
		dst = append(append(append(dst, tagged...), "\r\n{"...), m.prefix...)
		dst = append(hexID(dst, seed), '}', '0'+i, '\r', '\n')
		dst = appendValue(append(dst, m.valueHeader...), seed, m.size)
		dst = append(dst, '\r', '\n')
	}
	return append(dst, "*1\r\n$4\r\nEXEC\r\n"...)
}

// CheckReply implements Command.
func (m Multi) CheckReply(buf []byte, seed uint32) (int, error) {
	return m.checkFixed("MULTI", multiReply, buf, seed)
}

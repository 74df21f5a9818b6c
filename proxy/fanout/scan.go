package fanout

import (
	"bytes"
	"errors"
	"hash/fnv"
	"math"
	"strconv"

	"github.com/tidwall/redcon"
)

// Cursors of SCAN, HSCAN, SSCAN and ZSCAN.
//
// Goal: every element that is there from the beginning of an iteration to its end is
// returned, whatever becomes of masters meanwhile, and the proxy keeps no state, so
// any proxy can go on. Cursors are small, for some clients read them as numbers of
// 32 or 53 bits.
//
//  1. A server's cursor is a place in a hash table, and every process hashes in its
//     own way: to another one it means nothing. So the cursor that a client gets has
//     a tag beside it, which says which incarnation of its shard's master it is of.
//     That of SCAN also has the index of the shard, for it visits one after the other.
//  2. With a tag that is not that of the present master the shard is visited, or the
//     key iterated, from its beginning again. What is returned twice is allowed.
//     Within one process the server's own algorithm does what it promises, whatever
//     becomes of the size of its tables; a cursor by which it finds a key in another
//     encoding, or gone, is answered with all of it, or nothing, and ends.
//  3. A tag is never 0, so no cursor is that but the end. A number that was never
//     given out means some place, as it does at a single server.
//
// A tag is the term of the shard, of which the Configserver makes consecutive
// numbers, in six bits. So it is taken for another one only when a client goes on
// with a cursor after exactly 63 changes of that shard's master, or a multiple of
// it: never in an iteration that goes on, only with a cursor that was put away for
// that long. (While proxies are newer than the Configserver nobody counts, and tags
// are made of the run_id: then each change is one of 63 times not seen.)
//
// How large cursors get: a server's are below the number of buckets, b bits for 2^b
// keys or somewhat more. HSCAN's have b+6 bits here; SCAN's, in a cluster of n
// shards, b+6 bits times n. A server's cursor that does not fit into 63 bits then
// (2^57 buckets) is refused rather than cut.

const (
	tagBits = 6
	tags    = 1<<tagBits - 1
)

// Errors of cursors.
var (
	// ErrCursor: it is not a number.
	ErrCursor = errors.New("invalid cursor")
	// ErrWideCursor: a server's cursor does not fit.
	ErrWideCursor = errors.New("the server's cursor is too large to be passed on")
)

// Cursor is what a client's cursor says.
type Cursor struct {
	// Shard is an index into the routing table's shards; 0 for those of a key.
	Shard int
	// Tag is that of the server that Server comes from.
	Tag uint8
	// Server is the server's own cursor, 0 at the beginning.
	Server uint64
}

// TagOf makes the tag of a shard's master. It is never 0.
func TagOf(term uint64, incarnation string) uint8 {
	if term == 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(incarnation)) // never fails
		term = h.Sum64()
	}
	return uint8(1 + term%tags)
}

// ParseCursor reads a client's cursor as Redis does; shards is how many a cursor may
// be about, 1 for those of a key.
func ParseCursor(text []byte, shards int) (Cursor, error) {
	text, _, _ = bytes.Cut(text, []byte{0}) // as C reads it
	digits, negative := text, false
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		digits, negative = text[1:], text[0] == '-'
	}
	n := uint64(0)
	if len(text) > 0 {
		var err error
		if n, err = strconv.ParseUint(string(digits), 10, 64); err != nil {
			return Cursor{}, ErrCursor
		}
	}
	if negative {
		n = -n
	}
	rest := n / uint64(shards)
	return Cursor{Shard: int(n % uint64(shards)), Tag: uint8(rest & tags), Server: rest >> tagBits}, nil
}

// Encode makes the client's cursor of one that is not at the end. It is never 0.
func (c Cursor) Encode(shards int) (uint64, error) {
	if c.Server > math.MaxInt64/uint64(shards)>>tagBits-1 {
		return 0, ErrWideCursor
	}
	return (c.Server<<tagBits|uint64(c.Tag))*uint64(shards) + uint64(c.Shard), nil
}

// PageHead reads what is in front of the elements in the reply of a server to SCAN
// and its kin: its own cursor, and in how many bytes that is told. n is 0 while b has
// not enough of the reply.
func PageHead(b []byte) (n int, server uint64, err error) {
	const begin = "*2\r\n$"
	if !bytes.HasPrefix(b, []byte(begin)[:min(len(begin), len(b))]) {
		return 0, 0, ErrReply
	}
	if len(b) < len(begin) {
		return 0, 0, nil
	}
	n = len(begin)
	for range 2 { // the length and the cursor
		line := bytes.IndexByte(b[n:], '\n')
		if line < 0 {
			if len(b) > 64 {
				return 0, 0, ErrReply
			}
			return 0, 0, nil
		}
		if line < 2 {
			return 0, 0, ErrReply
		}
		if server, err = strconv.ParseUint(string(b[n:n+line-1]), 10, 64); err != nil {
			return 0, 0, ErrReply
		}
		n += line + 1
	}
	return n, server, nil
}

// Page reads a whole reply: the server's cursor, the number of elements, and these.
func Page(reply []byte) (server uint64, n int, elements []byte, err error) {
	head, server, err := PageHead(reply)
	if err != nil || head == 0 {
		return 0, 0, nil, ErrReply
	}
	n, elements, err = array(reply[head:])
	return server, n, elements, err
}

// AppendPage appends what is in front of the elements in a reply to a client; its
// cursor is 0 at the end.
func AppendPage(dst []byte, cursor uint64) []byte {
	dst = redcon.AppendArray(dst, 2)
	return redcon.AppendBulkString(dst, strconv.FormatUint(cursor, 10))
}

// Passed is the client's cursor for a server's in a reply to HSCAN and its kin.
func Passed(server uint64, tag uint8) (uint64, error) {
	if server == 0 {
		return 0, nil
	}
	return Cursor{Tag: tag, Server: server}.Encode(1)
}

package fanout

import (
	"bytes"
	"errors"
	"hash/fnv"
	"strconv"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/routing"
)

// SCAN over all shards.
//
// Goal: every key that exists from the beginning of an iteration to its end is
// returned, and the proxy keeps no state, so any proxy can go on.
//
//  1. The iteration visits one shard after the other. The cursor a client gets
//     has the index of the shard, the server's own cursor, and a stamp of the
//     server.
//  2. A server's cursor is a place in its hash table, and every process hashes
//     keys in its own way. So when another server has become the master, the
//     cursor means nothing there: the stamp tells, and the shard is visited from
//     its beginning again. Keys may then be returned twice, which SCAN allows.
//  3. A cursor of a shard that does not exist any more begins the whole
//     iteration again.
//
// What may be lost: a stamp has 16 bits, so once in 65535 changes of the master
// during an iteration the new one is taken for the old.
//
// Redis's cursors are below the size of its hash table, which is why 37 bits are
// enough; a larger one is refused rather than cut. Client's cursors are below
// 2^63, and below 2^53 for servers with fewer than 134 million keys, for some
// clients read them as signed or floating-point numbers.

const (
	stampBits       = 16
	serverUnit      = routing.MaxShards << stampBits
	maxServerCursor = 1<<63/serverUnit - 1
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
	// Shard is an index into the routing table's shards.
	Shard int
	// Stamp is that of the server that Server comes from.
	Stamp uint16
	// Server is the server's own cursor, 0 at the beginning.
	Server uint64
}

// StampOf makes the stamp of a server from its run_id. It is never 0.
func StampOf(incarnation string) uint16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(incarnation)) // never fails
	sum := h.Sum32()
	return max(uint16(sum^sum>>16), 1)
}

// ParseCursor reads a client's cursor as Redis does. Numbers that SCAN never
// returned mean some place.
func ParseCursor(text []byte) (Cursor, error) {
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
	return Cursor{Shard: int(n % routing.MaxShards), Stamp: uint16(n / routing.MaxShards), Server: n / serverUnit}, nil
}

// Encode makes the client's cursor. Its end, 0, is never made.
func (c Cursor) Encode() (uint64, error) {
	if c.Server > maxServerCursor {
		return 0, ErrWideCursor
	}
	return c.Server*serverUnit + uint64(max(c.Stamp, 1))*routing.MaxShards + uint64(c.Shard), nil
}

// next is the client's cursor behind a page: a server's cursor of 0 goes on to
// the next shard, and behind the last one is the end.
func (c Cursor) next(shards int) (uint64, error) {
	if c.Server == 0 {
		if c.Shard++; c.Shard >= shards {
			return 0, nil
		}
	}
	return c.Encode()
}

// ScanReply appends a reply to SCAN of the server of a shard, whose stamp is
// given, with the cursor replaced by the client's.
func ScanReply(dst, reply []byte, shard, shards int, stamp uint16) ([]byte, error) {
	n, body, err := array(reply)
	if err != nil || n != 2 {
		return dst, ErrReply
	}
	end, err := bulkEnd(body)
	if err != nil {
		return dst, err
	}
	text, err := Bulk(body[:end])
	if err != nil {
		return dst, err
	}
	server, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return dst, ErrReply
	}
	cursor, err := Cursor{shard, stamp, server}.next(shards)
	if err != nil {
		return dst, err
	}
	return append(appendPage(dst, cursor), body[end:]...), nil
}

// EmptyPage appends a reply to SCAN without a key, from where the iteration goes
// on at the beginning of a shard.
func EmptyPage(dst []byte, shard int) []byte {
	cursor, _ := Cursor{Shard: shard}.Encode() // it fits
	return redcon.AppendArray(appendPage(dst, cursor), 0)
}

func appendPage(dst []byte, cursor uint64) []byte {
	dst = redcon.AppendArray(dst, 2)
	return redcon.AppendBulkString(dst, strconv.FormatUint(cursor, 10))
}

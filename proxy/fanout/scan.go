package fanout

import (
	"errors"
	"strconv"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/routing"
)

// SCAN over all shards visits one after the other. The cursor a client gets is
// the server's cursor times 1024 plus the index of the shard, so the proxy
// keeps no state and any proxy can go on. Redis's cursors are below the size
// of its hash table, that is, far below 2^54; a larger one is refused rather
// than cut.

const maxServerCursor = ^uint64(0) / routing.MaxShards

// Errors of cursors.
var (
	// ErrCursor: it is not one that SCAN returned.
	ErrCursor = errors.New("invalid cursor")
	// ErrWideCursor: a server's cursor does not fit.
	ErrWideCursor = errors.New("the server's cursor is too large to be passed on")
)

// DecodeCursor splits a client's cursor into a shard index and the cursor of
// that shard's server.
func DecodeCursor(text []byte) (shard int, cursor uint64, err error) {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0, 0, ErrCursor
	}
	return int(n % routing.MaxShards), n / routing.MaxShards, nil
}

// EncodeCursor makes the client's cursor. A server's cursor of 0 goes on to the
// next shard, and behind the last of shards it is the end, 0.
func EncodeCursor(shard, shards int, cursor uint64) (uint64, error) {
	if cursor > maxServerCursor {
		return 0, ErrWideCursor
	}
	if cursor == 0 {
		if shard++; shard >= shards {
			return 0, nil
		}
	}
	return cursor*routing.MaxShards + uint64(shard), nil
}

// ScanReply appends a reply to SCAN of one shard's server, with the cursor
// replaced by the client's.
func ScanReply(dst, reply []byte, shard, shards int) ([]byte, error) {
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
	cursor, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return dst, ErrReply
	}
	if cursor, err = EncodeCursor(shard, shards, cursor); err != nil {
		return dst, err
	}
	dst = redcon.AppendArray(dst, 2)
	dst = redcon.AppendBulkString(dst, strconv.FormatUint(cursor, 10))
	return append(dst, body[end:]...), nil
}

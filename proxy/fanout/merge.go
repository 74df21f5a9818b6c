// Package fanout joins the replies of several shards into the one reply that a
// single Redis would have given. Everything here is a pure function of bytes.
package fanout

import (
	"bytes"
	"errors"
	"slices"
	"strconv"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/resp"
)

// ErrReply means that a shard answered with something the command never
// answers with.
var ErrReply = errors.New("a shard sent a reply of an unexpected kind")

// FirstError returns the first reply that is an error, nil when there is none.
func FirstError(parts [][]byte) []byte {
	for _, p := range parts {
		if len(p) > 0 && (p[0] == '-' || p[0] == '!') {
			return p
		}
	}
	return nil
}

// Sum appends the sum of integer replies (DEL, EXISTS, TOUCH, UNLINK, DBSIZE).
func Sum(dst []byte, parts [][]byte) ([]byte, error) {
	var sum int64
	for _, p := range parts {
		n, err := Integer(p)
		if err != nil {
			return dst, err
		}
		sum += n
	}
	return redcon.AppendInt(dst, sum), nil
}

// Integer reads an integer reply.
func Integer(reply []byte) (int64, error) {
	if len(reply) < 4 || reply[0] != ':' {
		return 0, ErrReply
	}
	n, err := strconv.ParseInt(string(reply[1:len(reply)-2]), 10, 64)
	if err != nil {
		return 0, ErrReply
	}
	return n, nil
}

// OK appends "+OK" when every part is that (MSET, FLUSHALL, FLUSHDB).
func OK(dst []byte, parts [][]byte) ([]byte, error) {
	for _, p := range parts {
		if !bytes.Equal(p, []byte("+OK\r\n")) {
			return dst, ErrReply
		}
	}
	return append(dst, "+OK\r\n"...), nil
}

// Concat appends one array with the elements of all (KEYS).
func Concat(dst []byte, parts [][]byte) ([]byte, error) {
	total, size := 0, 32
	for _, p := range parts {
		n, _, err := array(p)
		if err != nil {
			return dst, err
		}
		total += n
		size += len(p)
	}
	dst = redcon.AppendArray(slices.Grow(dst, size), total)
	for _, p := range parts {
		_, body, _ := array(p)
		dst = append(dst, body...)
	}
	return dst, nil
}

// Elements splits an array reply into its elements, which are parts of it.
func Elements(reply []byte) (elements [][]byte, err error) {
	n, rest, err := array(reply)
	if err != nil {
		return nil, err
	}
	for range n {
		end, err := bulkEnd(rest)
		if err != nil {
			return nil, err
		}
		elements = append(elements, rest[:end])
		rest = rest[end:]
	}
	return elements, nil
}

// array splits an array, set or push into its length and its elements. A null
// array is an empty one.
func array(reply []byte) (n int, body []byte, err error) {
	end := bytes.IndexByte(reply, '\n') + 1
	if end < 4 || reply[0] != '*' && reply[0] != '~' && reply[0] != '>' {
		return 0, nil, ErrReply
	}
	n, err = strconv.Atoi(string(reply[1 : end-2]))
	if err != nil {
		return 0, nil, ErrReply
	}
	return max(n, 0), reply[end:], nil
}

// Bulk returns the content of a bulk or verbatim string reply, nil for a null.
func Bulk(reply []byte) ([]byte, error) {
	end := bytes.IndexByte(reply, '\n') + 1
	if end < 4 || reply[0] != '$' && reply[0] != '=' {
		return nil, ErrReply
	}
	n, err := strconv.Atoi(string(reply[1 : end-2]))
	switch {
	case err != nil || n >= 0 && len(reply) != end+n+2:
		return nil, ErrReply
	case n < 0:
		return nil, nil
	}
	body := reply[end : end+n]
	if reply[0] == '=' && len(body) >= 4 {
		body = body[4:] // "txt:"
	}
	return body, nil
}

// bulkEnd returns where the reply at the front of b ends.
func bulkEnd(b []byte) (int, error) {
	var f resp.Framer
	n, done, err := f.Feed(b)
	if err != nil || !done {
		return 0, ErrReply
	}
	return n, nil
}

// Least appends the lowest of integer replies (LASTSAVE, WAIT), or an array of the
// lowest of each element (WAITAOF).
func Least(dst []byte, parts [][]byte) ([]byte, error) {
	var least []int64
	isArray := false
	for i, p := range parts {
		elements := [][]byte{p}
		if isArray = len(p) > 0 && p[0] == '*'; isArray {
			var err error
			if elements, err = Elements(p); err != nil {
				return dst, err
			}
		}
		if i == 0 {
			least = make([]int64, len(elements))
		}
		if len(elements) != len(least) {
			return dst, ErrReply
		}
		for j, element := range elements {
			n, err := Integer(element)
			if err != nil {
				return dst, err
			}
			if i == 0 || n < least[j] {
				least[j] = n
			}
		}
	}
	if isArray {
		dst = redcon.AppendArray(dst, len(least))
	}
	for _, n := range least {
		dst = redcon.AppendInt(dst, n)
	}
	return dst, nil
}

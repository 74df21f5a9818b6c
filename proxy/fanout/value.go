package fanout

import (
	"bytes"
	"strconv"
)

// value is a reply taken apart. A map's items are its keys and values in turn,
// so that it looks the same in both versions of the protocol.
type value struct {
	kind  byte
	text  []byte
	items []value
}

// maxDepth is how deep replies about servers are nested at most.
const maxDepth = 8

// parse reads one whole reply.
func parse(reply []byte) (value, error) {
	v, rest, err := parseOne(reply, maxDepth)
	if err == nil && len(rest) > 0 {
		err = ErrReply
	}
	return v, err
}

func parseOne(b []byte, depth int) (v value, rest []byte, err error) {
	end := bytes.IndexByte(b, '\n') + 1
	if end < 3 || depth == 0 {
		return v, nil, ErrReply
	}
	v.kind, v.text, rest = b[0], b[1:end-2], b[end:]
	switch v.kind {
	case '+', '-', ':', ',', '#', '_', '(':
		return v, rest, nil
	}
	n, err := strconv.Atoi(string(v.text))
	if err != nil {
		return v, nil, ErrReply
	}
	switch v.kind {
	case '$', '=', '!':
		if n < 0 {
			v.text = nil
			return v, rest, nil
		}
		if len(rest) < n+2 {
			return v, nil, ErrReply
		}
		v.text = rest[:n]
		return v, rest[n+2:], nil
	case '%':
		n *= 2
	case '*', '~':
	default:
		return v, nil, ErrReply
	}
	if n > len(rest)/3 { // each takes at least so much
		return v, nil, ErrReply
	}
	v.text = nil
	for range n {
		var item value
		if item, rest, err = parseOne(rest, depth-1); err != nil {
			return v, nil, err
		}
		v.items = append(v.items, item)
	}
	return v, rest, nil
}

// list reads a reply that is an array, a set or a map.
func list(reply []byte) ([]value, error) {
	v, err := parse(reply)
	if err != nil || v.kind != '*' && v.kind != '~' && v.kind != '%' {
		return nil, ErrReply
	}
	return v.items, nil
}

// pairs reads a reply that is a map: keys and values in turn.
func pairs(reply []byte) ([]value, error) {
	items, err := list(reply)
	if err != nil || len(items)%2 != 0 {
		return nil, ErrReply
	}
	return items, nil
}

func (v value) integer() int64 {
	n, _ := strconv.ParseInt(string(v.text), 10, 64) // 0 for what is no number
	return n
}

// appendMap begins a map of n pairs.
func appendMap(dst []byte, proto uint8, n int) []byte {
	if proto >= 3 {
		return append(strconv.AppendInt(append(dst, '%'), int64(n), 10), "\r\n"...)
	}
	return append(strconv.AppendInt(append(dst, '*'), int64(2*n), 10), "\r\n"...)
}

// appendDouble appends a number as Redis does.
func appendDouble(dst []byte, proto uint8, f float64) []byte {
	text := strconv.FormatFloat(f, 'g', 17, 64)
	if proto >= 3 {
		return append(append(append(dst, ','), text...), "\r\n"...)
	}
	dst = append(strconv.AppendInt(append(dst, '$'), int64(len(text)), 10), "\r\n"...)
	return append(append(dst, text...), "\r\n"...)
}

// Parameters reads a reply to CONFIG GET: names and values in turn.
func Parameters(reply []byte) ([]string, error) {
	items, err := pairs(reply)
	if err != nil {
		return nil, err
	}
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = string(item.text)
	}
	return words, nil
}

package conformance

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// reply is one reply as it came, and what it consists of.
type reply struct {
	// raw bytes, line ends and all.
	raw []byte
	// kind is the first byte: + - : $ * and RESP3's _ , # ! = ( % ~ > |. It is
	// noReply or hungUp when there was nothing to read.
	kind byte
	// text of a kind that is no aggregate; null tells of nulls of any kind.
	text []byte
	null bool
	// items of an aggregate; keys and values alternate in a map.
	items []reply
}

const (
	noReply = 'T' // nothing came in time
	hungUp  = 'X' // the connection was closed
)

// read reads one reply. What is no RESP is an error, and so is nothing else.
func read(r *bufio.Reader) (reply, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		kind := byte(hungUp)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			kind = noReply
		}
		return reply{kind: kind, raw: line}, nil
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return reply{}, fmt.Errorf("no RESP: %q", line)
	}
	p := reply{kind: line[0], text: line[1 : len(line)-2], raw: line}
	switch p.kind {
	case '+', '-', ':', ',', '#', '(':
		return p, nil
	case '_':
		p.null = true
		return p, nil
	}
	n, err := strconv.Atoi(string(p.text))
	if err != nil {
		return reply{}, fmt.Errorf("no RESP: %q", line)
	}
	p.text = nil
	if n < 0 {
		p.null = true
		return p, nil
	}
	switch p.kind {
	case '$', '=', '!':
		body := make([]byte, n+2)
		if _, err := io.ReadFull(r, body); err != nil {
			return reply{}, fmt.Errorf("a %c of %d bytes: %w", p.kind, n, err)
		}
		p.text, p.raw = body[:n], append(p.raw, body...)
	case '%', '|':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for range n {
			item, err := read(r)
			if err != nil {
				return reply{}, err
			}
			p.items, p.raw = append(p.items, item), append(p.raw, item.raw...)
		}
	default:
		return reply{}, fmt.Errorf("no RESP: %q", line)
	}
	return p, nil
}

func (p reply) isError() bool { return p.kind == '-' || p.kind == '!' }

func (p reply) aggregate() bool { return bytes.IndexByte([]byte("*~%>|"), p.kind) >= 0 }

// String is what people are shown.
func (p reply) String() string {
	switch p.kind {
	case noReply:
		return "(no reply in time)"
	case hungUp:
		return "(connection closed)"
	}
	const shown = 400
	if len(p.raw) > shown {
		return fmt.Sprintf("%q… (%d bytes)", p.raw[:shown], len(p.raw))
	}
	return fmt.Sprintf("%q", p.raw)
}

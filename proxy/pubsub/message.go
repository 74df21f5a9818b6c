package pubsub

import (
	"bytes"
	"strconv"

	"github.com/basalt-redis/basalt/proxy/buffer"
)

// shareSize is the size from which the subscribers of a message share one copy
// of it. Below, copying costs less than the bookkeeping.
const shareSize = 8 << 10

// Message is a message on its way to its subscribers, valid during the call
// that delivers it.
type Message struct {
	pool *buffer.Pool
	// frame is the push as a server sent it, in RESP3. RESP2 differs in the
	// first byte only.
	frame []byte
	// whole holds the frame when it is shared; nil until then.
	whole *buffer.Chunk
}

// Len is its size in bytes.
func (m *Message) Len() int { return len(m.frame) }

// AppendTo appends the message to a client's output in a protocol version.
func (m *Message) AppendTo(q *buffer.Queue, proto int) {
	first := ">"
	if proto == 2 {
		first = "*"
	}
	q.Append(m.pool, []byte(first))
	if len(m.frame) < shareSize {
		q.Append(m.pool, m.frame[1:])
		return
	}
	if m.whole == nil {
		m.whole = m.pool.GetTight(len(m.frame))
		m.whole.B = append(m.whole.B, m.frame...)
		m.pool.Charge(m.whole)
		m.frame = m.whole.B
	}
	q.AppendView(m.pool.View(m.whole, 1))
}

// release ends the delivery.
func (m *Message) release() {
	if m.whole != nil {
		m.pool.PutShared(m.whole)
	}
}

// classify finds out what a push is: of a message, its kind and the name under
// which clients subscribed to it. ok is false for confirmations and for pushes
// that are none of ours.
func classify(frame []byte) (k Kind, name []byte, ok bool) {
	end := bytes.IndexByte(frame, '\n') + 1
	what, rest, ok := cutBulk(frame[end:])
	if !ok {
		return 0, nil, false
	}
	switch string(what) {
	case "message":
		k = Channel
	case "pmessage":
		k = Pattern
	case "smessage":
		k = Shard
	default:
		return 0, nil, false
	}
	name, _, ok = cutBulk(rest)
	return k, name, ok
}

// cutBulk takes a bulk string from the front.
func cutBulk(b []byte) (text, rest []byte, ok bool) {
	end := bytes.IndexByte(b, '\n') + 1
	if end < 4 || b[0] != '$' {
		return nil, nil, false
	}
	n := 0
	for _, c := range b[1 : end-2] {
		if c < '0' || c > '9' || n > 1<<30 {
			return nil, nil, false
		}
		n = 10*n + int(c-'0')
	}
	if end+n+2 > len(b) {
		return nil, nil, false
	}
	return b[end : end+n], b[end+n+2:], true
}

// verbs are the names of the commands by kind.
var verbs = [kinds]struct{ on, off string }{
	{"subscribe", "unsubscribe"}, {"psubscribe", "punsubscribe"}, {"ssubscribe", "sunsubscribe"},
}

// appendConfirmation appends the confirmation of one name.
func appendConfirmation(dst []byte, proto int, verb, name string, count int) []byte {
	dst = appendBulk(appendVerb(dst, proto, verb), name)
	return appendCount(dst, count)
}

// appendNothing appends the answer to an UNSUBSCRIBE from everything when there
// is nothing.
func appendNothing(dst []byte, proto int, verb string, count int) []byte {
	dst = appendVerb(dst, proto, verb)
	if proto == 2 {
		dst = append(dst, "$-1\r\n"...)
	} else {
		dst = append(dst, "_\r\n"...)
	}
	return appendCount(dst, count)
}

func appendVerb(dst []byte, proto int, verb string) []byte {
	if proto == 2 {
		dst = append(dst, "*3\r\n"...)
	} else {
		dst = append(dst, ">3\r\n"...)
	}
	return appendBulk(dst, verb)
}

func appendCount(dst []byte, count int) []byte {
	return append(strconv.AppendInt(append(dst, ':'), int64(count), 10), "\r\n"...)
}

func appendBulk(dst []byte, s string) []byte {
	dst = strconv.AppendInt(append(dst, '$'), int64(len(s)), 10)
	return append(append(append(dst, "\r\n"...), s...), "\r\n"...)
}

func appendArray(dst []byte, n int) []byte {
	return append(strconv.AppendInt(append(dst, '*'), int64(n), 10), "\r\n"...)
}

package backend

import "bytes"

// Block makes one request of several commands: a transaction, from MULTI to
// EXEC. It is one request for everything that holds, routes and fails requests,
// so it is never half on one master and half on another, and its bytes stand
// in one piece on a connection that others share.
//
// The server answers each command; only the last reply is passed on, the one
// to EXEC. A command that the server refused to queue (out of memory, a
// replica that does not write) makes it answer EXEC with EXECABORT "because of
// previous errors"; the client was told QUEUED by the proxy and knows of none,
// so the reason is put in their place, in the words of Redis for errors of
// EXEC itself.
type Block struct {
	// Before is how many replies come before the one that is passed on.
	Before int
	// Lost is the reply when the pinned connection that the request depends on
	// was lost before the request can have been executed: EXEC finds that a
	// WATCHed key was touched, for it may have been.
	Lost []byte
	// Tracked: the server remembers that this connection read the keys, and
	// tells when they change (CLIENT TRACKING).
	Tracked bool
	// Reads are the bytes of a transaction that only reads, while it may be needed
	// once more.
	Reads []byte
	// Scripts are those that it runs by their SHA-1 and that were not put in front
	// of it.
	Scripts []string

	left    int    // of Before
	refusal []byte // the first error among the replies before
	begun   bool   // a part of the reply was passed on
	reading bool   // refusal is not complete
}

// maxRefusal bounds what is kept of an error, in bytes.
const maxRefusal = 512

// swallow takes a piece of a reply that is not passed on.
func (b *Block) swallow(piece []byte, begins, last bool) {
	if begins && piece[0] == '-' && b.refusal == nil {
		b.reading = true
	}
	if b.reading {
		b.refusal = append(b.refusal, piece[:min(len(piece), maxRefusal-len(b.refusal))]...)
	}
	if last {
		b.reading = false
		b.left--
	}
}

var (
	execAborted  = []byte("-EXECABORT ")
	abortBecause = []byte("-EXECABORT Transaction discarded because of: ")
)

// explain returns what is passed on for a piece of the last reply.
func (b *Block) explain(piece []byte, last bool) []byte {
	if b.refusal == nil || b.begun || !last || !bytes.HasPrefix(piece, execAborted) {
		b.begun = true
		return piece
	}
	text := append([]byte(nil), abortBecause...)
	text = append(text, bytes.TrimRight(b.refusal[1:], "\r\n")...)
	return append(text, "\r\n"...)
}

// A rehearsal is a command between these two: the server checks it, and does not
// execute it. They are written as nobody else writes them, so that they can be
// told from the MULTI of an application where a server shows what it gets.
var (
	RehearsalBegin = []byte("*1\r\n$5\r\nmUlTI\r\n")
	RehearsalEnd   = []byte("*1\r\n$7\r\ndIsCARD\r\n")
)

// Refusal is the first error among the replies that were not passed on, with its
// line end; nil when there was none.
func (b *Block) Refusal() []byte {
	if b.refusal == nil {
		return nil
	}
	return append(bytes.TrimRight(b.refusal, "\r\n"), "\r\n"...)
}

// restart makes it ready to be sent (again).
func (b *Block) restart() { b.left, b.refusal, b.begun, b.reading = b.Before, nil, false, false }

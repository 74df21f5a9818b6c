package reactor

import (
	"bytes"
	"errors"

	"github.com/basalt-redis/basalt/proxy/backend"
)

// A pinned connection belongs to the proxies. A transaction behind WATCH that runs
// scripts on behalf of an identity (side.go) is the last thing that its pin does: it
// waits until the server confirmed that the connection is the identity's now, and
// after it the connection is closed. Keys stay watched meanwhile.

var errOtherUser = errors.New("the connection belongs to a user")

// userPause is how long, in nanoseconds, a pin waits before it asks again for a user
// that the server does not know.
const userPause = int64(50e6)

// isUser tells if the connection is what a request is sent on behalf of.
func (p *pin) isUser(r *backend.Request) bool {
	return r.As == nil && p.conn.Target.User == "" || r.As != nil && p.conn.Target.User == r.As.User
}

// becomeUser has the connection become what a request is sent on behalf of; the
// answer pumps again.
func (p *pin) becomeUser(as *backend.Identity) {
	l := p.loop
	switch {
	case as == nil || as.User == "" || p.conn.Target.User != "":
		p.lose(false, errOtherUser) // there is no way back
		return
	case p.askUserAt > l.sh.Now:
		l.timerAt(p.askUserAt)
		return
	}
	p.selecting = true
	r := l.sh.Requests.Get()
	r.Owner, r.Start = &becoming{p, p.conn, as.User}, l.sh.Now
	p.conn.Enqueue(r, backend.AuthAs(&p.conn.Target, as.User))
}

// becoming is the owner of an AUTH on a pinned connection.
type becoming struct {
	pin  *pin
	conn *backend.Conn
	user string
}

// Reply takes the answer. Without the user nothing is sent: it would run with the
// proxies' rights.
func (b *becoming) Reply(r *backend.Request, piece []byte, last bool, _ byte) {
	p := b.pin
	if !last {
		return // no reply to AUTH is that long
	}
	b.Fail(r, nil)
	if p.conn != b.conn {
		return
	}
	if bytes.Equal(piece, lineOK) {
		b.conn.Target.User, p.askUserAt = b.user, 0
	} else {
		p.askUserAt = p.loop.sh.Now + userPause
	}
	p.pump()
}

// Fail: the connection ended, which the pin knows.
func (b *becoming) Fail(r *backend.Request, _ []byte) {
	b.pin.selecting = false
	b.pin.loop.sh.Requests.Put(r)
}

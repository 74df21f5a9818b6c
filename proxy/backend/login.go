package backend

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/proxy/software"
)

// Waits before connecting again: doubled after each failure.
const (
	firstBackoff = int64(20 * time.Millisecond)
	lastBackoff  = int64(500 * time.Millisecond)
)

// Requests of the Conn itself, in Request.Part.
const (
	askLogin = iota
	askIncarnation
	askDatabase
	askAlive
	askTracking
	askUser
)

// A DatabaseError ends a login to a server that does not have the database, or
// does not allow it. Line is what it said, a complete RESP error.
type DatabaseError struct{ Line []byte }

func (e *DatabaseError) Error() string {
	return "the server refuses the database: " + string(bytes.TrimRight(e.Line, "\r\n"))
}

// Open begins to connect; timeout, in nanoseconds, includes the login.
func (c *Conn) Open(timeout int64) {
	if c.state != Closed {
		return
	}
	c.state, c.RetryAt = Connecting, 0
	c.Deadline = c.host.Now() + timeout
	c.attempt++
	addr, err := netip.ParseAddrPort(c.Target.Address)
	if err != nil {
		c.host.Resolve(c, c.attempt)
		return
	}
	c.Dial(c.attempt, addr, nil)
}

// Dial connects to an address that was looked up, or gives up with an error.
func (c *Conn) Dial(attempt uint64, addr netip.AddrPort, err error) {
	if attempt != c.attempt || c.state != Connecting || c.FD >= 0 {
		return // something else happened meanwhile
	}
	if err == nil {
		err = c.dial(addr)
	}
	if err != nil {
		c.Break(SightRefused, fmt.Errorf("connect: %w", err), LineLost)
	}
}

func (c *Conn) dial(addr netip.AddrPort) error {
	family := syscall.AF_INET6
	var to syscall.Sockaddr = &syscall.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	if addr.Addr().Is4() || addr.Addr().Is4In6() {
		family = syscall.AF_INET
		to = &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		_ = syscall.Close(fd)
		return err
	}
	if err := syscall.Connect(fd, to); err != nil && err != syscall.EINPROGRESS {
		_ = syscall.Close(fd)
		return err
	}
	c.FD = fd
	c.host.Watch(c)
	return nil
}

// Writable is called when the socket takes bytes: the connection was made (or
// not), or a full socket has room again. It returns true while bytes wait.
func (c *Conn) Writable() (full bool) {
	if c.state != Connecting {
		return c.Flush()
	}
	code, err := syscall.GetsockoptInt(c.FD, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err == nil && code != 0 {
		err = syscall.Errno(code)
	}
	if err != nil {
		c.Break(SightRefused, fmt.Errorf("connect: %w", err), LineLost)
		return false
	}
	c.state = Login
	c.login()
	return c.Flush()
}

// login sends the credentials, asks who answers, and chooses the database.
func (c *Conn) login() {
	t := &c.Target
	var hello []byte
	switch {
	case t.Proto == 3 && t.Username != "":
		hello = appendCommand(hello, "HELLO", "3", "AUTH", t.Username, t.Password)
	case t.Proto == 3:
		hello = appendCommand(hello, "HELLO", "3")
	case t.Username != "":
		hello = appendCommand(hello, "AUTH", t.Username, t.Password)
	case t.Control:
		hello = appendCommand(hello, "HELLO", "2")
	default:
		hello = appendCommand(hello, "PING")
	}
	c.ask(askLogin, hello)
	if t.Control {
		return
	}
	if t.Proto == 3 {
		for _, raw := range trackingRequests(t) {
			c.ask(askTracking, raw)
		}
	}
	if t.Incarnation != "" {
		c.ask(askIncarnation, appendCommand(nil, "INFO", "server"))
	}
	if t.DB != 0 {
		c.ask(askDatabase, appendCommand(nil, "SELECT", strconv.Itoa(int(t.DB))))
	}
}

// trackingRequests have a server track keys for a connection.
func trackingRequests(t *Target) (requests [][]byte) {
	words := func(more ...string) []string {
		return append([]string{"CLIENT", "TRACKING", "ON"}, more...)
	}
	switch {
	case t.As.Hears(t):
		named, all := words("BCAST", "NOLOOP"), false
		for _, prefix := range t.As.Prefixes {
			if all = all || prefix == ""; prefix != "" {
				named = append(named, "PREFIX", prefix)
			}
		}
		if len(named) > 5 {
			requests = append(requests, appendCommand(nil, named...))
		}
		if all { // it overlaps the others, so a server takes it by itself only
			requests = append(requests, appendCommand(nil, words("BCAST", "NOLOOP")...))
		}
		return requests
	case t.As.IsPrivate():
		return append(requests, appendCommand(nil, words("OPTIN", "NOLOOP")...))
	}
	// Whatever is read behind CLIENT CACHING YES is tracked from then on.
	return append(requests, appendCommand(nil, words("OPTIN")...))
}

// Auth is the request by which a connection that is logged in takes other
// credentials.
func Auth(t *Target) []byte { return appendCommand(nil, "AUTH", t.Username, t.Password) }

// AuthAs is the request by which a connection that is logged in becomes the user of
// an identity.
func AuthAs(t *Target, user string) []byte {
	return appendCommand(nil, "AUTH", acl.NodeUser(t.ScriptUsername, user), t.ScriptPassword)
}

func appendCommand(dst []byte, args ...string) []byte {
	dst = redcon.AppendArray(dst, len(args))
	for _, a := range args {
		dst = redcon.AppendBulkString(dst, a)
	}
	return dst
}

// ask enqueues a request of the Conn itself.
func (c *Conn) ask(what int32, raw []byte) {
	r := c.host.Requests().Get()
	r.Owner, r.Part, r.Start = c, what, c.host.Now()
	c.Enqueue(r, raw)
}

var ping = []byte("*1\r\n$4\r\nPING\r\n")

// Ping asks for a sign of life, when nothing else is in flight.
func (c *Conn) Ping() {
	if c.state == Ready && c.inFlight == 0 {
		c.ask(askAlive, ping)
	}
}

// Reply takes the replies to the Conn's own requests.
func (c *Conn) Reply(r *Request, piece []byte, last bool, kind byte) {
	r.Out.Append(c.host.Pool(), piece)
	if !last {
		return
	}
	text := r.Out.Bytes()
	what := r.Part
	c.drop(r)
	switch {
	case what == askAlive:
		return
	case kind == '-':
		c.refused(what, text)
		return
	case what == askIncarnation:
		if id := software.Field(text, "run_id"); id != c.Target.Incarnation {
			c.Break(SightFenced, fmt.Errorf("%w: run_id %.40q, admitted is %.40q", errRestart, id, c.Target.Incarnation), LineLost)
			return
		}
		c.Software = software.Of(text)
	}
	if c.inFlight > 0 {
		return
	}
	if user := c.Target.User; user != "" && what != askUser {
		// The last step: its user may not be allowed any of the above. It goes out when all
		// of that is answered: servers from 7.2 that refuse an AUTH say nothing at all while
		// other replies wait to be sent.
		c.ask(askUser, AuthAs(&c.Target, user))
		return
	}
	c.state, c.Deadline, c.backoff = Ready, 0, 0
	c.Opened++
	c.host.Opened(c)
}

// refused ends a login that was answered with an error. A server that is busy
// or loading answers, so it is not dead; it is asked again later.
func (c *Conn) refused(what int32, line []byte) {
	text := bytes.TrimRight(line, "\r\n")
	if bytes.HasPrefix(text, []byte("-BUSY")) || bytes.HasPrefix(text, []byte("-LOADING")) {
		c.Break(SightOK, fmt.Errorf("login: %s", text), LineLost)
		return
	}
	if what == askUser {
		c.Break(SightOK, &UserError{string(text)}, LineLost)
		return
	}
	if what == askDatabase {
		c.Break(SightOK, &DatabaseError{bytes.Clone(line)}, LineLost)
		return
	}
	c.Break(SightFenced, fmt.Errorf("%w: %s", errFenced, text), LineLost)
}

// Fail ends one of the Conn's own requests.
func (c *Conn) Fail(r *Request, _ []byte) { c.drop(r) }

// Failing tells if the last attempt to connect failed, or the connection broke.
func (c *Conn) Failing() bool { return c.backoff > 0 }

// Backoff sets RetryAt after a failure and returns it.
func (c *Conn) Backoff() int64 {
	c.backoff = min(max(2*c.backoff, firstBackoff), lastBackoff)
	c.RetryAt = c.host.Now() + c.backoff
	return c.RetryAt
}

// Expire ends an attempt to connect that is past its deadline.
func (c *Conn) Expire() {
	c.Break(SightTimeout, fmt.Errorf("connect: %w after %s", errNoAnswer, strconv.Quote(c.Target.Address)), LineLost)
}

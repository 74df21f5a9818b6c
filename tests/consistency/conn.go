package consistency

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"
)

// ReplyError is an error reply of the server or proxy, without the "-".
type ReplyError string

// Error returns the text as it was received.
func (e ReplyError) Error() string { return string(e) }

// Reply is one reply: exactly one of the fields is meaningful. Nil replies have
// Null set.
type Reply struct {
	Text  []byte
	Int   int64
	Array []Reply
	Null  bool
	Err   error // a ReplyError
}

// Conn is one connection that has at most one request in flight and never
// retries anything. It is not safe for concurrent use.
type Conn struct {
	net net.Conn
	r   *bufio.Reader
	out []byte
	// Timeout of one request, writing and reading.
	Timeout time.Duration
}

// Dial connects and logs in. An empty user with a password sends AUTH password;
// an empty password sends nothing.
func Dial(ctx context.Context, addr, user, password string) (*Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{net: nc, r: bufio.NewReaderSize(nc, 16<<10), Timeout: 30 * time.Second}
	if password == "" {
		return c, nil
	}
	args := []string{"AUTH", password}
	if user != "" {
		args = []string{"AUTH", user, password}
	}
	reply, err := c.Do(args...)
	if err == nil {
		err = reply.Err
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("log in at %s: %w", addr, err)
	}
	return c, nil
}

// Close closes the connection.
func (c *Conn) Close() { _ = c.net.Close() }

// Closed tells whether the peer closed the connection, as far as is known here
// without sending anything.
func (c *Conn) Closed() bool {
	raw, err := c.net.(syscall.Conn).SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		closed = n == 0 && err == nil || err != nil && !errors.Is(err, syscall.EAGAIN)
		return true
	})
	return closed || err != nil
}

// Do sends one command and reads its reply. The error is of the connection;
// error replies are in Reply.Err.
func (c *Conn) Do(args ...string) (Reply, error) {
	replies, err := c.Pipeline(args)
	if err != nil {
		return Reply{}, err
	}
	return replies[0], nil
}

// Pipeline sends commands in one write and reads as many replies.
func (c *Conn) Pipeline(commands ...[]string) ([]Reply, error) {
	c.out = c.out[:0]
	for _, args := range commands {
		c.out = AppendCommand(c.out, args...)
	}
	if err := c.net.SetDeadline(time.Now().Add(c.Timeout)); err != nil {
		return nil, err
	}
	if _, err := c.net.Write(c.out); err != nil {
		return nil, err
	}
	replies := make([]Reply, len(commands))
	for i := range replies {
		r, err := c.read()
		if err != nil {
			return nil, err
		}
		replies[i] = r
	}
	return replies, nil
}

// Receive reads what the peer sends by itself, as it does to a subscriber. The
// error of one that sends nothing is a net.Error with Timeout.
func (c *Conn) Receive(limit time.Duration) (Reply, error) {
	if err := c.net.SetDeadline(time.Now().Add(limit)); err != nil {
		return Reply{}, err
	}
	return c.read()
}

// AppendCommand appends a command in RESP to dst.
func AppendCommand(dst []byte, args ...string) []byte {
	dst = append(dst, '*')
	dst = strconv.AppendInt(dst, int64(len(args)), 10)
	dst = append(dst, "\r\n"...)
	for _, a := range args {
		dst = append(dst, '$')
		dst = strconv.AppendInt(dst, int64(len(a)), 10)
		dst = append(dst, "\r\n"...)
		dst = append(dst, a...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}

var errProtocol = errors.New("reply is not RESP2")

func (c *Conn) read() (Reply, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return Reply{}, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return Reply{}, fmt.Errorf("%w: %q", errProtocol, line)
	}
	kind, rest := line[0], string(line[1:len(line)-2])
	switch kind {
	case '+':
		return Reply{Text: []byte(rest)}, nil
	case '-':
		return Reply{Err: ReplyError(rest)}, nil
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil {
		return Reply{}, fmt.Errorf("%w: %q", errProtocol, line)
	}
	switch {
	case kind == ':':
		return Reply{Int: n}, nil
	case n == -1 && (kind == '$' || kind == '*'):
		return Reply{Null: true}, nil
	case kind == '$' && n >= 0:
		buf := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, buf); err != nil {
			return Reply{}, err
		}
		return Reply{Text: buf[:n]}, nil
	case kind == '*' && n >= 0:
		array := make([]Reply, n)
		for i := range array {
			if array[i], err = c.read(); err != nil {
				return Reply{}, err
			}
		}
		return Reply{Array: array}, nil
	}
	return Reply{}, fmt.Errorf("%w: %q", errProtocol, line)
}

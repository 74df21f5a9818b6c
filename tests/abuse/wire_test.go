package abuse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// quiet is how long a server must say nothing before its answer counts as
// whole.
const quiet = 400 * time.Millisecond

// answer is what came back for an input.
type answer struct {
	text   []byte
	closed bool // the server hung up
}

func (a answer) String() string {
	text := a.text
	const shown = 300
	cut := ""
	if len(text) > shown {
		text, cut = text[:shown], fmt.Sprintf("… (%d bytes)", len(a.text))
	}
	state := "open"
	if a.closed {
		state = "closed"
	}
	return fmt.Sprintf("%q%s, %s", text, cut, state)
}

func (a answer) equal(b answer) bool { return bytes.Equal(a.text, b.text) && a.closed == b.closed }

// protocolError begins Redis's reaction to bytes that are no request; the end
// of the connection follows.
var protocolError = []byte("-ERR Protocol error: ")

// exchange sends b on a connection of its own and collects what comes back
// until the server hangs up or stays quiet.
func exchange(t testing.TB, addr string, b []byte) answer {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// The server may hang up in the middle: then the error tells nothing new.
		_, _ = conn.Write(b)
	}()
	var a answer
	chunk := make([]byte, 64<<10)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(quiet))
		n, err := conn.Read(chunk)
		a.text = append(a.text, chunk[:n]...)
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			a.closed = true
			return a
		}
		select {
		case <-sent:
			return a
		case <-time.After(10 * time.Second):
			t.Errorf("%s neither took %d bytes nor hung up", addr, len(b))
			return a
		}
	}
}

// dial connects without TLS, names or hurry.
func dial(addr string) (*net.TCPConn, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// reset closes a connection with a RST instead of a FIN.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// hungUp tells if err means that the other side closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

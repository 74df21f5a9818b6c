package fairness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
)

// hog is the client that asks for much.
type hog struct {
	net.Conn
	addr    string
	replies *bufio.Reader
	idle    []net.Conn
}

func newHog(addr string) (*hog, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &hog{Conn: conn, addr: addr, replies: bufio.NewReaderSize(conn, 256<<10)}, nil
}

// reply reads one reply and forgets it; an error reply is an error. It spends
// little, for the processors are shared with those whose latencies are measured.
func (h *hog) reply() error {
	for left := 1; left > 0; left-- {
		line, err := h.replies.ReadSlice('\n')
		if err != nil {
			return err
		}
		kind := line[0]
		if kind == '-' {
			return fmt.Errorf("an error came: %q", line)
		}
		if kind != '$' && kind != '*' {
			continue
		}
		n, err := strconv.Atoi(string(line[1 : len(line)-2]))
		switch {
		case err != nil:
			return err
		case kind == '*':
			left += max(n, 0)
		case n >= 0:
			if _, err := h.replies.Discard(n + 2); err != nil {
				return err
			}
		}
	}
	return nil
}

// take reads replies.
func (h *hog) take(n int) error {
	for i := range n {
		if err := h.reply(); err != nil {
			return fmt.Errorf("reply %d: %w", i, err)
		}
	}
	return nil
}

// discard sends bytes and reads one reply.
func (h *hog) discard(request []byte) error {
	if _, err := h.Write(request); err != nil {
		return err
	}
	return h.reply()
}

func (h *hog) want(args ...string) error { return h.discard(consistency.AppendCommand(nil, args...)) }

// pipeline sends everything, then reads all replies.
func (h *hog) pipeline(b []byte) error {
	if _, err := h.Write(b); err != nil {
		return err
	}
	return h.take(pipelined)
}

// transaction sends everything, then reads all replies.
func (h *hog) transaction(b []byte) error {
	if _, err := h.Write(b); err != nil {
		return err
	}
	return h.take(1 + pipelined + 1)
}

// neverRead sends without reading on a connection of its own, for a while.
func (h *hog) neverRead(b []byte) error {
	conn, err := net.DialTimeout("tcp", h.addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	for range 20 {
		// An error ends it: the server stopped reading, or hung up.
		if _, err := conn.Write(b); err != nil {
			return nil
		}
	}
	return nil
}

// sendValue sends SET with a value of n bytes.
func (h *hog) sendValue(n int) error {
	if _, err := fmt.Fprintf(h, "*3\r\n$3\r\nSET\r\n$3\r\nhog\r\n$%d\r\n", n); err != nil {
		return err
	}
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for ; n > 0; n -= len(piece) {
		if _, err := h.Write(piece[:min(n, len(piece))]); err != nil {
			return err
		}
	}
	return h.discard([]byte("\r\n"))
}

func (h *hog) setHuge() error { return h.sendValue(huge) }

func (h *hog) getHuge() error { return h.discard(consistency.AppendCommand(nil, "GET", "hog")) }

func (h *hog) setLarge() error { return h.sendValue(8 << 20) }

// readSlowly asks for 128 MB and reads 64 KiB each millisecond, for a second.
func (h *hog) readSlowly() error {
	slow, err := newHog(h.addr)
	if err != nil {
		return err
	}
	defer slow.Close()
	if _, err := slow.Write(bytes.Repeat(consistency.AppendCommand(nil, "GET", "hog"), 16)); err != nil {
		return err
	}
	piece := make([]byte, 64<<10)
	for begin := time.Now(); time.Since(begin) < time.Second; time.Sleep(time.Millisecond) {
		if _, err := io.ReadFull(slow, piece); err != nil {
			return err
		}
	}
	return nil
}

// fill sends commands of a thousand arguments each, from 0 to total-1, behind the
// words they begin with.
func (h *hog) fill(total int, args func(i int) []string, words ...string) error {
	const batch = 1000
	for at := 0; at < total; at += batch {
		command := words
		for i := at; i < at+batch; i++ {
			command = append(command, args(i)...)
		}
		if err := h.want(command...); err != nil {
			return err
		}
	}
	return nil
}

func (h *hog) makeList() error {
	return h.fill(million, func(i int) []string { return []string{fmt.Sprintf("element-%d", i)} }, "RPUSH", "hog")
}

func (h *hog) makeHash() error {
	return h.fill(million, func(i int) []string { return []string{fmt.Sprintf("field-%d", i), "value"} }, "HSET", "hog")
}

func (h *hog) makeKeys() error {
	return h.fill(300_000, func(i int) []string { return []string{hogKey(i), "value"} }, "MSET")
}

// makeClients connects 5000 clients that do nothing.
func (h *hog) makeClients() error {
	for range 5000 {
		conn, err := net.DialTimeout("tcp", h.addr, 5*time.Second)
		if err != nil {
			return err
		}
		h.idle = append(h.idle, conn)
	}
	return nil
}

func (h *hog) dropClients() error {
	for _, conn := range h.idle {
		_ = conn.Close()
	}
	h.idle = nil
	return nil
}

// subscribe listens to channels on a connection of its own, which is closed.
func (h *hog) subscribe(request []byte) error {
	listener, err := newHog(h.addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	if _, err := listener.Write(request); err != nil {
		return err
	}
	return listener.take(100_000)
}

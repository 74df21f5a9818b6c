package fairness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
)

// demand is what one client asks for that is much.
type demand struct {
	name string
	// prepare makes what is asked for; it may take its time.
	prepare func(h *hog) error
	// ask asks once, and takes the reply.
	ask func(h *hog) error
	// clean removes what prepare and ask left.
	clean func(h *hog) error
	// slack is what others may wait beyond the bound: a loop takes a request with
	// very many keys apart, and joins the replies, without a break.
	slack time.Duration
}

const (
	huge       = 512 << 20 // bytes, the most a value can be
	pipelined  = 100_000
	manyKeys   = 100_000
	manyValues = 1_000_000
)

func demands() []demand {
	nothing := func(*hog) error { return nil }
	pipeline := makePipeline()
	mget := makeMGET()
	unlink := func(h *hog) error { return h.want("UNLINK", "hog") }
	return []demand{
		{"pipeline of 100,000, read at the end", nothing, func(h *hog) error { return h.pipeline(pipeline) }, nothing, 0},
		{"pipelines of 100,000, never read", nothing, func(h *hog) error { return h.neverRead(pipeline) }, nothing, 0},
		{"SET of 512 MB", nothing, (*hog).setHuge, unlink, 0},
		{"GET of 512 MB", (*hog).setHuge, (*hog).getHuge, unlink, 0},
		{"16 GETs of 8 MB, read slowly", (*hog).setLarge, (*hog).readSlowly, unlink, 0},
		{"MGET of 100,000 keys", nothing, func(h *hog) error { return h.discard(mget) }, nothing, 80 * time.Millisecond},
		{"LRANGE of 1,000,000 elements", (*hog).makeList, func(h *hog) error {
			return h.discard(consistency.AppendCommand(nil, "LRANGE", "hog", "0", "-1"))
		}, unlink, 0},
	}
}

// hog is the client that asks for much.
type hog struct {
	net.Conn
	addr    string
	replies *bufio.Reader
}

func newHog(addr string) (*hog, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &hog{Conn: conn, addr: addr, replies: bufio.NewReaderSize(conn, 64<<10)}, nil
}

// reply reads one reply and forgets it; an error reply is an error.
func (h *hog) reply() error {
	line, err := h.replies.ReadString('\n')
	if err != nil {
		return err
	}
	var n int
	switch line[0] {
	case '-':
		return fmt.Errorf("an error came: %q", line)
	case '$':
		if _, err := fmt.Sscanf(line, "$%d", &n); err != nil || n < 0 {
			return err
		}
		_, err := h.replies.Discard(n + 2)
		return err
	case '*':
		if _, err := fmt.Sscanf(line, "*%d", &n); err != nil {
			return err
		}
		for range n {
			if err := h.reply(); err != nil {
				return err
			}
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

// makePipeline writes 100,000 SETs and GETs of ordinary values.
func makePipeline() (b []byte) {
	value := strings.Repeat("p", ordinary)
	for i := range pipelined {
		k := fmt.Sprintf("hog:%d", i%5000)
		if i%2 == 0 {
			b = consistency.AppendCommand(b, "SET", k, value)
		} else {
			b = consistency.AppendCommand(b, "GET", k)
		}
	}
	return b
}

// makeMGET asks for keys in no order of theirs, most of which do not exist.
func makeMGET() []byte {
	args := make([]string, 1, manyKeys+1)
	args[0] = "MGET"
	for i := range manyKeys {
		args = append(args, fmt.Sprintf("hog:%d", i))
	}
	return consistency.AppendCommand(nil, args...)
}

// pipeline sends everything, then reads all replies.
func (h *hog) pipeline(b []byte) error {
	if _, err := h.Write(b); err != nil {
		return err
	}
	for i := range pipelined {
		if err := h.reply(); err != nil {
			return fmt.Errorf("reply %d: %w", i, err)
		}
	}
	return nil
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

func (h *hog) makeList() error {
	args := []string{"RPUSH", "hog"}
	for i := range 1000 {
		args = append(args, fmt.Sprintf("element-%d", i))
	}
	b := consistency.AppendCommand(nil, args...)
	for range manyValues / 1000 {
		if err := h.discard(b); err != nil {
			return err
		}
	}
	return nil
}

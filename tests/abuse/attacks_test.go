package abuse

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
)

// attack misbehaves at addr until ctx ends. It returns an error when the proxy
// did not do what even this client may expect.
type attack struct {
	name    string
	clients int
	run     func(ctx context.Context, addr string, client int) error
	// holdsMuch: beside others that do, it may be closed for want of memory.
	holdsMuch bool
}

// attacks lists them all; inputs are for the one that replays them.
func attacks(inputs []input) []attack {
	return []attack{
		{"malformed bytes", 4, func(ctx context.Context, addr string, client int) error { return malformed(ctx, addr, client, inputs) }, false},
		{"one byte at a time", 50, slowloris, false},
		{"half a command, then gone", 4, halfCommand, false},
		{"connect and go", 2, connectAndGo, false},
		{"a million arguments", 1, millionArguments, true},
		{"huge values announced", 100, hugeAnnounced, false},
		{"huge values half sent", 8, hugeHalfSent, false},
		{"pipelines of 100,000 commands", 2, longPipeline, false},
		{"never reads its replies", 10, neverReads, false},
	}
}

// storm runs attacks at once for d and returns the first error of one.
func storm(ctx context.Context, addr string, d time.Duration, list ...attack) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for _, a := range list {
		for client := range a.clients {
			group.Go(func() {
				err := a.run(ctx, addr, client)
				if len(list) > 1 && a.holdsMuch && hungUp(err) {
					return // together they want more memory than there is
				}
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					failed = cmp.Or(failed, fmt.Errorf("%s, client %d: %w", a.name, client, err))
				}
			})
		}
	}
	group.Wait()
	return failed
}

// pause waits for d or the end of ctx, and tells if there is time left.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// connect dials and closes the connection when ctx ends, so that no attack
// blocks for longer.
func connect(ctx context.Context, addr string) (*net.TCPConn, func(), error) {
	conn, err := dial(addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, func() { stop(); _ = conn.Close() }, nil
}

// malformed replays inputs, random bytes and damaged pipelines; every other
// connection ends with a RST.
func malformed(ctx context.Context, addr string, client int, inputs []input) error {
	r := rand.New(rand.NewPCG(uint64(client), 1))
	for seed := uint64(client) << 32; pause(ctx, time.Millisecond); seed++ {
		conn, closeConn, err := connect(ctx, addr)
		if err != nil {
			return err
		}
		b := inputs[r.IntN(len(inputs))].bytes
		switch r.IntN(3) {
		case 0:
			b = random(seed)
		case 1:
			b = mutated(seed)
		}
		_, _ = conn.Write(b)
		if r.IntN(2) == 0 {
			_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, _ = io.Copy(io.Discard, conn)
		}
		if r.IntN(2) == 0 {
			reset(conn)
		}
		closeConn()
	}
	return nil
}

// slowloris sends correct commands, a byte at a time; each must be answered.
func slowloris(ctx context.Context, addr string, client int) error {
	conn, closeConn, err := connect(ctx, addr)
	if err != nil {
		return err
	}
	defer closeConn()
	command := consistency.AppendCommand(nil, "SET", fmt.Sprintf("abuse:slow:%d", client), "v")
	reply := make([]byte, 5)
	for {
		for i := range command {
			if !pause(ctx, 10*time.Millisecond) {
				return nil
			}
			if _, err := conn.Write(command[i : i+1]); err != nil {
				return unlessDone(ctx, err)
			}
		}
		if _, err := io.ReadFull(conn, reply); err != nil {
			return unlessDone(ctx, err)
		}
		if string(reply) != "+OK\r\n" {
			return fmt.Errorf("SET was answered with %q", reply)
		}
	}
}

// unlessDone is err, or nil when the attack itself is over.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// halfCommand leaves in the middle of a command, or of the reply to a big one.
func halfCommand(ctx context.Context, addr string, client int) error {
	r := rand.New(rand.NewPCG(uint64(client), 2))
	for pause(ctx, 2*time.Millisecond) {
		conn, closeConn, err := connect(ctx, addr)
		if err != nil {
			return err
		}
		var b []byte
		for range 1 + r.IntN(20) {
			b = consistency.AppendCommand(b, "SET", fmt.Sprintf("abuse:half:%d", r.IntN(100)), strings.Repeat("v", r.IntN(2000)))
		}
		_, _ = conn.Write(b[:r.IntN(len(b))])
		switch r.IntN(3) {
		case 0:
			reset(conn)
		case 1:
			_ = conn.CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = io.Copy(io.Discard, conn)
		}
		closeConn()
	}
	return nil
}

func connectAndGo(ctx context.Context, addr string, client int) error {
	for i := 0; pause(ctx, time.Millisecond); i++ {
		conn, closeConn, err := connect(ctx, addr)
		if err != nil {
			return err
		}
		if (i+client)%2 == 0 {
			reset(conn)
		}
		closeConn()
	}
	return nil
}

// millionArguments are legal commands of the most arguments there can be: DEL
// in one slot, MGET over all shards.
func millionArguments(ctx context.Context, addr string, _ int) error {
	const n = 1_000_000
	write := func(name, key string) []byte {
		b := fmt.Appendf(nil, "*%d\r\n$%d\r\n%s\r\n", n, len(name), name)
		for i := range n - 1 {
			k := fmt.Sprintf(key, i)
			b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(k), k)
		}
		return b
	}
	for _, step := range []struct {
		command []byte
		reply   string
	}{
		{write("DEL", "{abuse}%d"), ":0\r\n"},
		{write("MGET", "abuse:none:%d"), fmt.Sprintf("*%d\r\n", n-1) + strings.Repeat("$-1\r\n", n-1)},
	} {
		if !pause(ctx, 0) {
			return nil
		}
		conn, closeConn, err := connect(ctx, addr)
		if err != nil {
			return err
		}
		reply := make([]byte, len(step.reply))
		if _, err = conn.Write(step.command); err == nil {
			_, err = io.ReadFull(conn, reply)
		}
		closeConn()
		if err != nil {
			return unlessDone(ctx, fmt.Errorf("%.4q… with a million arguments: %w", step.command[14:], err))
		}
		if string(reply) != step.reply {
			return fmt.Errorf("%.4q… with a million arguments was answered with %.60q…", step.command[14:], reply)
		}
	}
	<-ctx.Done()
	return nil
}

// hugeAnnounced announces the biggest value there is and sends next to nothing
// of it.
func hugeAnnounced(ctx context.Context, addr string, client int) error {
	return announce(ctx, addr, client, 1<<10)
}

// hugeHalfSent sends 64 MiB of it: eight of them would like twice the memory
// budget of the test.
func hugeHalfSent(ctx context.Context, addr string, client int) error {
	return announce(ctx, addr, client, 64<<20)
}

func announce(ctx context.Context, addr string, client, sent int) error {
	conn, closeConn, err := connect(ctx, addr)
	if err != nil {
		return err
	}
	defer closeConn()
	key := fmt.Sprintf("abuse:huge:%d", client)
	if _, err := fmt.Fprintf(conn, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n", len(key), key, 512<<20); err != nil {
		return unlessDone(ctx, err)
	}
	chunk := bytes.Repeat([]byte("h"), min(sent, 1<<20))
	for ; sent > 0; sent -= len(chunk) {
		switch _, err := conn.Write(chunk); {
		case hungUp(err): // for want of memory: that is fine
			return nil
		case err != nil:
			return unlessDone(ctx, err)
		}
	}
	<-ctx.Done()
	return nil
}

// longPipeline sends 100,000 commands without reading, then wants every reply.
func longPipeline(ctx context.Context, addr string, client int) error {
	const n = 100_000
	var b []byte
	key := fmt.Sprintf("abuse:count:%d", client)
	b = consistency.AppendCommand(b, "DEL", key)
	for range n {
		b = consistency.AppendCommand(b, "INCR", key)
	}
	for pause(ctx, 100*time.Millisecond) {
		if err := runPipeline(ctx, addr, b, n); err != nil {
			return unlessDone(ctx, err)
		}
	}
	return nil
}

func runPipeline(ctx context.Context, addr string, b []byte, n int) error {
	conn, closeConn, err := connect(ctx, addr)
	if err != nil {
		return err
	}
	defer closeConn()
	var written atomic.Bool
	go func() {
		_, err := conn.Write(b)
		written.Store(err == nil)
	}()
	replies := bufio.NewReaderSize(conn, 64<<10)
	if _, err := replies.ReadString('\n'); err != nil {
		return err
	}
	for i := range n {
		line, err := replies.ReadString('\n')
		if err != nil {
			return fmt.Errorf("reply %d of %d: %w (all sent: %v)", i, n, err, written.Load())
		}
		if want := fmt.Sprintf(":%d\r\n", i+1); line != want {
			return fmt.Errorf("INCR number %d was answered with %q", i+1, line)
		}
	}
	return nil
}

// bigValue is the size of the values that neverReads asks for.
const bigValue = 1 << 20

// neverReads asks for three times its reply buffer and takes none of it. The
// proxy may make it wait or close it. (Asking for a gigabyte each keeps the
// servers themselves busy for seconds: a plain redis-server copies all of it
// into its output buffers first.)
func neverReads(ctx context.Context, addr string, client int) error {
	conn, closeConn, err := connect(ctx, addr)
	if err != nil {
		return err
	}
	defer closeConn()
	key := fmt.Sprintf("abuse:big:%d", client%3)
	if client < 3 {
		set := consistency.AppendCommand(nil, "SET", key, strings.Repeat("b", bigValue))
		ok := make([]byte, 5)
		if _, err := conn.Write(set); err != nil {
			return unlessDone(ctx, err)
		}
		if _, err := io.ReadFull(conn, ok); err != nil || string(ok) != "+OK\r\n" {
			return unlessDone(ctx, errors.Join(err, fmt.Errorf("SET was answered with %q", ok)))
		}
	}
	get := bytes.Repeat(consistency.AppendCommand(nil, "GET", key), 3*replyBuffer/bigValue)
	if _, err := conn.Write(get); err != nil && !hungUp(err) {
		return unlessDone(ctx, err)
	}
	<-ctx.Done()
	return nil
}

package abuse

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestIdleClients: 10,000 clients that have said something once and are silent
// since.
func TestIdleClients(t *testing.T) {
	const (
		clients = 10_000
		limit   = 100_000_000 // bytes
		spare   = 1000        // file descriptors for everything else
	)
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if files.Max < clients+spare {
		t.Fatalf("the hard limit of open files is %d; this test needs %d: raise it with `ulimit -Hn`", files.Max, clients+spare)
	}
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatalf("raise the soft limit of open files to %d: %v", files.Max, err)
	}
	_, p := start(t, fmt.Sprintf("--max-clients=%d", clients+spare))

	// Buffers and tables that any load brings along do not count.
	for range 200 {
		say(t, p.addr).Close()
	}
	time.Sleep(time.Second)
	before := p.rss(t)

	begin := time.Now()
	idle := make([]net.Conn, 0, clients)
	defer func() {
		for _, conn := range idle {
			_ = conn.Close()
		}
	}()
	for range clients {
		idle = append(idle, say(t, p.addr))
	}
	t.Logf("%d clients connected in %v", clients, time.Since(begin).Round(time.Millisecond))
	time.Sleep(2 * time.Second)
	after := p.rss(t)
	t.Logf("memory: %s before, %s with %d idle clients: %.0f bytes each", mib(before), mib(after), clients, float64(after-before)/clients)
	if after-before >= limit {
		t.Errorf("%d idle clients cost %s; want less than %s", clients, mib(after-before), mib(limit))
	}

	// They are idle, not forgotten.
	for i := 0; i < clients; i += 997 {
		if err := get(idle[i]); err != nil {
			t.Errorf("client %d was idle and now: %v", i, err)
		}
	}
	p.requireAlive(t)
}

// say connects and makes the proxy use the buffers of the connection once.
func say(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := get(conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

func get(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "*2\r\n$3\r\nGET\r\n$10\r\nabuse:idle\r\n"); err != nil {
		return err
	}
	reply := make([]byte, 5)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return err
	}
	if string(reply) != "$-1\r\n" {
		return fmt.Errorf("GET was answered with %q", reply)
	}
	return nil
}

package abuse

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestLimits: each limit is enforced with Redis's words on the client that
// breaks it, before memory is spent, and nobody else notices.
func TestLimits(t *testing.T) {
	c, p := start(t, "--max-request-bytes=1MiB", "--max-args=1000", "--max-inline-bytes=2048")
	other, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const protocol = "-ERR Protocol error: "
	for _, limit := range []struct {
		name, sent, want string
	}{
		{"arguments", "*1001\r\n", protocol + "invalid multibulk length\r\n"},
		{"argument size", "*2\r\n$3\r\nGET\r\n$1048577\r\n", protocol + "invalid bulk length\r\n"},
		{"inline length", strings.Repeat("x", 3000), protocol + "too big inline request\r\n"},
		{"inline length with its end", "PING " + strings.Repeat("x", 3000) + "\r\n", protocol + "too big inline request\r\n"},
		{"count line", "*" + strings.Repeat("1", 3000), protocol + "too big mbulk count string\r\n"},
		{"bulk line", "*1\r\n$" + strings.Repeat("1", 3000), protocol + "too big bulk count string\r\n"},
	} {
		got := exchange(t, p.addr, []byte(limit.sent))
		if !got.closed || !strings.HasPrefix(string(got.text), limit.want) {
			t.Errorf("%s: got %s; want %q, closed", limit.name, got, limit.want)
		}
		if r, err := other.Do("PING"); err != nil || string(r.Text) != "PONG" {
			t.Fatalf("%s: another client's PING: %+v, %v", limit.name, r, err)
		}
	}
	// What stays within the limits is served.
	for name, command := range map[string][]string{
		"1000 arguments": append([]string{"DEL"}, strings.Split(strings.Repeat("{a}x ", 999), " ")[:999]...),
		"1 MiB argument": {"SET", "{a}big", strings.Repeat("v", 1<<20-1000)},
	} {
		if r, err := other.Do(command...); err != nil || r.Err != nil {
			t.Errorf("%s: %v, %v", name, r.Err, err)
		}
	}
	p.requireAlive(t)
}

// TestMaxClients: one client more than allowed is told so in Redis's words.
func TestMaxClients(t *testing.T) {
	const most = 20
	_, p := start(t, fmt.Sprintf("--max-clients=%d", most))
	var held []net.Conn
	defer func() {
		for _, conn := range held {
			_ = conn.Close()
		}
	}()
	for range most {
		held = append(held, say(t, p.addr))
	}
	const want = "-ERR max number of clients reached\r\n"
	for range 50 {
		if got := exchange(t, p.addr, []byte("PING\r\n")); !got.closed || string(got.text) != want {
			t.Fatalf("a client too many got %s; want %q, closed", got, want)
		}
	}
	for i, conn := range held {
		if err := get(conn); err != nil {
			t.Errorf("client %d of those allowed: %v", i, err)
		}
	}
	// Who leaves makes room.
	_ = held[0].Close()
	held = held[1:]
	harness.Eventually(t, 5*time.Second, "there is room again", func() error {
		conn, err := dial(p.addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		return get(conn)
	})
}

// TestClientsThatMustAuthenticate: who has not given the password gets Redis's
// tight limits, and costs next to nothing.
func TestClientsThatMustAuthenticate(t *testing.T) {
	const password = "correct-horse"
	o := harness.Options{Replicas: -1, Shards: 1}
	o.Flags = append(o.Flags, "--client-password-file", secretFile(t, password))
	c := harness.Start(t, o)
	redis := harness.StartRedis(t)
	admin, err := consistency.Dial(t.Context(), redis.Address, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if r, err := admin.Do("CONFIG", "SET", "requirepass", password); err != nil || r.Err != nil {
		t.Fatalf("CONFIG SET requirepass: %v, %v", r.Err, err)
	}
	for _, in := range []input{
		{name: "get", bytes: []byte("GET a\r\n")},
		{name: "ping", bytes: []byte("PING\r\n")},
		{name: "ten arguments", bytes: []byte("*10\r\n")},
		{name: "eleven arguments", bytes: []byte("*11\r\n")},
		{name: "a million arguments", bytes: []byte("*1000000\r\n")},
		{name: "bulk of 16384", bytes: []byte("*2\r\n$4\r\nAUTH\r\n$16384\r\n")},
		{name: "bulk of 16385", bytes: []byte("*2\r\n$4\r\nAUTH\r\n$16385\r\n")},
		{name: "wrong password", bytes: []byte("AUTH wrong\r\nPING\r\n")},
		{name: "wrong user", bytes: []byte("AUTH nobody " + password + "\r\nPING\r\n")},
		{name: "empty password", bytes: []byte("AUTH \"\"\r\n")},
		{name: "right password", bytes: []byte("AUTH " + password + "\r\nPING\r\n")},
		{name: "default user", bytes: []byte("AUTH default " + password + "\r\nPING\r\n")},
		{name: "hello without", bytes: []byte("HELLO 3\r\n")},
		{name: "hello wrong", bytes: []byte("HELLO 3 AUTH default wrong\r\n")},
		{name: "unknown command", bytes: []byte("nosuchcommand\r\n")},
		{name: "wrong arity", bytes: []byte("GET\r\n")},
		{name: "more arguments once in", bytes: []byte("AUTH " + password + "\r\n*12\r\n$3\r\nDEL\r\n" + strings.Repeat("$1\r\nk\r\n", 11))},
	} {
		ours, theirs := exchange(t, c.Proxies[0], in.bytes), exchange(t, redis.Address, in.bytes)
		if !ours.equal(theirs) {
			t.Errorf("%s: sent %.100q\n   proxy: %s\n   redis: %s", in.name, in.bytes, ours, theirs)
		}
	}
}

// TestHalfClosedClientsGetTheirReplies: shutting down the sending side is not
// an excuse to drop what was asked before.
func TestHalfClosedClientsGetTheirReplies(t *testing.T) {
	_, p := start(t)
	conn, err := dial(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const n = 1000
	if _, err := io.WriteString(conn, strings.Repeat("*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n*2\r\n$3\r\nGET\r\n$1\r\nx\r\n", n)); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	got, err := io.ReadAll(conn)
	if want := strings.Repeat("$2\r\nhi\r\n$-1\r\n", n); string(got) != want {
		t.Errorf("got %d of %d bytes, %v", len(got), len(want), err)
	}
}

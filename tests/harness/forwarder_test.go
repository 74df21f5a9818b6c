package harness

import (
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
)

func TestForwarder(t *testing.T) {
	f := Forward(t, "", StartRedis(t).Address)
	dial := func() (*consistency.Conn, error) {
		conn, err := consistency.Dial(t.Context(), f.Address, "", "")
		if err == nil {
			t.Cleanup(conn.Close)
		}
		return conn, err
	}
	ask := func(conn *consistency.Conn, args ...string) time.Duration {
		t.Helper()
		begin := time.Now()
		if r, err := conn.Do(args...); err != nil || r.Err != nil {
			t.Fatalf("%.40q: %v, %v", args, r.Err, err)
		}
		return time.Since(begin)
	}
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	ask(conn, "SET", "k", strings.Repeat("x", 40_000))

	f.Delay(60 * time.Millisecond)
	if took := ask(conn, "PING"); took < 120*time.Millisecond {
		t.Errorf("a delay of 60 ms each way: PING took %s", took)
	}
	f.Delay(0)
	f.Throttle(100_000)
	if took := ask(conn, "GET", "k"); took < 300*time.Millisecond {
		t.Errorf("40 KB at 100 KB/s took %s", took)
	}
	f.Throttle(0)

	f.Cut()
	if r, err := conn.Do("PING"); err == nil {
		t.Errorf("a connection that was cut answers %q", r.Text)
	}
	if conn, err = dial(); err != nil {
		t.Fatalf("after the cut: %v", err)
	}
	ask(conn, "PING")

	f.Refuse()
	if r, err := conn.Do("PING"); err == nil {
		t.Errorf("a connection from before the refusal answers %q", r.Text)
	}
	if _, err := dial(); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("dialed although connections are refused: %v", err)
	}
	if err := f.Pass(); err != nil {
		t.Fatal(err)
	}
	if conn, err = dial(); err != nil {
		t.Fatalf("after the refusal: %v", err)
	}
	ask(conn, "PING")
}

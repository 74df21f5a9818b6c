package reactor_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/capture"
	"github.com/basalt-redis/basalt/proxy/reactor"
)

// logger writes to a log that a test reads.
func logger(log *capture.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(log, nil)) }

// TestCrossProtocolScripting: what a browser can be tricked into sending ends
// at the first word of HTTP, without a reply, and nothing behind it runs.
func TestCrossProtocolScripting(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	var log capture.Buffer
	p := startProxy(t, reactor.Config{Logger: logger(&log)}, shards...)
	good := p.dial()
	good.want("OK", "SET", "k", "v")
	const attack = "FLUSHALL\r\nPING\r\n"
	silent := []string{
		"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n" + attack,
		"post / HTTP/1.1\r\n" + attack,
		"Host: localhost\r\n" + attack,
		"hOsT:\r\n" + attack,
		encode("POST", "/") + attack,
		encode("Host:") + attack,
		encode("POST\x00x") + attack,
		encode("PING") + encode("POST") + attack,
		encode("POST", strings.Repeat("x", 300<<10)) + attack,
	}
	for _, in := range silent {
		c := p.dial()
		_, _ = c.Write([]byte(in)) // it may be cut short
		if b, err := c.r.ReadByte(); err == nil {
			t.Errorf("%.40q was answered with %q…", in, b)
		}
	}
	c := p.dial()
	c.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + attack)
	if got := c.read(); got != "EOF" && !strings.HasPrefix(got, "-ERR wrong number") {
		t.Errorf("an HTTP GET was answered with %q", got)
	}
	good.want("v", "GET", "k")
	if n := p.Stats().ProtocolErrors; n != uint64(len(silent)+1) {
		t.Errorf("%d protocol errors counted, want %d", n, len(silent)+1)
	}
	text := log.String()
	if lines := strings.Count(text, "POST or Host:"); lines < 1 || lines > 5 {
		t.Errorf("%d lines in the log for %d attacks: %s", lines, len(silent)+1, text)
	}
	// What only looks like it is a command like any other.
	good.want("-ERR unknown command 'POSTS', with args beginning with: ", "POSTS")
}

// TestBrokenClientsAreLoggedRarely: whoever sends garbage cannot fill the log,
// and the next line tells how much is not in it.
func TestBrokenClientsAreLoggedRarely(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	var log capture.Buffer
	p := startProxy(t, reactor.Config{Logger: logger(&log)}, shards...)
	garbage := func(n int) {
		for range n {
			c := p.dial()
			c.write("*x\r\n")
			c.wantNext("-ERR Protocol error: invalid multibulk length")
			c.wantNext("EOF")
		}
	}
	begin := time.Now()
	garbage(100)
	lines := strings.Count(log.String(), "broke the protocol")
	if most := 2 + int(time.Since(begin)/time.Second); lines < 1 || lines > most {
		t.Errorf("%d lines for 100 broken clients, want at most %d", lines, most)
	}
	time.Sleep(1100 * time.Millisecond)
	garbage(1)
	if !strings.Contains(log.String(), "not_logged=") {
		t.Errorf("nothing tells of the others: %s", log.String())
	}
	if n := p.Stats().ProtocolErrors; n != 101 {
		t.Errorf("%d protocol errors counted", n)
	}
}

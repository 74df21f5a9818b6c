package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRepliesAreVerified(t *testing.T) {
	for _, size := range []int{1, 7, 8, 9, 64, 1000, 1 << 17} {
		get := Get{NewSpace("bench:", size)}
		right := "$" + strconv.Itoa(size) + "\r\n" + string(appendValue(nil, 42, size)) + "\r\n"
		for _, cut := range []int{0, 1, 3, len(right) - 1} {
			if n, err := get.CheckReply([]byte(right[:cut]), 42); n != 0 || err != nil {
				t.Errorf("size %d: the first %d bytes gave %d, %v; want 0, nil", size, cut, n, err)
			}
		}
		if n, err := get.CheckReply([]byte(right+"$64\r\n"), 42); n != len(right) || err != nil {
			t.Errorf("size %d: the right reply gave %d, %v; want %d, nil", size, n, err, len(right))
		}
		for name, wrong := range map[string]string{
			"nil":                 "$-1\r\n",
			"error":               "-LOADING Redis is loading the dataset in memory\r\n",
			"another key's value": "$" + strconv.Itoa(size) + "\r\n" + string(appendValue(nil, 43, size)) + "\r\n",
			"no line end":         right[:len(right)-2] + "\r\r",
		} {
			if n, err := get.CheckReply([]byte(wrong), 42); err == nil {
				t.Errorf("size %d: %s was taken for the right reply (%d)", size, name, n)
			}
		}
	}
}

func TestRepliesOfSeveralAreVerified(t *testing.T) {
	space := NewSpace("bench:", 20)
	bulk := func(seed uint32) string { return "$20\r\n" + string(appendValue(nil, seed, 20)) + "\r\n" }
	mget := MGet{Space: space, Count: 3, Keys: 10}
	for name, c := range map[string]struct {
		command      Command
		right, wrong string
	}{
		"MGET":     {mget, "*3\r\n" + bulk(9) + bulk(0) + bulk(1), "*3\r\n" + bulk(9) + bulk(1) + bulk(0)},
		"one less": {mget, "*3\r\n" + bulk(9) + bulk(0) + bulk(1), "*2\r\n" + bulk(9) + bulk(0)},
		"MULTI":    {Multi{space}, multiReply, strings.Replace(multiReply, "+OK\r\n+OK", "$-1\r\n+OK", 1)},
	} {
		for cut := range len(c.right) {
			if n, err := c.command.CheckReply([]byte(c.right[:cut]), 9); n != 0 || err != nil {
				t.Errorf("%s: the first %d bytes gave %d, %v; want 0, nil", name, cut, n, err)
			}
		}
		if n, err := c.command.CheckReply([]byte(c.right+"+"), 9); n != len(c.right) || err != nil {
			t.Errorf("%s: the right reply gave %d, %v; want %d, nil", name, n, err, len(c.right))
		}
		if n, err := c.command.CheckReply([]byte(c.wrong), 9); err == nil {
			t.Errorf("%s: %q was taken for the right reply (%d)", name, c.wrong, n)
		}
	}
}

func TestQuantilesAreWithinTwoPercent(t *testing.T) {
	var h Histogram
	const n = 100_000
	for i := 1; i <= n; i++ {
		h.Record(time.Duration(i)*time.Microsecond, 1)
	}
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := q * n * float64(time.Microsecond)
		if got := float64(h.Quantile(q)); got < want*0.98 || got > want*1.02 {
			t.Errorf("quantile %v is %v, want about %v", q, time.Duration(got), time.Duration(want))
		}
	}
	for ns := uint64(1); ns < 1<<40; ns = ns*5/4 + 1 {
		i := bucketOf(ns)
		if upper(i) < ns || (i > 0 && upper(i-1) >= ns) {
			t.Fatalf("%d ns fell into bucket %d, which ends at %d and begins after %d", ns, i, upper(i), upper(i-1))
		}
	}
}

// server answers SET and GET from memory, in pieces, and with wrong as the
// value once lies is reached.
func server(t *testing.T, lies int) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c, lies)
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func serve(c net.Conn, lies int) {
	defer c.Close()
	r := bufio.NewReader(c)
	for count := 1; ; count++ {
		var args []string
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
		for range n {
			line, _ := r.ReadString('\n')
			size, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
			arg := make([]byte, size+2)
			if _, err := io.ReadFull(r, arg); err != nil {
				return
			}
			args = append(args, string(arg[:size]))
		}
		reply := "+OK\r\n"
		if args[0] == "GET" {
			seed, _ := strconv.ParseUint(strings.TrimPrefix(args[1], "bench:"), 16, 32)
			if count == lies {
				seed++
			}
			reply = fmt.Sprintf("$64\r\n%s\r\n", appendValue(nil, uint32(seed), 64))
		}
		half := len(reply) / 2
		_, _ = io.WriteString(c, reply[:half])
		_, _ = io.WriteString(c, reply[half:])
	}
}

func TestRunCountsEveryReply(t *testing.T) {
	for _, pipeline := range []int{1, 16} {
		g, err := Dial(Options{Addr: server(t, 0), Connections: 5, Pipeline: pipeline, Command: Get{NewSpace("bench:", 64)}, Keys: 1000, Seed: 7})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		for range 2 {
			r, err := g.Run(50 * time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if r.Requests == 0 || r.Requests%uint64(pipeline) != 0 || r.Requests != r.Latency.Total() {
				t.Errorf("pipeline %d: %d requests, %d latencies", pipeline, r.Requests, r.Latency.Total())
			}
		}
	}
}

func TestFillSendsEachKeyOnce(t *testing.T) {
	g, err := Dial(Options{Addr: server(t, 0), Connections: 3, Pipeline: 10, Command: Set{NewSpace("bench:", 64)}, Keys: 1005})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Fill(); err != nil {
		t.Fatal(err)
	}
	if g.cursor < 1005 || g.cursor > 1010 {
		t.Errorf("%d keys were sent, want 1005 rounded up to a batch", g.cursor)
	}
}

func TestAWrongValueEndsTheRun(t *testing.T) {
	g, err := Dial(Options{Addr: server(t, 100), Connections: 2, Pipeline: 4, Command: Get{NewSpace("bench:", 64)}, Keys: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.Run(5 * time.Second); err == nil || !strings.Contains(err.Error(), "wrong reply") {
		t.Errorf("the run ended with %v, want a wrong reply", err)
	}
}

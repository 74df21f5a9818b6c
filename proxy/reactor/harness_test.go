package reactor_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// proxy is an engine under test with a topology that the test changes.
type proxy struct {
	*reactor.Engine
	t       testing.TB
	address string
	cluster routing.Cluster

	mu     sync.Mutex
	acked  uint64
	sights map[string][]reactor.Sight
	// sinceReply is the oldest reply that came with a change to SightOK.
	sinceReply time.Duration
	// behind is by node what was told last.
	behind map[string]reactor.Behind
	news   *sync.Cond
}

// startProxy starts an engine; cfg may be zero.
func startProxy(t testing.TB, cfg reactor.Config, shards ...routing.Shard) *proxy {
	t.Helper()
	p := &proxy{t: t, sights: map[string][]reactor.Sight{}, behind: map[string]reactor.Behind{}}
	p.news = sync.NewCond(&p.mu)
	if cfg.Loops == 0 {
		cfg.Loops = 2
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.OnAck = func(epoch uint64) {
		p.mu.Lock()
		p.acked = epoch
		p.mu.Unlock()
		p.news.Broadcast()
	}
	cfg.OnSight = func(node string, s reactor.Sight, sinceReply time.Duration, behind reactor.Behind, _ error) {
		p.mu.Lock()
		if list := p.sights[node]; len(list) == 0 || list[len(list)-1] != s {
			p.sights[node] = append(list, s)
			if s == reactor.SightOK {
				p.sinceReply = max(p.sinceReply, sinceReply)
			}
		}
		p.behind[node] = behind
		p.mu.Unlock()
		p.news.Broadcast()
	}
	var err error
	if p.Engine, err = reactor.New(cfg); err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	p.address = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- p.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = p.Shutdown(ctx) // its error is that the test left clients open
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	p.cluster = routing.Cluster{Name: "test", Phase: routing.Serving, Shards: shards}
	p.commit(func(*routing.Cluster) {})
	return p
}

// commit changes the topology and publishes it as the next epoch.
func (p *proxy) commit(change func(c *routing.Cluster)) uint64 {
	p.t.Helper()
	p.cluster.Epoch++
	change(&p.cluster)
	table, err := routing.Build(p.cluster)
	if err != nil {
		p.t.Fatal(err)
	}
	p.Apply(table)
	return p.cluster.Epoch
}

// wait waits until done, called under the lock after each report, says so.
func (p *proxy) wait(what string, done func() bool) {
	p.t.Helper()
	deadline := time.AfterFunc(10*time.Second, p.news.Broadcast)
	defer deadline.Stop()
	begin := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !done() {
		if time.Since(begin) >= 10*time.Second {
			p.t.Fatalf("%s: not within 10 s; acked %d, sights %v", what, p.acked, p.sights)
		}
		p.news.Wait()
	}
}

func (p *proxy) waitAck(epoch uint64) {
	p.t.Helper()
	p.wait(fmt.Sprintf("ack of epoch %d", epoch), func() bool { return p.acked >= epoch })
}

// ackedNow is the epoch acked last.
func (p *proxy) ackedNow() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked
}

func (p *proxy) waitSight(node string, s reactor.Sight) {
	p.t.Helper()
	p.wait(fmt.Sprintf("sight %v of %s", s, node), func() bool {
		list := p.sights[node]
		return len(list) > 0 && list[len(list)-1] == s
	})
}

// one makes a shard with one master at an address.
func one(i, n int, address string) routing.Shard {
	id := fmt.Sprintf("shard-%d", i)
	return routing.Shard{ID: id, Slots: slot.Even(i, n), Master: id + "-0", Nodes: []routing.Node{{ID: id + "-0", Address: address}}}
}

// realShards starts n open redis-servers, one shard each.
func realShards(t testing.TB, n int) (shards []routing.Shard, servers []*redistest.Server) {
	for i := range n {
		s := redistest.Start(t, redistest.Options{Open: true})
		servers = append(servers, s)
		shards = append(shards, one(i, n, s.Address))
	}
	return shards, servers
}

// client speaks to the proxy in raw bytes.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

// listen listens on a free port; another process may take it in between.
func listen(t testing.TB) net.Listener {
	t.Helper()
	for attempt := 0; ; attempt++ {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t)))
		if err == nil {
			return ln
		}
		if attempt > 20 {
			t.Fatal(err)
		}
	}
}

// patience is how long a client waits at most, with other tests beside it.
const patience = time.Minute

// soon is when that is over which takes no time but the machine's: less than any
// limit of the proxy that is not set by a test.
const soon = 3 * time.Second

func (p *proxy) dial() *client { return dial(p.t, p.address) }

func dial(t testing.TB, address string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t: t, Conn: conn, r: bufio.NewReader(conn)}
}

// encode makes a request.
func encode(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

func (c *client) send(args ...string) {
	c.t.Helper()
	c.write(encode(args...))
}

func (c *client) write(raw string) {
	c.t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		c.t.Fatal(err)
	}
}

// do sends a request and returns its reply as text.
func (c *client) do(args ...string) string {
	c.t.Helper()
	c.send(args...)
	return c.read()
}

// read reads one reply as text: bulk strings bare, arrays as [a b], errors with
// their '-', nulls as (nil), and "EOF" at the end of the connection.
func (c *client) read() string {
	c.t.Helper()
	text, err := c.reply()
	if err != nil {
		return "EOF"
	}
	return text
}

func (c *client) reply() (string, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	n, _ := strconv.Atoi(line[1:])
	switch line[0] {
	case '+', ':':
		return line[1:], nil
	case '-':
		return line, nil
	case '_':
		return "(nil)", nil
	case '$', '=':
		if n < 0 {
			return "(nil)", nil
		}
		b := make([]byte, n+2)
		_, err := io.ReadFull(c.r, b)
		return string(b[:n]), err
	case '*', '%', '~', '>':
		if line[0] == '%' {
			n *= 2
		}
		parts := make([]string, max(n, 0))
		for i := range parts {
			if parts[i], err = c.reply(); err != nil {
				return "", err
			}
		}
		return "[" + strings.Join(parts, " ") + "]", nil
	}
	return "", fmt.Errorf("no reply: %q", line)
}

// want sends a request and checks its reply.
func (c *client) want(reply string, args ...string) {
	c.t.Helper()
	if got := c.do(args...); got != reply {
		c.t.Fatalf("%v: %q, want %q", args, got, reply)
	}
}

// wantNext checks the next reply.
func (c *client) wantNext(reply string) {
	c.t.Helper()
	if got := c.read(); got != reply {
		c.t.Fatalf("next reply: %q, want %q", got, reply)
	}
}

// silent checks that no reply comes for a while.
func (c *client) silent(d time.Duration) {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
		c.t.Fatal(err)
	}
	if b, err := c.r.Peek(1); err == nil {
		c.t.Fatalf("a reply came, beginning with %q", b)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
}

// fake is a server that records what it gets and answers when it is told to.
type fake struct {
	t    testing.TB
	ln   net.Listener
	mu   sync.Mutex
	got  []string // requests but PING and logins, as text
	news *sync.Cond
	// answer makes the reply to a request; "" answers nothing.
	answer func(args []string) string
	conns  []net.Conn
}

func startFake(t testing.TB, answer func(args []string) string) *fake {
	ln := listen(t)
	f := &fake{t: t, ln: ln, answer: answer}
	f.news = sync.NewCond(&f.mu)
	t.Cleanup(func() { ln.Close(); f.cut() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, conn)
			f.mu.Unlock()
			go f.serve(conn)
		}
	}()
	return f
}

func (f *fake) serve(conn net.Conn) {
	c := &client{t: f.t, Conn: conn, r: bufio.NewReader(conn)}
	for {
		text, err := c.reply()
		if err != nil {
			conn.Close()
			return
		}
		args := strings.Fields(strings.Trim(text, "[]"))
		reply := "+OK\r\n"
		switch strings.ToUpper(args[0]) {
		case "PING":
			reply = "+PONG\r\n"
		case "AUTH", "HELLO":
		case "CLIENT": // TRACKING, of the login
		default:
			f.mu.Lock()
			f.got = append(f.got, strings.Join(args, " "))
			answer := f.answer
			f.mu.Unlock()
			f.news.Broadcast()
			reply = answer(args)
		}
		if _, err := io.WriteString(conn, reply); err != nil {
			return
		}
	}
}

// waitGot waits until n requests came and returns them.
func (f *fake) waitGot(n int) []string {
	f.t.Helper()
	deadline := time.AfterFunc(10*time.Second, f.news.Broadcast)
	defer deadline.Stop()
	begin := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.got) < n {
		if time.Since(begin) >= 10*time.Second {
			f.t.Fatalf("%d requests came, not %d: %v", len(f.got), n, f.got)
		}
		f.news.Wait()
	}
	return append([]string(nil), f.got...)
}

// set changes how requests are answered, and returns how many came so far.
func (f *fake) set(answer func([]string) string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
	return len(f.got)
}

// say sends bytes on every connection.
func (f *fake) say(raw string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_, _ = io.WriteString(c, raw) // closed ones do not matter
	}
}

// cut closes every connection.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

// never answers nothing.
func never([]string) string { return "" }

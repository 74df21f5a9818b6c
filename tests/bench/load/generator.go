package load

// The generator is closed-loop, as redis-benchmark is: each connection sends a
// batch of Pipeline requests with one write, waits for all its replies,
// verifies them, and sends the next. All connections live on one locked
// thread:
//
//  1. epoll_wait tells which sockets have something to read.
//  2. One read per ready socket, replies are verified where they lie.
//  3. A socket whose batch is complete gets its next batch at once, one write.
//
// The steady state allocates nothing and makes two system calls per batch plus
// a share of one epoll_wait. Reads and writes bypass the Go scheduler
// (RawSyscall): sockets are non-blocking, so they return at once.
//
// A measurement begins and ends with no request under way. What the target
// spent between the two is therefore spent on exactly the requests counted.
// A closed loop slows down with its target, so the latencies tell what these
// clients saw and are comparable between targets at the same load shape, not
// what an open-loop arrival of requests would see.

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Options describe the load. All fields but Seed are required.
type Options struct {
	// Addr is the target's IP address and port.
	Addr netip.AddrPort
	// Connections is the number of clients.
	Connections int
	// Pipeline is the number of requests a client sends before it waits.
	Pipeline int
	// Command makes the requests and verifies the replies.
	Command Command
	// Keys is the size of the key space; keys are drawn uniformly.
	Keys uint32
	// Seed makes the sequence of keys repeatable.
	Seed uint64
}

// Result is what one measurement saw.
type Result struct {
	// Requests is the number of requests answered and verified.
	Requests uint64
	// Elapsed is the time from the first request to the last reply.
	Elapsed time.Duration
	// Latency is per request, from the write of its batch to the read that
	// brought its reply.
	Latency Histogram
}

// PerSecond is the throughput in requests per second.
func (r *Result) PerSecond() float64 { return float64(r.Requests) / r.Elapsed.Seconds() }

// stallLimit ends a measurement when no reply at all arrives for so long.
const stallLimit = 10 * time.Second

// inputSize is what one read can bring at most.
const inputSize = 64 << 10

type client struct {
	fd       int
	seeds    []uint32 // of the batch under way
	answered int      // replies verified of the batch under way
	in       []byte   // in[:have] was read and not yet verified
	have     int
	out      []byte // the batch
	written  int
	blocked  bool // waits for EPOLLOUT
	sent     int64
}

// Generator holds open connections to one target. It is not safe for
// concurrent use.
type Generator struct {
	opt      Options
	epoll    int
	clients  []client
	random   uint64
	events   []unix.EpollEvent
	inFlight int // clients with a batch under way
	deadline int64
	limit    uint64 // batches yet to be started; fill only
	sequence bool   // keys in order rather than at random
	cursor   uint32
	result   *Result
	origin   time.Time
}

// Dial opens all connections. The caller closes the generator.
func Dial(opt Options) (*Generator, error) {
	if opt.Connections < 1 || opt.Pipeline < 1 || opt.Keys < 1 || opt.Command == nil {
		return nil, errors.New("load: connections, pipeline, keys and command are required")
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	g := &Generator{
		opt:    opt,
		epoll:  epoll,
		random: opt.Seed*0x9E3779B97F4A7C15 | 1,
		events: make([]unix.EpollEvent, 128),
		origin: time.Now(),
	}
	g.clients = make([]client, 0, opt.Connections)
	for i := range opt.Connections {
		fd, err := dial(opt.Addr)
		if err != nil {
			g.Close()
			return nil, fmt.Errorf("connection %d to %s: %w", i, opt.Addr, err)
		}
		g.clients = append(g.clients, client{fd: fd, seeds: make([]uint32, 0, opt.Pipeline), in: make([]byte, inputSize)})
		if err := g.control(unix.EPOLL_CTL_ADD, i, unix.EPOLLIN); err != nil {
			g.Close()
			return nil, err
		}
	}
	return g, nil
}

func dial(addr netip.AddrPort) (int, error) {
	var sa unix.Sockaddr
	family := unix.AF_INET
	if addr.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	} else {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Connect(fd, sa); err != nil {
		return -1, errors.Join(fmt.Errorf("connect: %w", err), unix.Close(fd))
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, errors.Join(fmt.Errorf("TCP_NODELAY: %w", err), unix.Close(fd))
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return -1, errors.Join(fmt.Errorf("O_NONBLOCK: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// Close closes all connections.
func (g *Generator) Close() error {
	var errs []error
	for i := range g.clients {
		errs = append(errs, unix.Close(g.clients[i].fd))
	}
	g.clients = nil
	errs = append(errs, unix.Close(g.epoll))
	return errors.Join(errs...)
}

// Run loads the target for about d, then waits until every reply is there.
func (g *Generator) Run(d time.Duration) (*Result, error) {
	g.sequence, g.limit = false, math.MaxUint64
	return g.run(d)
}

// Fill sends the command once for each key in order (and at most a batch per
// client more), for a Command that writes.
func (g *Generator) Fill() error {
	g.sequence, g.cursor = true, 0
	g.limit = (uint64(g.opt.Keys) + uint64(g.opt.Pipeline) - 1) / uint64(g.opt.Pipeline)
	_, err := g.run(time.Hour)
	return err
}

func (g *Generator) now() int64 { return int64(time.Since(g.origin)) }

func (g *Generator) run(d time.Duration) (*Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g.result = &Result{}
	start := g.now()
	g.deadline = start + int64(d)
	g.inFlight = 0
	now := start
	for i := range g.clients {
		if err := g.startBatch(i, now); err != nil {
			return nil, err
		}
	}
	for g.inFlight > 0 {
		n, err := g.wait()
		if err != nil {
			return nil, err
		}
		now = g.now()
		for _, e := range g.events[:n] {
			i := int(e.Fd)
			if e.Events&unix.EPOLLOUT != 0 {
				if err := g.flush(i); err != nil {
					return nil, err
				}
			}
			if e.Events&^unix.EPOLLOUT != 0 {
				if err := g.read(i, now); err != nil {
					return nil, err
				}
			}
		}
	}
	g.result.Elapsed = time.Duration(g.now() - start)
	return g.result, nil
}

func (g *Generator) wait() (int, error) {
	for {
		n, err := unix.EpollWait(g.epoll, g.events, int(stallLimit/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("epoll_wait: %w", err)
		}
		if n == 0 {
			return 0, fmt.Errorf("no reply from %s for %v; %d of %d connections wait", g.opt.Addr, stallLimit, g.inFlight, len(g.clients))
		}
		return n, nil
	}
}

func (g *Generator) startBatch(i int, now int64) error {
	c := &g.clients[i]
	if now >= g.deadline || g.limit == 0 {
		return nil
	}
	g.limit--
	g.inFlight++
	c.seeds, c.out = c.seeds[:0], c.out[:0]
	c.answered, c.written = 0, 0
	for range g.opt.Pipeline {
		seed := g.draw()
		c.seeds = append(c.seeds, seed)
		c.out = g.opt.Command.AppendRequest(c.out, seed)
	}
	c.sent = now
	return g.flush(i)
}

func (g *Generator) draw() uint32 {
	if g.sequence {
		seed := g.cursor % g.opt.Keys
		g.cursor++
		return seed
	}
	g.random = next(g.random)
	// The high half times the range: uniform without a division.
	return uint32((g.random >> 32) * uint64(g.opt.Keys) >> 32)
}

// flush writes what is left of the batch; what the socket does not take waits
// for EPOLLOUT.
func (g *Generator) flush(i int) error {
	c := &g.clients[i]
	for c.written < len(c.out) {
		n, err := rawWrite(c.fd, c.out[c.written:])
		switch err {
		case 0:
			c.written += n
		case unix.EINTR:
		case unix.EAGAIN:
			if c.blocked {
				return nil
			}
			c.blocked = true
			return g.control(unix.EPOLL_CTL_MOD, i, unix.EPOLLIN|unix.EPOLLOUT)
		default:
			return fmt.Errorf("write to %s: %w", g.opt.Addr, err)
		}
	}
	if c.blocked {
		c.blocked = false
		return g.control(unix.EPOLL_CTL_MOD, i, unix.EPOLLIN)
	}
	return nil
}

func (g *Generator) control(op, i int, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(i)}
	if err := unix.EpollCtl(g.epoll, op, g.clients[i].fd, &e); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (g *Generator) read(i int, now int64) error {
	c := &g.clients[i]
	if c.have == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := rawRead(c.fd, c.in[c.have:])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != 0:
		return fmt.Errorf("read from %s: %w", g.opt.Addr, err)
	case n == 0:
		return fmt.Errorf("%s closed the connection with %d of %d replies outstanding", g.opt.Addr, len(c.seeds)-c.answered, len(c.seeds))
	}
	c.have += n
	return g.verify(i, now)
}

func (g *Generator) verify(i int, now int64) error {
	c := &g.clients[i]
	pos, first := 0, c.answered
	for c.answered < len(c.seeds) && pos < c.have {
		n, err := g.opt.Command.CheckReply(c.in[pos:c.have], c.seeds[c.answered])
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		pos += n
		c.answered++
	}
	if done := c.answered - first; done > 0 {
		g.result.Requests += uint64(done)
		g.result.Latency.Record(time.Duration(now-c.sent), done)
	}
	if c.answered < len(c.seeds) {
		copy(c.in, c.in[pos:c.have])
		c.have -= pos
		return nil
	}
	if pos < c.have {
		return fmt.Errorf("%s sent more than was asked for: %q", g.opt.Addr, c.in[pos:min(c.have, pos+100)])
	}
	c.have = 0
	c.seeds, c.answered = c.seeds[:0], 0
	g.inFlight--
	return g.startBatch(i, g.now())
}

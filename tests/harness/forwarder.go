package harness

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// Forwarder is a port of 127.0.0.1 behind which another server answers: a stale
// DNS record, a reused address, a bad network. It is safe for concurrent use.
type Forwarder struct {
	// Address that clients connect to, "127.0.0.1:port".
	Address string

	target string

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	conns    map[net.Conn]bool
	delay    time.Duration
	rate     int
}

// Forward passes connections to address on to target until the test ends. An
// empty address is a free one.
func Forward(t testing.TB, address, target string) *Forwarder {
	t.Helper()
	if address == "" {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		address = fmt.Sprintf("127.0.0.1:%d", port)
	}
	f := &Forwarder{Address: address, target: target, conns: map[net.Conn]bool{}}
	// The process that had the port may be gone a moment later than its test thinks.
	Eventually(t, 5*time.Second, "listen at "+address, f.Pass)
	t.Cleanup(f.Refuse)
	return f
}

// Pass lets connections through again after Refuse.
func (f *Forwarder) Pass() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", f.Address)
	if err != nil {
		return err
	}
	f.listener = listener
	go f.accept(listener)
	return nil
}

// Refuse breaks every connection; new ones are refused, as by a dead server. The
// port is free then.
func (f *Forwarder) Refuse() {
	f.mu.Lock()
	if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
	f.mu.Unlock()
	f.Cut()
}

// Cut breaks every connection; new ones get through.
func (f *Forwarder) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
	clear(f.conns)
}

// Delay makes everything that arrives from now on wait, in both directions.
func (f *Forwarder) Delay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// Throttle limits each connection to so many bytes a second in each direction; 0
// is no limit.
func (f *Forwarder) Throttle(bytesPerSecond int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rate = bytesPerSecond
}

func (f *Forwarder) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // Refuse closed it
		}
		go f.connect(client)
	}
}

func (f *Forwarder) connect(client net.Conn) {
	server, err := net.DialTimeout("tcp", f.target, time.Second)
	if err != nil {
		client.Close()
		return
	}
	f.mu.Lock()
	refused := f.listener == nil
	if !refused {
		f.conns[client], f.conns[server] = true, true
	}
	f.mu.Unlock()
	if refused {
		client.Close()
		server.Close()
		return
	}
	go f.copy(client, server)
	f.copy(server, client)
}

// copy passes on what arrives until either end is closed, and closes both.
func (f *Forwarder) copy(to, from net.Conn) {
	defer func() {
		to.Close()
		from.Close()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.conns, to)
		delete(f.conns, from)
	}()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			time.Sleep(f.pause(n))
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pause is how long n bytes wait.
func (f *Forwarder) pause(n int) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	pause := f.delay
	if f.rate > 0 {
		pause += time.Duration(n) * time.Second / time.Duration(f.rate)
	}
	return pause
}

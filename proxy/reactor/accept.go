package reactor

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepAliveSeconds is how long a client may be silent before the kernel asks
// if it is still there, as Redis does by default.
const keepAliveSeconds = 300

// acceptor accepts clients. It is a goroutine, not a loop: a connection is
// rare compared with a command, and one acceptor can see which loop has the
// fewest clients.
type acceptor struct {
	mu        sync.Mutex
	listeners []io.Closer
	closed    bool
	ids       atomic.Uint64
	rejected  atomic.Uint64
}

func (a *acceptor) add(ln io.Closer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.listeners = append(a.listeners, ln)
	}
	return !a.closed
}

func (a *acceptor) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for _, ln := range a.listeners {
		// Closing is all there is to do with a listener.
		_ = ln.Close()
	}
}

func (a *acceptor) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

// Serve accepts clients of a TCP listener until Shutdown, then returns nil.
// The listener is closed when it returns.
func (e *Engine) Serve(ln net.Listener) error {
	defer ln.Close()
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("serve %s: only TCP listeners are served, not %T", ln.Addr(), ln)
	}
	// A listener lets nobody else accept; a copy of its descriptor does.
	file, err := tcp.File()
	if err != nil {
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	defer file.Close()
	if !e.accepting.add(file) || !e.accepting.add(ln) {
		return nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	for {
		var fd int
		var from unix.Sockaddr
		var acceptErr error
		err := raw.Read(func(listener uintptr) bool {
			fd, from, acceptErr = unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return !errors.Is(acceptErr, syscall.EAGAIN)
		})
		switch {
		case e.accepting.isClosed():
			if err == nil && acceptErr == nil {
				_ = unix.Close(fd)
			}
			return nil
		case err != nil:
			return fmt.Errorf("serve %s: %w", ln.Addr(), err)
		case errors.Is(acceptErr, syscall.EINTR) || errors.Is(acceptErr, syscall.ECONNABORTED):
			continue
		case acceptErr != nil:
			// Out of descriptors or memory: others may give some back.
			e.logs.unaccepted.log(e, slog.LevelError, "client cannot be accepted", "error", acceptErr)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		e.welcome(fd, address(from))
	}
}

// welcome gives a client to the loop with the fewest, or turns it away.
func (e *Engine) welcome(fd int, addr netip.AddrPort) {
	total, least := int64(0), e.loops[0]
	for _, l := range e.loops {
		n := l.clients.Load()
		total += n
		if n < least.clients.Load() {
			least = l
		}
	}
	if total >= int64(e.cfg.MaxClients) {
		e.accepting.rejected.Add(1)
		// The client is gone either way.
		_, _ = unix.Write(fd, []byte("-ERR max number of clients reached\r\n"))
		_ = unix.Close(fd)
		return
	}
	for _, option := range [][3]int{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveSeconds},
	} {
		if err := unix.SetsockoptInt(fd, option[0], option[1], option[2]); err != nil {
			e.cfg.Logger.Warn("client socket option cannot be set", "client", addr, "option", option[1], "error", err)
		}
	}
	id := e.accepting.ids.Add(1)
	least.clients.Add(1)
	if !least.post(func() { least.adopt(fd, id, addr) }) {
		_ = unix.Close(fd)
		least.clients.Add(-1)
	}
}

// address makes a socket address comparable and printable.
func address(from unix.Sockaddr) netip.AddrPort {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

package health

import (
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepAlive has the kernel ask the other end of a connection every second whether it
// is there, when nothing else is sent.
func keepAlive(nc net.Conn) error {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("%T is no TCP connection", nc)
	}
	// The prober gives up a silent connection long before so many are unanswered.
	return tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: hostEvery, Interval: hostEvery, Count: 100})
}

// hostAt is when the kernel at the other end of a connection last answered; the zero
// time when that cannot be known. No process has a part in it.
func hostAt(nc net.Conn) (at time.Time) {
	c, ok := nc.(syscall.Conn)
	if !ok {
		return at
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return at
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			at = time.Now().Add(-time.Duration(info.Last_ack_recv) * time.Millisecond)
		}
	})
	return at
}

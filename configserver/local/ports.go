package local

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Free ports are taken from below the range that the kernel gives to outgoing
// connections (32768 and up), so that none of those can take a port between
// the look and the listening.
const (
	firstFreePort = 10000
	lastFreePort  = 29999
)

// ports hands out ports, none twice.
type ports map[int]bool

// free finds a port nobody listens on.
func (p ports) free() (int, error) {
	for range 1000 {
		port := firstFreePort + rand.IntN(lastFreePort-firstFreePort+1) //nolint:gosec // a port is no secret
		if !p[port] && portFree(port) {
			p[port] = true
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port found between %d and %d", firstFreePort, lastFreePort)
}

// take claims a given port; what says how the user may choose another one.
func (p ports) take(port int, what string) error {
	if p[port] || !portFree(port) {
		return fmt.Errorf("port %d is in use; %s", port, what)
	}
	p[port] = true
	return nil
}

// takeOrFree claims port, or a free one when it is 0.
func (p ports) takeOrFree(port int, what string) (int, error) {
	if port == 0 {
		return p.free()
	}
	return port, p.take(port, what)
}

// allFree tells if nobody listens on n ports from first on.
func allFree(first, n int) bool {
	for port := first; port < first+n; port++ {
		if !portFree(port) {
			return false
		}
	}
	return true
}

func portFree(port int) bool {
	l, err := net.Listen("tcp4", address(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// address is a port on the loopback.
func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

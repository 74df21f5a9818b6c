package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports for servers lie below the range that Linux gives to outgoing
// connections (32768 and up): a port from that range can be taken by a client
// while its server is being restarted, which a test that kills servers would
// meet sooner or later.
const (
	firstPort = 10000
	lastPort  = 29999
)

var (
	portsMu sync.Mutex
	handed  = map[int]bool{}
)

// FreePort returns a port of 127.0.0.1 that nobody listens on and that this
// process was not given before.
func FreePort() (int, error) { return freePorts(1) }

// freePorts returns the first of n neighbouring free ports.
func freePorts(n int) (int, error) {
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 1000 {
		first := firstPort + rand.IntN(lastPort-firstPort-n) //nolint:gosec // not a secret
		if allFree(first, n) {
			for p := first; p < first+n; p++ {
				handed[p] = true
			}
			return first, nil
		}
	}
	return 0, errors.New("no free ports on 127.0.0.1 between 10000 and 29999")
}

func allFree(first, n int) bool {
	for p := first; p < first+n; p++ {
		if handed[p] {
			return false
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

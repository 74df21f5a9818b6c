package clients

import (
	"strings"
	"testing"
)

// socketIO runs two socket.io servers as one, each with a proxy of its own, and then
// with a plain server: what they see of each other's sockets is the same.
func socketIO(t *testing.T, proxies []string, plain string) {
	var said [2]string
	for i, sides := range [][]string{proxies[:2], {plain, plain}} {
		host, port := hostPort(t, sides[0])
		_, other := hostPort(t, sides[1])
		out, err := run(t, patience, "node", "programs/node/socketio.mjs", host, port, other)
		if err != nil || !strings.HasSuffix(out, "ended\n") {
			t.Fatalf("%v at %v\n%s", err, sides, out)
		}
		said[i] = out
	}
	if said[0] != said[1] || strings.Count(said[0], "fetchSockets: [\"a\",\"a\",\"a\",\"b\",\"b\",\"b\"]") != 4 {
		t.Errorf("socket.io sees through two proxies what it does not at a server:\n%s", difference(said[0], said[1], "\n"))
	}
}

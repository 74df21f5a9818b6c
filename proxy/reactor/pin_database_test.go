package reactor_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestSlowSelectOnPinnedConnection: a request that was given up because the
// server did not answer the SELECT in front of it leaves that SELECT in flight.
// What follows must not be executed in its database.
func TestSlowSelectOnPinnedConnection(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	f := startFake(t, func(args []string) string {
		if fmt.Sprint(args) == "[SELECT 5]" {
			<-answer
		}
		return "+OK\r\n"
	})
	p := startProxy(t, reactor.Config{Loops: 1, HoldTimeout: 200 * time.Millisecond}, one(0, 1, f.ln.Addr().String()))
	c := p.dial()
	c.want("OK", "WATCH", "a")
	c.want("OK", "SELECT", "5")
	c.want("-CLUSTERDOWN no master serves this slot; retry later", "WATCH", "a")
	c.want("OK", "SELECT", "0")
	c.send("WATCH", "a")
	time.Sleep(50 * time.Millisecond)
	close(answer)
	c.wantNext("OK")
	if got := fmt.Sprint(f.waitGot(4)); got != "[WATCH a SELECT 5 SELECT 0 WATCH a]" {
		t.Errorf("the server got %s", got)
	}
}

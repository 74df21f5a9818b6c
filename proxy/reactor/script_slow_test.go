package reactor_test

import (
	"io"
	"strconv"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestSlowReaderOfAScript: what a script returns waits in the server as well, for
// a client that takes it slowly.
func TestSlowReaderOfAScript(t *testing.T) {
	shards, _ := realShards(t, 1)
	const budget, size = 64 << 20, 100 << 20
	p := startProxy(t, reactor.Config{Loops: 1, MemoryBudgetBytes: budget}, shards...)
	c := p.dial()
	c.want(strconv.Itoa(size), "SETRANGE", "big", strconv.Itoa(size-1), "x")
	part := []string{"EVAL", "return redis.call('getrange',KEYS[1],0,ARGV[1])", "1", "big"}
	if n := len(c.do(append(part, "99999")...)); n != 100_000 {
		t.Fatal(n)
	}
	c.send("EVAL", "return redis.call('get',KEYS[1])", "1", "big") // a new script
	piece := make([]byte, 256<<10)
	var most int64
	for n := len("$104857600\r\n\r\n") + size; n > 0; n -= len(piece) {
		if _, err := io.ReadFull(c.r, piece[:min(n, len(piece))]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		if n/len(piece)%10 == 0 {
			most = max(most, p.Stats().MemoryBytes)
		}
	}
	if most > budget/2 {
		t.Errorf("%d bytes were in use", most)
	}
}

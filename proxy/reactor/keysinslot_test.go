package reactor_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
)

// TestKeysInSlotWhileMastersChange: what CLUSTER COUNTKEYSINSLOT counts by many
// SCANs is right although the cursor of one master means nothing to the next.
func TestKeysInSlotWhileMastersChange(t *testing.T) {
	const keys, times = 20000, 4
	pair, shard := startTwins(t, 0, 1)
	p := startProxy(t, reactor.Config{Loops: 1, ClusterMode: true}, shard)
	pair.servers[0].MustDo("EVAL", fmt.Sprintf("for i = 1, %d do redis.call('SET', '{t}' .. i, '') redis.call('SET', i, '') end", keys), "0")
	at := fmt.Sprint(slot.Of([]byte("{t}")))
	counted := make(chan []string)
	ready, stop := make(chan struct{}), make(chan struct{})
	go func() {
		c := p.dial()
		var wrong []string
		close(ready)
		for {
			select {
			case <-stop:
				counted <- wrong
				return
			default:
			}
			if n := c.do("CLUSTER", "COUNTKEYSINSLOT", at); n != fmt.Sprint(keys) {
				wrong = append(wrong, n)
			}
		}
	}()
	<-ready
	for range times {
		pair.switchover(t, 0, func() {}, p)
	}
	close(stop)
	if wrong := <-counted; len(wrong) > 0 {
		t.Errorf("counted %v keys, there are %d", wrong, keys)
	}
}

func TestKeysInSlotAreBounded(t *testing.T) {
	shards, servers := realShards(t, 1)
	c := startProxy(t, reactor.Config{ClusterMode: true, GatherMaxBytes: 10_000}, shards...).dial()
	servers[0].MustDo("EVAL", "for i = 1, 1000 do redis.call('SET', '{t}' .. i, '') end", "0")
	at := fmt.Sprint(slot.Of([]byte("{t}")))
	for _, request := range [][]string{{"CLUSTER", "COUNTKEYSINSLOT", at}, {"CLUSTER", "GETKEYSINSLOT", at, "100000"}} {
		has(t, request[1], c.do(request...), "-ERR the names of the slot's keys are longer than 10000 bytes together")
	}
	if n := strings.Count(c.do("CLUSTER", "GETKEYSINSLOT", at, "10"), "{t}"); n != 10 {
		t.Errorf("%d keys, want 10", n)
	}
	for _, number := range []string{"+5", "05", "x"} {
		c.want("-ERR value is not an integer or out of range", "CLUSTER", "COUNTKEYSINSLOT", number)
	}
}

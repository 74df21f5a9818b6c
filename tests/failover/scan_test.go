package failover

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestIterationsThroughChangesOfMasters: SCAN, HSCAN, SSCAN and ZSCAN, whose pages
// are got through two proxies in turn, return all that is there throughout, though
// the master is replaced in their midst: by a switchover, by a failover, and by
// itself, restarted with its data.
func TestIterationsThroughChangesOfMasters(t *testing.T) {
	const elements = 5000
	c := harness.Start(t, harness.Options{Proxies: 2, Disk: harness.AppendOnly})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	var conns []*consistency.Conn
	for _, address := range c.Proxies {
		conn, err := consistency.Dial(t.Context(), address, "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Timeout = time.Minute
		conns = append(conns, conn)
	}
	var fill [][]string
	for i := range elements {
		e := fmt.Sprint("e", i)
		fill = append(fill, []string{"HSET", "{x}h", e, "v"}, []string{"SADD", "{x}s", e}, []string{"ZADD", "{x}z", "1", e}, []string{"SET", e, "v"})
	}
	for batch := range slices.Chunk(fill, 500) {
		replies, err := conns[0].Pipeline(batch...)
		for _, r := range replies {
			err = cmp.Or(err, r.Err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	home := 0
	for i, sh := range c.Shards(t) {
		if sh.Slots.Has(int(slot.Of([]byte("{x}")))) {
			home = i
		}
	}
	switchover := func(shard int) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := c.Switchover(ctx, shardName(shard)); err != nil {
			t.Fatal(err)
		}
	}
	kill := func(shard int) {
		master := c.Master(t, shard).GetId()
		c.Kill(t, master)
		c.StartProcess(t, master)
		c.WaitHealthy(t, servesWithin)
	}
	for _, at := range []struct {
		what   string
		change func(shard int)
	}{{"a switchover", switchover}, {"a master that died or restarted", kill}} {
		for _, command := range [][]string{{"HSCAN", "{x}h"}, {"SSCAN", "{x}s"}, {"ZSCAN", "{x}z"}, {"SCAN"}} {
			seen := map[string]bool{}
			cursor := "0"
			for n := 0; n == 0 || cursor != "0"; n++ {
				if n == 10 || n == 25 {
					shard := home
					if command[0] == "SCAN" {
						shard = n / 20 // about where it is
					}
					at.change(shard)
				}
				reply, err := conns[n%2].Do(append(append([]string(nil), command...), cursor, "COUNT", "100")...)
				if err == nil {
					err = reply.Err
				}
				if err != nil || n > 1000 {
					t.Fatalf("%s, %v, page %d: %v", at.what, command, n, err)
				}
				cursor = string(reply.Array[0].Text)
				for _, e := range reply.Array[1].Array {
					seen[string(e.Text)] = true
				}
			}
			missed := 0
			for i := range elements {
				if !seen[fmt.Sprint("e", i)] {
					missed++
				}
			}
			if missed > 0 {
				t.Errorf("%s: %s missed %d of %d", at.what, strings.Join(command, " "), missed, elements)
			}
		}
	}
}

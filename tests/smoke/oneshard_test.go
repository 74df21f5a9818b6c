package smoke

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestOneShard: with one shard nothing needs a tag; the status says what would fail with
// two, through which proxy ever it came, and the policy refuses it.
func TestOneShard(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 1, Replicas: -1, Proxies: 2})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var proxies []*redis.Client
	for i, addr := range c.Proxies {
		db := redis.NewClient(&redis.Options{Addr: addr, ClientName: "worker", MaxRetries: -1})
		defer db.Close()
		proxies = append(proxies, db)
		if n, err := db.RPush(ctx, "jobs", "1", "2").Result(); n != int64(2*(i+1)) || err != nil {
			t.Fatalf("RPUSH %d, %v", n, err)
		}
	}
	crossing := func(db *redis.Client) error {
		_, err := db.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, "a", 1, 0)
			p.Set(ctx, "b", 1, 0)
			return nil
		})
		return err
	}
	for _, db := range proxies {
		if err := crossing(db); err != nil {
			t.Fatal(err)
		}
		if got, err := db.BLMove(ctx, "jobs", "active", "LEFT", "RIGHT", time.Second).Result(); got == "" || err != nil {
			t.Fatalf("BLMOVE %q, %v", got, err)
		}
	}
	harness.Eventually(t, 20*time.Second, "both proxies told what crosses slots", func() error {
		got := ""
		for _, k := range c.Status(t).GetCrossSlot() {
			got += fmt.Sprintf("%s %s %d, ", k.GetCommand(), k.GetClientName(), k.GetRequests())
			if k.GetPerSecond() <= 0 {
				got += fmt.Sprintf("%v a second, ", k.GetPerSecond())
			}
		}
		if !strings.Contains(got, "multi worker 2, ") || !strings.Contains(got, "blmove worker 2, ") || strings.Contains(got, "a second") {
			return fmt.Errorf("told: %s", got)
		}
		return nil
	})
	status := c.CLI(t, "cluster", "status", c.Name)
	wantLine(t, "cluster status", status, "requests a second would fail with a second shard (CROSSSLOT)")
	wantLine(t, "cluster status", status, "multi", "worker", "2")

	c.CLI(t, "cluster", "update", c.Name, "--cross-slot", "refuse")
	c.CLI(t, "topology", "barrier", c.Name)
	for _, db := range proxies {
		if err := crossing(db); err == nil || !strings.HasPrefix(err.Error(), "CROSSSLOT") && !strings.HasPrefix(err.Error(), "EXECABORT") {
			t.Errorf("with refuse: %v", err)
		}
		if err := db.Rename(ctx, "a", "b").Err(); err == nil || !strings.HasPrefix(err.Error(), "CROSSSLOT Keys in request don't hash to the same slot: \"a\" is in slot 15495, \"b\" in 3300; use one {tag}") {
			t.Errorf("with refuse: %v", err)
		}
	}
	wantLine(t, "cluster status", c.CLI(t, "cluster", "status", c.Name), "requests a second are refused (CROSSSLOT)")
	c.SetPolicy(t, func(p *pb.Policy) { p.CrossSlot = pb.CrossSlot_CROSS_SLOT_ONE_SHARD })
	c.CLI(t, "topology", "barrier", c.Name)
	if err := proxies[0].Rename(ctx, "a", "b").Err(); err != nil {
		t.Error(err)
	}
}

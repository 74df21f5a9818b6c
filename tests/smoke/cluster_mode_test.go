package smoke

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/tests/harness"
)

// TestClusterMode: a client that insists on a Redis Cluster finds one, whose
// nodes are the proxies; it uses all of them, and goes on when one dies.
func TestClusterMode(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2, Proxies: 2, Flags: []string{"--proxy-flag", "--cluster-mode=true"}})
	ctx := t.Context()
	harness.Eventually(t, 5*time.Second, "both proxies know of each other", func() error {
		for _, addr := range c.Proxies {
			text := redisCLI(t, addr, "cluster", "nodes")
			for _, other := range c.Proxies {
				if !strings.Contains(text, other) {
					return fmt.Errorf("%s does not show %s:\n%s", addr, other, text)
				}
			}
		}
		return nil
	})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Proxies[:1], MaxRedirects: 8})
	t.Cleanup(func() { _ = client.Close() })
	const keys = 500
	for i := range keys {
		key := fmt.Sprint("cm:", i)
		if err := client.Set(ctx, key, i, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Get(ctx, key).Int(); got != i || err != nil {
			t.Fatalf("GET %s: %d, %v", key, got, err)
		}
	}
	var mu sync.Mutex
	used := map[string]bool{}
	err := client.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		used[node.Options().Addr] = true
		return node.Ping(ctx).Err()
	})
	if err != nil || len(used) != 2 {
		t.Errorf("masters that the client found: %v, %v; want both proxies", used, err)
	}
	exec, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Incr(ctx, "{tx}a")
		p.Incr(ctx, "{tx}b")
		return nil
	})
	if err != nil || len(exec) != 2 {
		t.Errorf("TxPipelined: %v, %v", exec, err)
	}

	// Keys of a slot: the same as a look at all keys finds.
	slot := client.ClusterKeySlot(ctx, "{tx}a").Val()
	if n, err := client.ClusterCountKeysInSlot(ctx, int(slot)).Result(); n != 2 || err != nil {
		t.Errorf("CLUSTER COUNTKEYSINSLOT %d: %d, %v; want 2", slot, n, err)
	}
	if got, err := client.ClusterGetKeysInSlot(ctx, int(slot), 10).Result(); len(got) != 2 || err != nil {
		t.Errorf("CLUSTER GETKEYSINSLOT %d: %v, %v; want 2 keys", slot, got, err)
	}
	if got, err := client.ClusterGetKeysInSlot(ctx, int(slot), 1).Result(); len(got) != 1 || err != nil {
		t.Errorf("CLUSTER GETKEYSINSLOT %d 1: %v, %v; want 1 key", slot, got, err)
	}
	if shards, err := client.ClusterShards(ctx).Result(); err != nil || len(shards) != 2 || shards[0].Slots[0].End != 8191 || shards[1].Slots[0].Start != 8192 {
		t.Errorf("CLUSTER SHARDS: %+v, %v", shards, err)
	}
	addr := c.Proxies[0]
	if got := redisCLI(t, addr, "-c", "get", "cm:7"); got != "7" {
		t.Errorf("redis-cli -c get: %q", got)
	}
	for _, want := range []string{"redis_mode:cluster", "cluster_enabled:1"} {
		if info := redisCLI(t, addr, "info"); !strings.Contains(info, want) {
			t.Errorf("INFO lacks %s", want)
		}
	}
	if got := redisCLI(t, addr, "cluster", "meet", "127.0.0.1", "1"); !strings.Contains(got, "the Configserver alone decides") {
		t.Errorf("CLUSTER MEET: %s", got)
	}

	c.Kill(t, "proxy-1")
	harness.Eventually(t, 5*time.Second, "the other proxy is alone", func() error {
		if text := redisCLI(t, addr, "cluster", "slots"); strings.Contains(text, strings.TrimPrefix(c.Proxies[1], "127.0.0.1:")) {
			return fmt.Errorf("CLUSTER SLOTS still has it:\n%s", text)
		}
		return nil
	})
	client.ReloadState(ctx)
	harness.Eventually(t, 10*time.Second, "the client serves every key", func() error {
		for i := range keys {
			if got, err := client.Get(ctx, fmt.Sprint("cm:", i)).Int(); got != i || err != nil {
				return fmt.Errorf("GET cm:%d: %d, %v", i, got, err)
			}
		}
		return nil
	})
}

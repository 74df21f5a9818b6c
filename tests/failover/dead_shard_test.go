package failover

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// withinDead is how long a command may take that does not need the shard that is
// dead: a second, and what a busy machine adds.
const withinDead = 2 * time.Second

// TestOneDeadShardOfThree: all nodes of one shard are dead. New clients connect,
// whatever they ask first, subscribe, and use the keys of the other shards.
func TestOneDeadShardOfThree(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	shards := c.Shards(t)
	const dead = 0 // the one that is asked where any would do
	for _, n := range c.Topology(t).GetShards()[dead].GetNodes() {
		c.Kill(t, n.GetId())
	}
	slotOf := func(shard int) int {
		for first := range shards[shard].Slots.Ranges {
			return first
		}
		t.Fatalf("%s has no slot", shards[shard].ID)
		return 0
	}
	key := func(shard int) string { return consistency.KeyInSlot("k", slotOf(shard)) }
	time.Sleep(2 * time.Second) // longer than anybody waits for it
	begun := time.Now()
	for _, args := range [][]string{
		{"PING"}, {"HELLO", "2"}, {"INFO"}, {"INFO", "server"}, {"INFO", "replication"}, {"CLIENT", "LIST"}, {"CLIENT", "INFO"},
		{"CLIENT", "TRACKING", "ON", "BCAST"}, {"COMMAND", "COUNT"}, {"CONFIG", "GET", "maxmemory"}, {"CONFIG", "GET", "databases"},
		{"SET", key(1), "1"}, {"GET", key(2)}, {"MGET", key(1), key(2)}, {"WATCH", key(1)}, {"BLPOP", consistency.KeyInSlot("list", slotOf(2)), "0.1"},
		{"SUBSCRIBE", key(dead)}, {"PSUBSCRIBE", "k*"}, {"SSUBSCRIBE", key(1)},
		{"EVAL", "return 1", "0"}, {"EVAL", "return redis.call('get', KEYS[1])", "1", key(1)}, {"SCRIPT", "LOAD", "return 77"},
		{"SCRIPT", "EXISTS", strings.Repeat("f", 40)}, {"FUNCTION", "LIST"}, {"FUNCTION", "STATS"},
		{"CONFIG", "SET", "slowlog-max-len", "129"}, {"ACL", "SETUSER", "u", "on", "nopass", "~*", "+@all"}, {"ACL", "DELUSER", "u"},
		{"ACL", "WHOAMI"}, {"TIME"}, {"ROLE"}, {"SLOWLOG", "LEN"}, {"SLOWLOG", "GET"}, {"LATENCY", "LATEST"}, {"MEMORY", "STATS"},
		{"PUBSUB", "NUMSUB", "x"}, {"PUBSUB", "CHANNELS"}, {"RANDOMKEY"}, {"WAIT", "0", "100"}, {"SELECT", "3"}, {"MONITOR"}, {"LOLWUT"},
	} {
		conn, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
		if err != nil {
			t.Fatal(err)
		}
		conn.Timeout = time.Minute
		begun := time.Now()
		reply, err := conn.Do(args...)
		took := time.Since(begun)
		conn.Close()
		if err == nil {
			err = reply.Err
		}
		if err != nil || took > withinDead {
			t.Errorf("%v took %s: %v", args, took.Round(time.Millisecond), err)
		}
		if text := string(reply.Text); args[0] == "INFO" && !strings.HasSuffix(text, "\r\nshards_missing:shard-0\r\n") {
			t.Errorf("%v does not say which shard is missing, but ends with %q", args, text[max(0, len(text)-200):])
		}
	}
	// Ordinary channels have one place, which may be the dead shard, unless they are spread.
	c.CLI(t, "cluster", "update", c.Name, "--pubsub", "spread")
	conn, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, withinDead, "a message of a channel of another shard is published", func() error {
		reply, err := conn.Do("PUBLISH", key(1), "x")
		return errors.Join(err, reply.Err)
	})
	conn.Close()
	t.Logf("all answered within %s", time.Since(begun).Round(time.Millisecond))
	for _, n := range c.Topology(t).GetShards()[dead].GetNodes() {
		c.StartProcess(t, n.GetId())
	}
	c.WaitHealthy(t, servesWithin)
}

package reactor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/introspect"
	"github.com/basalt-redis/basalt/proxy/reactor"
)

// keyAt is a key whose slot a shard has.
func keyAt(p *proxy, shard int, name string) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint(name, i); p.cluster.Shards[shard].Slots.Has(int(slot.Of([]byte(key)))) {
			return key
		}
	}
}

// TestOneDeadShard: what does not need a shard that is dead does not wait for it,
// whether it refuses connections or is silent, whether it is the first one or not.
// What is about its data waits, and then fails.
func TestOneDeadShard(t *testing.T) {
	for _, at := range []struct {
		dead   int
		silent bool
	}{{1, false}, {0, false}, {0, true}} {
		t.Run(fmt.Sprintf("shard-%d, silent %v", at.dead, at.silent), func(t *testing.T) {
			t.Parallel()
			shards, servers := realShards(t, 3)
			p := startProxy(t, reactor.Config{
				HoldTimeout: 6 * time.Second,
				Info: func(dst []byte, args, shards [][]byte) []byte {
					var wanted []string
					for _, a := range args[1:] {
						wanted = append(wanted, string(a))
					}
					return introspect.Info(dst, wanted, shards, introspect.Proxy{})
				},
				ConfigGet: func(dst []byte, _ [][]byte, _ int, server []string) []byte {
					return fmt.Appendf(dst, "+%s\r\n", strings.Join(server, " "))
				},
			}, shards...)
			a, b := keyAt(p, (at.dead+1)%3, "a"), keyAt(p, (at.dead+2)%3, "b")
			lost := keyAt(p, at.dead, "c")
			c := p.dial()
			for _, key := range []string{a, b, lost} {
				c.want("OK", "SET", key, "v")
			}
			c.want("3", "DBSIZE")
			early := p.dial()
			early.want("[subscribe "+lost+" 1]", "SUBSCRIBE", lost)
			if at.silent {
				servers[at.dead].Pause()
				t.Cleanup(servers[at.dead].Resume)
			} else {
				servers[at.dead].Kill()
			}

			dead := p.cluster.Shards[at.dead]
			ask := func(has, lacks string, args ...string) {
				t.Helper()
				begun := time.Now()
				client := p.dial()
				reply := client.do(args...)
				client.Close()
				if took := time.Since(begun); took > 2*time.Second { // one, on a machine of its own
					t.Errorf("%v took %v: %.200q", args, took, reply)
				}
				if !strings.Contains(reply, has) || lacks != "" && strings.Contains(reply, lacks) {
					t.Errorf("%v: %.300q, want %q and not %q", args, reply, has, lacks)
				}
			}
			for round := range 2 { // at first it may come back, then it is known to be away
				if round > 0 && at.silent {
					break
				}
				missing := "\r\nshards_missing:" + dead.ID + "\r\n"
				ask(missing, "", "INFO")
				ask("db0:keys=2,expires=0,avg_ttl=0"+missing, "", "INFO", "keyspace")
				ask("-", "run_id", "INFO", dead.ID)
				ask("[master ", "-", "ROLE")
				ask("[0]", "", "SCRIPT", "EXISTS", strings.Repeat("f", 40))
				ask("[", "-", "FUNCTION", "LIST")
				ask("[", "-ERR", "SLOWLOG", "GET")
				ask("", "-", "SLOWLOG", "LEN")
				ask("[", "-", "LATENCY", "LATEST")
				ask("[", "-", "LATENCY", "HISTORY", "command")
				ask("# "+dead.Nodes[0].ID+"\nno answer\n", "", "LATENCY", "DOCTOR")
				ask("# "+dead.Nodes[0].ID+"\nno answer\n", "", "MEMORY", "DOCTOR")
				ask("keys.count 2", "", "MEMORY", "STATS")
				ask("["+lost+"]", "-", "PUBSUB", "CHANNELS")
				ask("["+lost+" 1]", "-", "PUBSUB", "NUMSUB", lost)
				ask("0", "-", "PUBSUB", "NUMPAT")
				ask("", "-", "RANDOMKEY")
				ask("maxmemory 0", "-", "CONFIG", "GET", "maxmemory")
				ask("", "-", "WAIT", "0", "100")
				ask("OK", "-", "MONITOR")
				ask("[subscribe "+a+" 1]", "", "SUBSCRIBE", a)
				ask("[subscribe "+lost+" 1]", "", "SUBSCRIBE", lost)
				ask("[psubscribe *x 1]", "", "PSUBSCRIBE", "*x")
				ask("v", "-", "GET", a)
				ask("v", "-", "GET", b)
				ask("PONG", "-", "PING")
				ask("proto", "-", "HELLO", "3")
			}
			// A script loads where it can, and is found by its sum in the first shard
			// that is there.
			ask("e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "", "SCRIPT", "LOAD", "return 1")
			ask("[1]", "", "SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db")
			if !at.silent {
				ask("1", "-", "EVAL", "return 1", "0")
				ask("-ERR "+dead.Nodes[0].ID+" did not answer", "", "SLOWLOG", "RESET")
				ask("-ERR "+dead.Nodes[0].ID+" did not answer", "", "CONFIG", "RESETSTAT")
			}
			tracker := p.dial()
			tracker.do("HELLO", "3")
			begun := time.Now()
			tracker.want("OK", "CLIENT", "TRACKING", "ON", "BCAST")
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("CLIENT TRACKING took %v", took)
			}

			// What is about data waits, for all of the time that it may.
			begun = time.Now()
			counts, reads, late := p.dial(), p.dial(), p.dial()
			late.want("[subscribe "+lost+" 1]", "SUBSCRIBE", lost)
			counts.send("DBSIZE")
			reads.send("GET", lost)
			if at.silent {
				servers[at.dead].Resume()
				counts.wantNext("3")
				reads.wantNext("v")
			} else {
				counts.wantNext("-CLUSTERDOWN no master serves " + dead.ID + "; retry later")
				reads.wantNext(down)
				if took := time.Since(begun); took < 5*time.Second {
					t.Errorf("they were refused after %v", took)
				}
				servers[at.dead].Restart()
			}
			// What could not be subscribed is, when it is back.
			waitFor(t, "the shard is back", func() bool { return p.dial().do("PUBLISH", lost, "m") == "2" })
			late.wantNext(message(lost, "m"))
			early.wantNext(message(lost, "m"))
			waitFor(t, "all answer", func() bool { return !strings.Contains(p.dial().do("INFO"), "shards_missing") })
		})
	}
}

package reactor_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

func has(t *testing.T, what, reply string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(reply, part) {
			t.Errorf("%s: %.600q lacks %q", what, reply, part)
		}
	}
}

func TestAdministrationOfAllShards(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 3)
	p := startProxy(t, reactor.Config{EnableDebug: true}, shards...)
	c := p.dial()
	for i, s := range servers {
		s.MustDo("CONFIG", "SET", "slowlog-log-slower-than", "120000", "latency-monitor-threshold", "120")
		s.MustDo("SLOWLOG", "RESET")
		if i > 0 {
			s.MustDo("DEBUG", "SLEEP", "0.15")
		}
	}
	c.want("2", "SLOWLOG", "LEN")
	has(t, "SLOWLOG GET", c.do("SLOWLOG", "GET"), "[DEBUG SLEEP 0.15]", shards[1].Nodes[0].ID, shards[2].Nodes[0].ID)
	if one := c.do("SLOWLOG", "GET", "1"); strings.Count(one, "SLEEP") != 1 {
		t.Errorf("SLOWLOG GET 1: %q", one)
	}
	c.want("OK", "SLOWLOG", "RESET")
	c.want("0", "SLOWLOG", "LEN")
	c.want("[]", "SLOWLOG", "GET", "-1")
	c.want("-ERR count should be greater than or equal to -1", "SLOWLOG", "GET", "-2")

	has(t, "LATENCY LATEST", c.do("LATENCY", "LATEST"), "[[command ")
	has(t, "LATENCY HISTORY", c.do("LATENCY", "HISTORY", "command"), "[[", "] [")
	has(t, "LATENCY GRAPH", c.do("LATENCY", "GRAPH", "command"), "# "+shards[1].Nodes[0].ID, "# "+shards[2].Nodes[0].ID)
	has(t, "LATENCY DOCTOR", c.do("LATENCY", "DOCTOR"), "# "+shards[0].Nodes[0].ID, "# "+shards[1].Nodes[0].ID)
	c.want("-ERR No samples available for event 'fork'", "LATENCY", "GRAPH", "fork")
	c.want("2", "LATENCY", "RESET")

	for i := range 30 {
		c.want("OK", "SET", fmt.Sprint("k", i), "v")
	}
	has(t, "LATENCY HISTOGRAM", c.do("LATENCY", "HISTOGRAM", "set"), "[set [calls 30 histogram_usec [")
	has(t, "MEMORY STATS", c.do("MEMORY", "STATS"), " keys.count 30 ")
	c.want("OK", "MEMORY", "PURGE")
	c.want("OK", "CONFIG", "RESETSTAT")
	c.want("[]", "LATENCY", "HISTOGRAM", "set")
	c.want("3", "DEL", "k0", "k1", "k2") // at several shards, each counts its part
	c.want("27", "DBSIZE")
	c.want("PONG", "PING")
	c.do("CLIENT", "ID")
	histogram := c.do("LATENCY", "HISTOGRAM", "dbsize", "client", "ping", "nosuch", "config|resetstat")
	has(t, "LATENCY HISTOGRAM of the proxy", histogram, "dbsize [calls 1 ", "client|id [calls 1 ", "ping [calls 1 ", "config|resetstat [calls 1 ")
	if all := c.do("LATENCY", "HISTOGRAM"); strings.Contains(all, "client|list") || strings.Contains(all, "info") || !strings.Contains(all, "del [calls ") {
		t.Errorf("LATENCY HISTOGRAM has what nobody called, or lacks what somebody did: %s", all)
	}
	for i := range 3 {
		c.want("OK", "SET", fmt.Sprint("k", i), "v")
	}
	for _, s := range servers {
		if s.Info("keyspace_hits") != "0" {
			t.Error("the statistics of a server were not reset")
		}
	}

	for i, s := range servers {
		has(t, "INFO of a shard", c.do("INFO", shards[i].ID, "server"), "run_id:"+s.Info("run_id"), "tcp_port:")
	}
	one := c.do("INFO", shards[1].ID, "keyspace")
	if strings.Contains(one, "# Server") || !strings.Contains(one, "db0:keys=") || strings.Contains(one, "keys=30") {
		t.Errorf("INFO shard keyspace: %q", one)
	}

	// DEBUG reaches the key, or everyone.
	has(t, "DEBUG OBJECT", c.do("DEBUG", "OBJECT", "k7"), "Value at:")
	c.want("OK", "DEBUG", "SLEEP", "0")
	c.want("OK", "DEBUG", "RELOAD")
	c.want("30", "DBSIZE")
	has(t, "DEBUG DIGEST-VALUE", c.do("DEBUG", "DIGEST-VALUE", "k1", "nosuch", "k3"), " 0000000000000000000000000000000000000000 ")
	has(t, "DEBUG LOADAOF", c.do("DEBUG", "LOADAOF"), "-ERR DEBUG loadaof is not supported")
	has(t, "DEBUG SEGFAULT", c.do("DEBUG", "SEGFAULT"), "-ERR DEBUG segfault is not supported behind the proxy: it ends a server")
	has(t, "DEBUG RELOAD NOSAVE", c.do("DEBUG", "RELOAD", "NOSAVE"), "-ERR DEBUG reload is not supported")
	c.want("-ERR unknown subcommand or wrong number of arguments for 'bogus'. Try DEBUG HELP.", "DEBUG", "bogus")
	for _, s := range servers {
		s.MustDo("CONFIG", "SET", "appendonly", "yes")
	}
	deadline := time.Now().Add(10 * time.Second)
	for c.do("DEBUG", "LOADAOF") != "OK" && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond) // the first file is being written
	}
	c.want("30", "DBSIZE")
}

func TestDebugIsOffByDefault(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 1)
	c := startProxy(t, reactor.Config{}, shards...).dial()
	const off = "-ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local connection, " +
		"otherwise you need to set this option in the configuration file, and then restart the server."
	c.want(off, "DEBUG", "SLEEP", "0")
	c.want("OK", "MULTI")
	c.want(off, "DEBUG", "SLEEP", "0")
	c.want("-EXECABORT Transaction discarded because of previous errors.", "EXEC")
}

// A shard that does not answer is left out, in time, or is an error that names it
// where something was to be changed: what it says afterwards is nobody's.
func TestAShardThatHangsIsLeftOutInTime(t *testing.T) {
	shards, servers := realShards(t, 3)
	p := startProxy(t, reactor.Config{HoldTimeout: 400 * time.Millisecond}, shards...)
	c := p.dial()
	c.want("OK", "SLOWLOG", "RESET")
	servers[1].Pause()
	begun := time.Now()
	c.send("SLOWLOG", "LEN")
	c.send("CONFIG", "RESETSTAT")
	c.send("PING")
	if n := c.read(); n != "0" && n != "1" { // the RESET itself may have been slow
		t.Errorf("SLOWLOG LEN: %s", n)
	}
	has(t, "CONFIG RESETSTAT", c.read(), "-ERR "+shards[1].Nodes[0].ID+" did not answer; it may or may not have been done there")
	c.wantNext("PONG")
	if took := time.Since(begun); took > 400*time.Millisecond+soon {
		t.Errorf("it took %v", took)
	}
	servers[1].Resume()
	c.want("OK", "SLOWLOG", "RESET")
	if strings.HasPrefix(c.do("INFO", "server"), "-") {
		t.Error("INFO fails after the shard is back")
	}
}

// A server that is slow is waited for where something is changed, for longer than
// where something is only read.
func TestAShardThatIsSlowIsWaitedForByChanges(t *testing.T) {
	t.Parallel()
	shards, servers := realShards(t, 2)
	c := startProxy(t, reactor.Config{}, shards...).dial()
	c.want("OK", "SLOWLOG", "RESET")
	servers[1].Pause()
	c.send("SLOWLOG", "RESET")
	c.silent(1500 * time.Millisecond)
	servers[1].Resume()
	c.wantNext("OK")
}

// A shard without a master delays nobody.
func TestAdministrationWhileAShardHasNoMaster(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	p := startProxy(t, reactor.Config{HoldTimeout: 300 * time.Millisecond, ConfigGet: func(dst []byte, _ [][]byte, _ int, server []string) []byte {
		return fmt.Appendf(dst, "+%d\r\n", len(server))
	}}, shards...)
	p.waitAck(1)
	p.commit(func(c *routing.Cluster) { c.Shards[0].Master = "" })
	c := p.dial()
	if n := c.do("SLOWLOG", "LEN"); strings.HasPrefix(n, "-") {
		t.Errorf("SLOWLOG LEN of the other one: %s", n)
	}
	c.want("2", "CONFIG", "GET", "maxmemory") // the other one tells
	p.commit(func(c *routing.Cluster) { c.Shards[1].Master = "" })
	has(t, "SLOWLOG LEN", c.do("SLOWLOG", "LEN"), "-CLUSTERDOWN no ")
	has(t, "CONFIG GET", c.do("CONFIG", "GET", "maxmemory"), "-CLUSTERDOWN no ")
}

func TestAnswersThatAreTooLong(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 3)
	c := startProxy(t, reactor.Config{GatherMaxBytes: 4000}, shards...).dial()
	for range 3 {
		has(t, "MEMORY MALLOC-STATS", c.do("MEMORY", "MALLOC-STATS"), "-ERR the answers of the shards are longer than 4000 bytes together")
		c.want("OK", "SLOWLOG", "RESET")
	}
}

// CONFIG SET waits for what the client sent before, what follows waits for it,
// and several of one transaction stay in order.
func TestConfigSetInOrder(t *testing.T) {
	t.Parallel()
	shards, _ := realShards(t, 2)
	var mu sync.Mutex
	var sets []string
	release := make(chan struct{}, 100)
	p := startProxy(t, reactor.Config{ConfigSet: func(dst []byte, args [][]byte) []byte {
		<-release
		mu.Lock()
		defer mu.Unlock()
		sets = append(sets, string(args[3]))
		return append(dst, "+OK\r\n"...)
	}}, shards...)
	c := p.dial()
	c.send("SET", "k", "before")
	c.send("CONFIG", "SET", "hz", "1")
	c.send("GET", "k")
	c.wantNext("OK")
	c.silent(50 * time.Millisecond)
	release <- struct{}{}
	c.wantNext("OK")
	c.wantNext("before")
	c.want("OK", "MULTI")
	for i := range 20 {
		c.want("QUEUED", "CONFIG", "SET", "hz", fmt.Sprint(10+i))
		release <- struct{}{}
	}
	c.want("["+strings.TrimSpace(strings.Repeat("OK ", 20))+"]", "EXEC")
	mu.Lock()
	defer mu.Unlock()
	if len(sets) != 21 || strings.Join(sets[1:4], " ") != "10 11 12" || sets[20] != "29" {
		t.Errorf("set in the order %v", sets)
	}
}

package failover

import (
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
)

// TestOlderReplicaIsNotPointedAtItsMaster: a node that restarted and could not load its
// master's data is not told to copy it, until it runs what can.
func TestOlderReplicaIsNotPointedAtItsMaster(t *testing.T) {
	w := newWorld(2)
	w.servers["n0"].software = redisadmin.Software{Version: "7.4.1"}
	w.kill("n1")
	w.restart("n1", 100)
	w.tick(step)
	admits := func() bool {
		for _, p := range Detect(&w.c, w.shard(), &w.o, w.now) {
			if p.Code == "ReplicaRestarted" {
				return p.Remedy == Admit
			}
		}
		t.Fatal("not found to have restarted")
		return false
	}
	if admits() {
		t.Error("Redis 7.0.15 is to copy from 7.4.1")
	}
	w.servers["n1"].software = redisadmin.Software{Version: "7.4.1"}
	w.tick(step)
	if !admits() {
		t.Error("Redis 7.4.1 is not to copy from 7.4.1")
	}
}

// TestElectionPrefersWhomOthersCanCopy: of equals the one that leaves no node behind is
// taken, and the report says why.
func TestElectionPrefersWhomOthersCanCopy(t *testing.T) {
	w := newWorld(4)
	for id, software := range map[string]redisadmin.Software{"n1": {Version: "7.4.1"}, "n2": {Version: "7.2.6"}, "n3": {Valkey: true, Version: "8.0.1"}} {
		w.servers[id].software = software
	}
	w.servers["n0"].software = redisadmin.Software{Version: "7.2.6"}
	w.tick(step)
	w.kill("n0")
	w.tick(time.Second)
	outcome := Elect(&w.c, w.shard(), Election{Old: "n0", Since: w.now, Begun: w.now, Offset: -1}, &w.o, w.now)
	if got := outcome.Chosen(); got != "n2" {
		t.Fatalf("%s is taken: %+v", got, outcome.Candidates)
	}
	for _, c := range outcome.Candidates {
		if c.Node == "n1" && !strings.Contains(c.Refused, "n0, n2, n3 could not load a full copy of it") {
			t.Errorf("n1: %q", c.Refused)
		}
	}
	// What was written goes before that.
	w.servers["n1"].offset += 10
	w.tick(step)
	outcome = Elect(&w.c, w.shard(), Election{Old: "n0", Since: w.now, Begun: w.now, Offset: -1}, &w.o, w.now)
	if got := outcome.Chosen(); got != "n1" {
		t.Errorf("%s is taken although n1 has more", got)
	}
}

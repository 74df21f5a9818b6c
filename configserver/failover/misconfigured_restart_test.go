package failover

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A member that is back with everything on its disk, and must not serve before its
// configuration is put right, is no reason to begin with an empty node.
func TestAMemberThatRestartedMisconfiguredIsWaitedFor(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(s *server)
	}{
		{"default user on", func(s *server) { s.defaultUser.On = true }},
		{"cluster mode", func(s *server) { s.mode = "cluster" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(2)
			w.write(500)
			w.tick(200 * step)
			w.kill("n0")
			w.kill("n1")
			w.tick(10 * step)
			w.restart("n0", 0)
			tc.make(w.restartWithJournal("n1"))
			w.tick(20 * time.Second)
			if !w.shard().Node("n1").InSync || w.c.Policy.Prefer != topology.PreferData {
				t.Fatalf("n1 was to be in sync: %+v", w.shard().Nodes)
			}
			if got := Elect(&w.c, w.shard(), Election{Old: "n0", Since: w.now.Add(-20 * time.Second), Begun: w.now, Offset: 1500}, &w.o, w.now); got.Chosen() == "n0" {
				t.Errorf("n0, which restarted empty, is promoted, and n1 answers, was in sync and has an append-only file: lost %q, %+v", got.Lost, got)
			}
		})
	}
}

package control

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// The only node of a shard restarts with its append-only file and does not say who it
// is. What the event tells to do helps, or is refused.
func TestRegisteringAMasterThatIsAStrangerHelpsOrIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	s := redistest.Start(t, redistest.Options{AdminPassword: adminPassword, Config: []string{"appendonly yes"}})
	r.servers["shard-0-0"] = s
	if err := r.addServer("shard-0", "shard-0-0", s, false); err != nil {
		t.Fatal(err)
	}
	r.eventually("serving", 10*time.Second, func() bool { return r.loop.Topology().Phase == topology.Serving })
	p := r.proxy("p1")
	p.fill("shard-0", 20)
	before := r.shard("shard-0").Nodes[0].Incarnation
	s.Restart()
	r.eventually("told", 10*time.Second, func() bool { return len(r.events("WrongServerAtAddress")) > 0 })
	if err := r.addServer("shard-0", "shard-0-0", s, true); err != nil {
		t.Log(err)
		return
	}
	r.eventually("admitted", 5*time.Second, func() bool { return r.shard("shard-0").Nodes[0].Incarnation != before })
}

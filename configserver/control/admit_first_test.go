package control

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// The owner dies between the commit that admits the first node of a shard and what it
// does to it, and the server restarts with the data that is to become the shard's.
func TestAFirstNodeThatRestartsHalfAdmittedBecomesMaster(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	s := redistest.Start(t, redistest.Options{AdminPassword: adminPassword, Persist: true})
	s.MustDo("SET", "k", "v")
	s.MustDo("SAVE")
	r.arm("admission/committed=error")
	if err := r.addServer("shard-0", "shard-0-0", s, false); err != nil {
		t.Fatal(err)
	}
	r.eventually("admitted by half", 5*time.Second, func() bool {
		c := r.loop.Topology()
		_, n := c.Node("shard-0-0")
		return n != nil && n.Incarnation != ""
	})
	r.stop()
	s.Restart()
	r.arm("")
	r.run()
	r.eventually("serving", 5*time.Second, func() bool { return r.loop.Topology().Phase == topology.Serving })
	if got := s.MustDo("GET", "k"); got != "v" {
		t.Errorf("k is %v", got)
	}
}

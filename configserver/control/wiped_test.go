package control

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// The replica that has everything may not be master by itself; the master restarts
// without its data.
func TestAReplicaOfPriorityZeroIsNotOverwrittenByAnEmptyMaster(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 2, nil)
	r.register("shard-0", 0)
	s := redistest.Start(t, redistest.Options{AdminPassword: adminPassword})
	r.servers["shard-0-1"] = s
	if _, err := r.loop.RegisterNode(t.Context(), "shard-0", topology.Node{ID: "shard-0-1", Address: s.Address, Readable: true}, false); err != nil {
		t.Fatal(err)
	}
	r.settled("shard-0")
	r.eventually("serving", 10*time.Second, func() bool { return r.loop.Topology().Phase == topology.Serving })
	p := r.proxy("p1")
	p.fill("shard-0", 20)
	keys := func() any { return r.servers["shard-0-1"].MustDo("DBSIZE") }
	r.eventually("everywhere", 3*time.Second, func() bool { return keys() == int64(20) })
	r.servers["shard-0-0"].RestartEmpty()
	for begun := time.Now(); time.Since(begun) < 5*time.Second; time.Sleep(20 * time.Millisecond) {
		if keys() != int64(20) {
			t.Fatalf("%v after the master restarted empty, %v of 20 keys are left at the replica", time.Since(begun), keys())
		}
	}
}

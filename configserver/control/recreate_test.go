package control

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A proxy that missed the deletion of a cluster, and a server that could not be
// fenced when it was deleted: in a new cluster of the same name, with the same
// secret, the proxy must not get in with the passwords it has.
func TestACreatedAgainClusterRefusesTheProxiesOfTheOldOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	r.form(1, 1)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "old")
	old := p.present("shard-0")
	r.servers["shard-0-0"].Pause()
	if err := r.loop.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.servers["shard-0-0"].Resume()
	now := time.Now().UTC()
	if err := r.store.Create(t.Context(), topology.Cluster{Name: "c", UID: "another", Epoch: 1, CommittedAt: now, CreatedAt: now, Reason: "created",
		Phase: topology.Forming, WantShards: 1, WantNodes: 1, Policy: policy()}); err != nil {
		t.Fatal(err)
	}
	r.run()
	if err := r.addServer("shard-0", "shard-0-0", r.servers["shard-0-0"], true); err != nil {
		t.Fatal(err)
	}
	r.eventually("serving", 10*time.Second, func() bool { return r.loop.Topology().Phase == topology.Serving })
	if g := r.shard("shard-0").Generation; g != 1 {
		t.Fatalf("the new cluster begins with generation %d", g)
	}
	if err := old.Set(t.Context(), "k", "late", 0).Err(); err == nil {
		t.Error("a proxy of the deleted cluster writes to the new one")
	}
}

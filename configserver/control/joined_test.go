package control

import (
	"fmt"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/failover"
)

// What an old master had written alone is found, also when it is well and is made a
// replica by the failover itself.
func TestAnOldMasterThatIsThereKeepsWhatItHadAlone(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	p := r.proxy("p1")
	old := r.servers["shard-0-0"]
	old.MustDo("ACL", "SETUSER", credentials.ReplicationUser, "off")
	old.MustDo("CLIENT", "KILL", "TYPE", "replica")
	r.eventually("out of sync", 3*time.Second, func() bool { return !r.shard("shard-0").Nodes[1].InSync })
	for i := range 100 {
		p.mustSet("shard-0", fmt.Sprint("alone", i), "v")
	}
	if _, err := r.loop.Failover(t.Context(), "shard-0", failover.Wish{Node: "shard-0-1", AcceptLoss: true}); err != nil {
		t.Fatal(err)
	}
	r.settled("shard-0")
	if s := r.shard("shard-0"); s.Master != "shard-0-1" {
		t.Fatalf("master %s", s.Master)
	}
	if n := r.shard("shard-0").Nodes[0]; n.Diverged == nil && len(r.events("DivergedData")) == 0 {
		t.Errorf("100 writes that only %s had were replaced, and nobody was told of diverged data", n.ID)
	}
}

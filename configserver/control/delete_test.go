package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A cluster is deleted while a failover is about to let proxies in at the node
// it promotes, and another node takes its time to be fenced: at the end no
// server lets proxies in.
func TestDeletingEndsWhatIsBeingDone(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 3, func(p *topology.Policy) { p.HungAfter = time.Minute })
	r.arm("failover/promoting-committed=pause:600ms")
	r.servers["shard-0-0"].Kill()
	r.eventually("promoting", 5*time.Second, func() bool {
		s := r.shard("shard-0")
		return s.Operation != nil && s.Operation.Candidate != ""
	})
	s := r.shard("shard-0")
	candidate := s.Operation.Candidate
	other := map[string]string{"shard-0-1": "shard-0-2", "shard-0-2": "shard-0-1"}[candidate]
	r.servers[other].Pause()
	if err := r.loop.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.servers[other].Resume()
	time.Sleep(200 * time.Millisecond)
	if users := fmt.Sprint(r.servers[candidate].MustDo("ACL", "USERS")); strings.Contains(users, "basalt-proxy-") {
		t.Errorf("%s lets proxies in after the cluster was deleted: %s", candidate, users)
	}
}

// While the master is silent, rotating must wait: proxies could not log in
// there with the new credentials, and those of before would stay in force.
func TestARotationWaitsForASilentMaster(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, func(p *topology.Policy) { p.HungAfter = time.Minute })
	p := r.proxy("p1")
	old := p.present("shard-0")
	r.arm("rotation/drained=pause:2500ms")
	answer := make(chan error, 1)
	go func() {
		_, err := r.loop.Rotate(t.Context())
		answer <- err
	}()
	r.eventually("finishing", 5*time.Second, func() bool {
		s := r.shard("shard-0")
		return s.Operation != nil && s.Operation.Phase == "finishing"
	})
	r.servers["shard-0-0"].Pause()
	select {
	case err := <-answer:
		t.Errorf("the rotation ended while the master was silent: %v", err)
	case <-time.After(3500 * time.Millisecond):
	}
	r.servers["shard-0-0"].Resume()
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if err := old.Ping(t.Context()).Err(); err == nil {
		t.Error("the old credentials still work when the rotation has ended")
	}
}

package control

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A process that was stopped and goes on may find the answer of a replica
// before its own clock ticks. The time it did not run must be known before
// anything is decided on that answer, or every master looks hung.
func TestAnAnswerAfterAPauseAccusesNobody(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, func(p *topology.Policy) { p.HungAfter = 500 * time.Millisecond })
	err := r.loop.do(t.Context(), func() {
		// As if this process had not run for a minute: nothing was heard, and the
		// clock has not ticked since.
		const pause = time.Minute
		r.loop.lastTick = time.Now().Add(-pause)
		for id, n := range r.loop.obs.Nodes {
			n.Heard, n.InfoAt = time.Now().Add(-pause), time.Now().Add(-pause)
			r.loop.obs.Nodes[id] = n
		}
		r.loop.obs.Started = time.Now().Add(-2 * pause)
		r.loop.inbox.mu.Lock()
		r.loop.inbox.probes = map[string]arrival{}
		r.loop.inbox.mu.Unlock()
		r.loop.decide(map[string]bool{"shard-0": true})
		if r.loop.activities["shard-0"] != nil {
			t.Errorf("begins a %s", r.loop.activities["shard-0"].name)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if found := r.events("FailoverBegan"); len(found) != 0 {
		t.Errorf("a failover of a healthy master: %s", found[0].Message)
	}
}

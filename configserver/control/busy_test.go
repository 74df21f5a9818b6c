package control

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A master that is stopped behind a command of which a proxy told is not replaced
// before max_busy, also when the proxy is gone meanwhile; and then it is.
func TestASilentMasterIsBusyAsLongAsItMayBe(t *testing.T) {
	t.Parallel()
	const hung, busy = 1500 * time.Millisecond, 4 * time.Second
	r := settledRig(t, 1, 2, func(p *topology.Policy) { p.HungAfter, p.MaxBusy = hung, busy })
	s := r.hello("p", 0)
	master := r.shard("shard-0").Master
	r.servers[master].Pause()
	stopped := time.Now()
	time.Sleep(500 * time.Millisecond)
	s.Report([]NodeSight{{Node: master, Sight: topology.SightTimeout, SinceReply: time.Second, Behind: "sort", SinceBehind: time.Since(stopped)}})
	time.Sleep(200 * time.Millisecond)
	s.Close()
	r.eventually("replaced", 15*time.Second, func() bool { m := r.shard("shard-0").Master; return m != "" && m != master })
	if took := time.Since(stopped); took < busy-200*time.Millisecond {
		t.Errorf("replaced after %v, max_busy is %v", took, busy)
	}
}

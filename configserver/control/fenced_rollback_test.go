package control

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// An owner dies in a switchover when it has committed the next generation and no node
// lets its proxies in yet (fenceShard). The next owner finds that the candidate is
// gone: the way back is a way back, and no record that is older than its servers.
func TestAWayBackAfterAFenceThatWasNotGranted(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, func(p *topology.Policy) { p.AckTimeout = 300 * time.Millisecond })
	r.setUser("app", "on", "nopass", "~app:*", "+@all") // so that it takes a new generation
	p, mute := r.proxy("p1"), r.proxy("mute")
	p.mustSet("shard-0", "k", "v")
	mute.setMute(true)
	mute.stream.Close()
	r.arm("switchover/generation-committed=error")
	owner, answer := r.loop, make(chan error, 1)
	go func() {
		_, err := owner.Switchover(t.Context(), "shard-0", "shard-0-1")
		answer <- err
	}()
	r.eventually("committed", 10*time.Second, func() bool { return r.shard("shard-0").Generation == 2 })
	r.stop()
	<-answer
	r.servers["shard-0-1"].Kill()
	r.arm("")
	r.run()
	p.connect()
	var last error
	for begun := time.Now(); time.Since(begun) < 8*time.Second; time.Sleep(50 * time.Millisecond) {
		if last = p.set("shard-0", "k", "w"); last == nil {
			return
		}
	}
	t.Errorf("8 s later nobody can write: %v; generation %d, operation %v, record is older: %t", last, r.shard("shard-0").Generation,
		r.shard("shard-0").Operation, r.hasProblem("RecordIsOlder"))
}

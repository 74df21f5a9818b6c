package failover

import (
	"testing"
	"time"
)

// A replica that is always a little behind a busy master enters, however long it may
// be away before it leaves.
func TestAReplicaEntersWhileItsMasterIsBusy(t *testing.T) {
	for _, age := range []time.Duration{10 * time.Second, time.Hour} {
		w := newWorld(2)
		w.c.Policy.MaxReplicaAge = age
		n := w.shard().Node("n1")
		n.InSync = false
		const rate, lag = 10 << 10, 200 * time.Millisecond // bytes per millisecond
		entered := false
		for i := range 600 {
			w.now = w.now.Add(50 * time.Millisecond)
			at := int64(i) * 50
			seen := func(id string, offset int64) {
				p := w.o.Nodes[id].Probe
				p.Info = w.servers[id].info(w)
				p.Info.Offset = offset
				p.Info.Online = []string{w.address("n1")}
				p.InfoAt, p.Heard = w.now, w.now
				w.o.Take(&w.c, w.shard(), w.shard().Node(id), p)
			}
			if i%2 == 0 {
				seen("n0", 1000+at*rate)
			} else {
				seen("n1", 1000+max(0, at-lag.Milliseconds())*rate)
			}
			next, _ := Tend(&w.c, w.shard(), &w.o, w.now)
			entered = entered || i > 40 && next.Node("n1").InSync
		}
		if !entered {
			t.Errorf("max_replica_age %v: a replica that is %v and %d bytes behind never entered in 30 s", age, lag, lag.Milliseconds()*rate)
		}
	}
}

package failover

import (
	"slices"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A shard in trouble commits again and again. What is asked of the nodes of another
// one in between is fresh all the same.
func TestCommitsOfOneShardDoNotHideAnother(t *testing.T) {
	w := newWorld(2)
	w.c.Shards = append(w.c.Shards, topology.Shard{ID: "t", Generation: 1})
	w.o.Recorded(&w.c, &w.c, w.now)
	// commits makes as many commits as fit between two probes, and tells how often
	// the stale master was found.
	commits := func(shard string) (found int) {
		for range 50 {
			w.tick(2 * step)
			next := w.c.Clone()
			next.Epoch++
			next.CommittedAt = w.now
			s := next.Shard(shard)
			s.Failovers = append(s.Failovers, w.now)
			w.o.Recorded(&w.c, &next, w.now)
			w.c = next
			if slices.Contains(w.codes(), "TwoWritableMasters") {
				found++
			}
		}
		return found
	}
	n1 := w.servers["n1"]
	n1.master, n1.linkUp = true, false
	if found := commits("t"); found != 50 {
		t.Errorf("commits about another shard hid a stale master: it was found %d times of 50", found)
	}
	if found := commits("s"); found != 0 {
		t.Errorf("%d times of 50 something was made of what a node said before the newest record of its shard", found)
	}
}

func TestRecordedTouchesWhatChanged(t *testing.T) {
	w := newWorld(2)
	w.c.Shards = append(w.c.Shards, topology.Shard{ID: "t", Generation: 1})
	w.o.Recorded(&w.c, &w.c, w.now)
	for _, tc := range []struct {
		name   string
		change func(c *topology.Cluster)
		fresh  map[string]bool // what was asked before the change
	}{
		{"nothing", func(*topology.Cluster) {}, map[string]bool{"s": true, "t": true}},
		{"one shard", func(c *topology.Cluster) { c.Shards[0].Generation++ }, map[string]bool{"s": false, "t": true}},
		{"a new shard", func(c *topology.Cluster) { c.Shards = append(c.Shards, topology.Shard{ID: "u"}) },
			map[string]bool{"s": true, "t": true, "u": false}},
		{"the phase", func(c *topology.Cluster) { c.Phase = topology.Forming }, map[string]bool{"s": false, "t": false}},
		{"the policy", func(c *topology.Cluster) { c.Policy.HungAfter++ }, map[string]bool{"s": false, "t": false}},
		{"a shard is gone", func(c *topology.Cluster) { c.Shards = c.Shards[:1] }, map[string]bool{"s": true, "t": true}},
	} {
		asked := w.now.Add(time.Millisecond)
		w.now = asked.Add(time.Millisecond)
		next := w.c.Clone()
		tc.change(&next)
		w.o.Recorded(&w.c, &next, w.now)
		for shard, want := range tc.fresh {
			if got := w.o.Fresh(shard, asked); got != want {
				t.Errorf("%s: what was asked of %s before counts: %t, want %t", tc.name, shard, got, want)
			}
		}
		w.c = next
	}
}

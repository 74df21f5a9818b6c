package control

import (
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A shard in which nothing happens is looked at about once a second, not at every probe
// and tick, and again at every one when something is wrong.
func TestCalmShardsAreLeftAlone(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 2, 2, nil)
	looked := func(shard string) (at time.Time, every time.Duration) {
		if err := r.loop.do(t.Context(), func() { at, every = r.loop.looks[shard].at, r.loop.every }); err != nil {
			t.Fatal(err)
		}
		return at, every
	}
	count := func(shard string) (looks int) {
		last, _ := looked(shard)
		for begun := time.Now(); time.Since(begun) < time.Second; time.Sleep(5 * time.Millisecond) {
			if at, _ := looked(shard); !at.Equal(last) {
				last = at
				looks++
			}
		}
		return looks
	}
	r.eventually("all is calm", 10*time.Second, func() bool { _, every := looked("shard-0"); return every == calmTick })
	if n := count("shard-0"); n > 10 {
		t.Errorf("a calm shard was looked at %d times in a second", n)
	}
	r.servers["shard-0-1"].Kill()
	r.eventually("it is not calm any more", 5*time.Second, func() bool { _, every := looked("shard-0"); return every == tick })
	if n := count("shard-0"); n < 10 {
		t.Errorf("a shard with a dead replica was looked at %d times in a second", n)
	}
	if n := count("shard-1"); n > 10 {
		t.Errorf("the other shard was looked at %d times in a second", n)
	}
}

// Changes that share an epoch are checked together; one that is not valid is refused
// and takes no other with it.
func TestAChangeThatIsNotValidSpoilsNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	change := func(f func(c *topology.Cluster)) *commitRequest {
		return &commitRequest{reason: "a test", result: make(chan commitResult, 1), change: func(c *topology.Cluster) ([]topology.Event, error) {
			f(c)
			return nil, nil
		}}
	}
	requests := []*commitRequest{
		change(func(c *topology.Cluster) { c.Policy.MaxFailovers = 7 }),
		change(func(c *topology.Cluster) { c.WantShards = -1 }),
		change(func(c *topology.Cluster) { c.WantNodes = 2 }),
	}
	r.eventually("listened", 5*time.Second, func() (heard bool) {
		_ = r.loop.do(t.Context(), func() { heard = r.loop.heard && !r.loop.committing })
		return heard
	})
	if err := r.loop.do(t.Context(), func() {
		r.loop.pending = append(r.loop.pending, requests...)
		r.loop.startCommit()
	}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "shards", ""} {
		if got := (<-requests[i].result).err; (got == nil) != (want == "") || got != nil && !strings.Contains(got.Error(), want) {
			t.Errorf("change %d: %v", i, got)
		}
	}
	if c := r.loop.Topology(); c.Policy.MaxFailovers != 7 || c.WantNodes != 2 || c.WantShards != 1 {
		t.Errorf("committed is %+v with %d shards of %d nodes", c.Policy, c.WantShards, c.WantNodes)
	}
}

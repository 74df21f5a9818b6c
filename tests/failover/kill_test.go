package failover

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// What a kill may cost. The unnoticed ones are bounds for requests of other
// shards while one has no master, the longest and the 99th percentile, without
// the noise of the machine. On an idle machine the longest takes some 10 ms; the
// bound leaves room for a proxy that has to share two cores with six servers,
// etcd and the load itself.
const (
	kills            = 10
	medianResume     = 1500 * time.Millisecond
	worstResume      = 3 * time.Second
	unnoticedLongest = 300 * time.Millisecond
	unnoticedP99     = 50 * time.Millisecond
	inFlightSlack    = 250 * time.Millisecond
	betweenIncidents = 300 * time.Millisecond
)

// TestKillMasterUnderLoad kills masters with -9, ten times in turn over the
// shards, under a load of 100 connections that verifies every value.
func TestKillMasterUnderLoad(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	l := c.StartLoad(t, consistency.Config{})
	var outages []outage
	for i := range kills {
		time.Sleep(betweenIncidents)
		outages = append(outages, killMaster(t, c, l, i%3))
	}
	final := l.Judge(t)
	line := l.Timeline()
	var resumed []time.Duration
	lost := 0
	for _, o := range outages {
		resumed = append(resumed, o.resumed(t, line))
		o.requireOnlyInFlight(t, line, inFlightSlack)
		o.requireUnnoticed(t, l)
		inFlight := line.Shard(o.shard).Touching(o.at, o.until).Errors()
		others := line.OtherShards(o.shard).Touching(o.at, o.until)
		lost += len(inFlight)
		t.Logf("%s: writes resumed %s after the kill, %d commands in flight were lost; other shards: %s",
			shardName(o.shard), resumed[len(resumed)-1].Round(time.Millisecond), len(inFlight), others.Summary())
	}
	if all := line.Errors(); len(all) != lost {
		t.Errorf("%d errors outside of the outages: %s", len(all)-lost, all.ErrorTexts())
	}
	slices.Sort(resumed)
	median, worst := (resumed[kills/2-1]+resumed[kills/2])/2, resumed[kills-1]
	t.Logf("%d kills: writes resumed after %s (median), %s (worst); %d of %d keys ended behind an acknowledged write that no replica had",
		kills, median.Round(time.Millisecond), worst.Round(time.Millisecond), final.Behind, final.Keys)
	if median >= medianResume || worst >= worstResume {
		t.Errorf("writes resumed after %s (median), %s (worst); want less than %s and %s", median, worst, medianResume, worstResume)
	}
}

// TestKillReplicaUnderLoad: clients see nothing at all of a replica that dies
// and comes back empty.
func TestKillReplicaUnderLoad(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	l := c.StartLoad(t, consistency.Config{})
	before := c.Topology(t)
	for _, sh := range before.GetShards() {
		for _, n := range sh.GetNodes() {
			if n.GetId() == sh.GetMaster() {
				continue
			}
			harness.Signal(t, c.Process(t, n.GetId()), syscall.SIGKILL)
			time.Sleep(500 * time.Millisecond)
			c.StartProcess(t, n.GetId())
			c.WaitHealthy(t, 20*time.Second)
		}
	}
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	requireNoErrors(t, l.Timeline())
	for i, sh := range c.Topology(t).GetShards() {
		if sh.GetMaster() != before.GetShards()[i].GetMaster() {
			t.Errorf("%s: master went from %s to %s", sh.GetId(), before.GetShards()[i].GetMaster(), sh.GetMaster())
		}
	}
}

// TestFailoversStopAtTheLimit kills the masters of one shard as fast as they
// are replaced: after the allowed number it stops, says so in an event, and
// takes the master that returns.
func TestFailoversStopAtTheLimit(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 1})
	first := c.LastEvent(t)
	allowed := int(c.Status(t).GetCluster().GetPolicy().GetMaxFailovers())
	for range allowed {
		old := c.Master(t, 0).GetId()
		harness.Signal(t, c.Process(t, old), syscall.SIGKILL)
		waitNewMaster(t, c, 0, old, 10*time.Second)
		c.StartProcess(t, old)
		c.WaitHealthy(t, 20*time.Second)
	}
	last := c.Master(t, 0).GetId()
	harness.Signal(t, c.Process(t, last), syscall.SIGKILL)
	harness.Eventually(t, 10*time.Second, "an event says that it stopped", func() error {
		for _, e := range c.EventsAfter(t, first) {
			if e.GetKind() == "FailoversExhausted" {
				t.Log(e.GetMessage())
				return nil
			}
		}
		return errNoEvent
	})
	time.Sleep(2 * time.Second)
	if m := c.Master(t, 0); m != nil && m.GetId() != last {
		t.Errorf("%s became master although the limit of %d failovers was reached", m.GetId(), allowed)
	}
	c.RequireInvariants(t)
}

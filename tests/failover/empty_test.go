package failover

import (
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestMasterRestartedEmpty kills masters and starts them again at once with
// nothing in them, before or after anybody could notice: the shard's data is
// still there, because an empty server is admitted only as a replica.
func TestMasterRestartedEmpty(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	c.SetPolicy(t, unlimited)
	l := c.StartLoad(t, consistency.Config{})
	var outages []outage
	for i, delay := range []time.Duration{0, 30, 60, 100, 150, 200, 300} {
		delay *= time.Millisecond
		time.Sleep(betweenIncidents)
		shard := i % 3
		old := c.Master(t, shard)
		process := c.Process(t, old.GetId())
		events := c.LastEvent(t)
		l.LossBegins(shard)
		o := outage{at: l.Now(), shard: shard}
		if delay == 0 {
			// The runner does both in one step, within a millisecond.
			c.CLI(t, "local", "restart", old.GetId(), "--kill", "--empty")
		} else {
			harness.Signal(t, process, syscall.SIGKILL)
			time.Sleep(delay)
			c.CLI(t, "local", "start", old.GetId(), "--empty")
		}
		back := l.Now() - o.at
		waitNewMaster(t, c, shard, old.GetId(), 10*time.Second)
		l.LossEnds(shard)
		time.Sleep(200 * time.Millisecond)
		o.until = l.Now()
		healthy := c.WaitHealthy(t, 20*time.Second)
		outages = append(outages, o)
		t.Logf("%s was back empty after %s at most; all in sync %s later", old.GetId(), back.Round(time.Millisecond), healthy.Round(time.Millisecond))
		for _, r := range c.Reports(t, events) {
			t.Log(harness.ReportLine(r))
		}
	}
	final := l.Judge(t)
	line := l.Timeline()
	for _, o := range outages {
		if resumed := o.resumed(t, line); resumed >= worstResume {
			t.Errorf("writes resumed after %s, want less than %s", resumed, worstResume)
		} else {
			t.Logf("%s: writes resumed after %s", shardName(o.shard), resumed.Round(time.Millisecond))
		}
		o.requireOnlyInFlight(t, line, inFlightSlack)
		o.requireUnnoticed(t, l)
	}
	t.Logf("%d of %d keys ended behind an acknowledged write that no replica had", final.Behind, final.Keys)
}

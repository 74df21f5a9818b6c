package failover

import (
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestControlPlaneOutage kills all Configservers and etcd under load. The
// proxies serve on by the last epoch; a master that is killed meanwhile stays
// away, alone; when the control plane is started again it is replaced.
func TestControlPlaneOutage(t *testing.T) {
	c := harness.Start(t, harness.Options{Configservers: 2})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	l := c.StartLoad(t, consistency.Config{})
	time.Sleep(betweenIncidents)
	victim := c.Master(t, 1)
	process := c.Process(t, victim.GetId())
	epoch := c.Topology(t).GetEpoch()
	dead := append(c.Processes(t, "configserver"), c.Processes(t, "etcd")...)
	if len(dead) != 3 {
		t.Fatalf("the control plane has %d processes, want 2 configservers and etcd", len(dead))
	}
	down := l.Now()
	for _, p := range dead {
		harness.Signal(t, p, syscall.SIGKILL)
	}
	time.Sleep(6 * time.Second)
	o := outage{at: l.Now(), shard: 1}
	l.LossBegins(1)
	harness.Signal(t, process, syscall.SIGKILL)
	time.Sleep(2 * time.Second)
	up := l.Now()
	for _, name := range []string{"etcd", "configserver-0", "configserver-1"} {
		c.StartProcess(t, name)
	}
	answers := harness.Eventually(t, 20*time.Second, "the control plane answers", func() error {
		_, err := c.TryCLI("cluster", "status", c.Name)
		return err
	})
	took := waitNewMaster(t, c, 1, victim.GetId(), 20*time.Second)
	l.LossEnds(1)
	time.Sleep(500 * time.Millisecond)
	o.until = l.Now()
	c.StartProcess(t, victim.GetId())
	healthy := c.WaitHealthy(t, 20*time.Second)
	l.Judge(t)
	line := l.Timeline()
	quiet := line.Touching(down, o.at-time.Millisecond)
	t.Logf("%s without a control plane: %s", (o.at - down).Round(time.Millisecond), quiet.Summary())
	requireNoErrors(t, quiet.Where(func(r consistency.Record) bool { return r.End() < o.at }))
	requireNoErrors(t, line.OtherShards(1))
	o.requireOnlyInFlight(t, line, inFlightSlack)
	t.Logf("started again: answers after %s, the dead master is replaced %s later, all in sync %s after its restart; writes resumed %s after the start; epoch %d -> %d",
		answers.Round(time.Millisecond), took.Round(time.Millisecond), healthy.Round(time.Millisecond),
		(o.at + o.resumed(t, line) - up).Round(time.Millisecond), epoch, c.Topology(t).GetEpoch())
	if o.at-down < 5*time.Second {
		t.Errorf("the quiet time was only %s", o.at-down)
	}
}

// TestStoppedConfigserverAccusesNobody: a Configserver that was stopped for
// longer than any threshold does not take its own sleep for the masters' death
// when it goes on.
func TestStoppedConfigserverAccusesNobody(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	l := c.StartLoad(t, consistency.Config{})
	before := c.Topology(t)
	p := c.Process(t, "configserver-0")
	harness.Signal(t, p, syscall.SIGSTOP)
	time.Sleep(7 * time.Second)
	harness.Signal(t, p, syscall.SIGCONT)
	time.Sleep(2 * time.Second)
	c.WaitHealthy(t, 20*time.Second)
	for i, sh := range c.Topology(t).GetShards() {
		if sh.GetMaster() != before.GetShards()[i].GetMaster() {
			t.Errorf("%s went from %s to %s", sh.GetId(), before.GetShards()[i].GetMaster(), sh.GetMaster())
		}
	}
	requireNoMasterlessEpoch(t, c, before.GetEpoch())
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	requireNoErrors(t, l.Timeline())
}

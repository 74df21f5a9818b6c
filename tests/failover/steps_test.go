package failover

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// operationPoints are the fault points that a failover and a switchover pass, in
// this order; rotationPoints those of a rotation of credentials.
var (
	operationPoints = []string{"began", "fenced", "elected", "promoting-committed", "promoted", "repointed", "finished"}
	rotationPoints  = []string{"began", "granted", "published", "drained", "finished"}
)

// twoOwners is a cluster whose Configservers take over from each other quickly.
// What happens meanwhile is the same as with a longer lease, only sooner.
func twoOwners(t *testing.T) *harness.Cluster {
	t.Helper()
	return harness.Start(t, harness.Options{Shards: 2, Configservers: 2, Flags: []string{"--configserver-flag", "--lease-ttl=2s"}})
}

// TestOwnerKilledAtEachStepOfFailover kills a master, and then the Configserver
// that replaces it at each step of doing so. The other one finishes it.
func TestOwnerKilledAtEachStepOfFailover(t *testing.T) {
	t.Parallel()
	c := twoOwners(t)
	c.SetPolicy(t, harness.UnlimitedFailovers)
	l := c.StartLoad(t, consistency.Config{Connections: 20})
	for _, point := range operationPoints {
		armed := c.ArmOwner(t, "failover/"+point+"=kill")
		old := c.Master(t, 0)
		process := c.Process(t, old.GetId())
		events := c.LastEvent(t)
		l.LossBegins(0)
		at := l.Now()
		harness.Signal(t, process, syscall.SIGKILL)
		waitDead(t, c, armed, 10*time.Second)
		died := l.Now() - at
		waitNewMaster(t, c, 0, old.GetId(), 20*time.Second)
		l.LossEnds(0)
		replaced := l.Now() - at
		c.StartProcess(t, old.GetId())
		c.StartProcess(t, armed)
		c.WaitHealthy(t, 20*time.Second)
		t.Logf("failover/%s: %s died there %s after the master, which was replaced after %s", point, armed, died.Round(time.Millisecond), replaced.Round(time.Millisecond))
		for _, r := range c.Reports(t, events) {
			t.Log(harness.ReportLine(r))
		}
	}
	l.Judge(t)
	requireNoErrors(t, l.Timeline().OtherShards(0))
	for _, r := range l.Timeline().Errors() {
		if r.Class != consistency.InFlight {
			t.Errorf("at %s: [%s] %s", r.End(), r.Class, r.Text)
		}
	}
}

// TestOwnerKilledAtEachStepOfSwitchover kills the Configserver at each step of
// a switchover. The other one finishes it or rolls it back; clients wait and
// see no error either way, and nothing is lost.
func TestOwnerKilledAtEachStepOfSwitchover(t *testing.T) {
	t.Parallel()
	c := twoOwners(t)
	l := c.StartLoad(t, consistency.Config{Connections: 20})
	for _, point := range operationPoints {
		armed := c.ArmOwner(t, "switchover/"+point+"=kill")
		old := c.Master(t, 0)
		events := c.LastEvent(t)
		at := l.Now()
		told := make(chan error, 1)
		go func() {
			_, err := c.Switchover(t.Context(), shardName(0))
			told <- err
		}()
		waitDead(t, c, armed, 10*time.Second)
		err := <-told
		c.StartProcess(t, armed)
		c.WaitHealthy(t, 20*time.Second)
		ended := "finished"
		if c.Master(t, 0).GetId() == old.GetId() {
			ended = "rolled back"
		}
		t.Logf("switchover/%s: %s died there, the switchover was %s within %s; its caller was told: %v", point, armed, ended, (l.Now() - at).Round(time.Millisecond), err)
		for _, r := range c.Reports(t, events) {
			t.Log(harness.ReportLine(r))
		}
	}
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	requireNoErrors(t, l.Timeline())
}

// TestOwnerKilledAtEachStepOfRotation: the same while credentials are replaced.
func TestOwnerKilledAtEachStepOfRotation(t *testing.T) {
	t.Parallel()
	c := twoOwners(t)
	l := c.StartLoad(t, consistency.Config{Connections: 20})
	for i, point := range rotationPoints {
		armed := c.ArmOwner(t, "rotation/"+point+"=kill")
		before := c.Topology(t)
		newSecret(t, c, "cluster-secret", fmt.Sprintf("rotated-%d-0123456789abcdef", i))
		told := make(chan error, 1)
		go func() {
			_, err := c.TryCLI("credentials", "rotate", c.Name, "--timeout", "8s")
			told <- err
		}()
		waitDead(t, c, armed, 10*time.Second)
		err := <-told
		c.StartProcess(t, armed)
		// Whoever asked has to ask again for shards whose turn had not come, and
		// again when the cluster just moves to another Configserver.
		harness.Eventually(t, 20*time.Second, "the rotation is finished", func() error {
			_, err := c.TryCLI("credentials", "rotate", c.Name)
			return err
		})
		c.WaitHealthy(t, 20*time.Second)
		for i, sh := range c.Topology(t).GetShards() {
			if sh.GetGeneration() <= before.GetShards()[i].GetGeneration() {
				t.Errorf("rotation/%s: %s still has generation %d", point, sh.GetId(), sh.GetGeneration())
			}
		}
		t.Logf("rotation/%s: %s died there; its caller was told: %v", point, armed, err)
	}
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	requireNoErrors(t, l.Timeline())
}

// waitDead waits until a process is gone.
func waitDead(t *testing.T, c *harness.Cluster, name string, limit time.Duration) {
	t.Helper()
	harness.Eventually(t, limit, name+" dies at its fault point", func() error {
		if p := c.Process(t, name); p.PID != 0 {
			return errors.New("it runs")
		}
		return nil
	})
}

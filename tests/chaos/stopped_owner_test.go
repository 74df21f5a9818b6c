package chaos

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestOwnerStoppedDuringAFailover stops the Configserver that replaces a master
// at each step of it. Another one finishes that, and replaces the next master
// too. When the first one goes on, what it had in mind is of the past: roles,
// epochs and data stay what they are.
func TestOwnerStoppedDuringAFailover(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Shards: 1, Replicas: 2, Configservers: 2, Flags: []string{"--configserver-flag", "--lease-ttl=2s"}})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	l := c.StartLoad(t, consistency.Config{Connections: 20})
	for _, point := range []string{"fenced", "elected", "promoting-committed", "promoted", "repointed"} {
		owner := c.ArmOwner(t, "failover/"+point+"=pause:700ms")
		l.LossBegins(0)
		first := c.Master(t, 0).GetId()
		events := c.LastEvent(t)
		kill(t, c, first)
		harness.Eventually(t, 5*time.Second, "the failover begins", func() error {
			for _, e := range c.EventsAfter(t, events) {
				if e.GetKind() == "FailoverBegan" {
					return nil
				}
			}
			return errors.New("not yet")
		})
		time.Sleep(100 * time.Millisecond)
		stopped := c.Process(t, owner)
		harness.Signal(t, stopped, syscall.SIGSTOP)
		second := newMaster(t, c, first)
		c.StartProcess(t, first)
		harness.Eventually(t, 20*time.Second, "the first victim is a replica", func() error { return follows(c, first) })
		kill(t, c, second)
		third := newMaster(t, c, second)
		c.StartProcess(t, second)
		harness.Eventually(t, 20*time.Second, "the second victim is a replica", func() error { return follows(c, second) })
		l.LossEnds(0)
		epoch := c.Topology(t).GetEpoch()
		harness.Signal(t, stopped, syscall.SIGCONT)
		time.Sleep(2 * time.Second)
		c.WaitHealthy(t, 20*time.Second)
		now := c.Topology(t)
		if m := now.GetShards()[0].GetMaster(); m != third {
			t.Errorf("%s: the master went from %s to %s when the stopped configserver went on", point, third, m)
		}
		if err := oneMaster(t, c); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		t.Logf("%s: %s, then %s, then %s; epoch %d, %d when all was over", point, first, second, third, epoch, now.GetEpoch())
	}
	l.Judge(t)
}

func kill(t *testing.T, c *harness.Cluster, name string) {
	t.Helper()
	harness.Signal(t, c.Process(t, name), syscall.SIGKILL)
}

func newMaster(t *testing.T, c *harness.Cluster, old string) (id string) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, "another master than "+old, func() error {
		m := c.Master(t, 0)
		if m == nil || m.GetId() == old {
			return fmt.Errorf("it is %q", m.GetId())
		}
		id = m.GetId()
		return nil
	})
	return id
}

// follows tells if a node is a live replica in sync.
func follows(c *harness.Cluster, id string) error {
	st, err := c.StatusNow(time.Second)
	if err != nil {
		return err
	}
	sh := st.GetTopology().GetShards()[0]
	if sh.GetMaster() == "" || sh.GetMaster() == id || !holdsData(st, sh, id) {
		return errors.New("not yet")
	}
	return nil
}

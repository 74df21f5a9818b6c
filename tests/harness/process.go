package harness

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// Process returns a process of the cluster by name, "shard-0-1", "proxy-0",
// "configserver-0", "etcd".
func (c *Cluster) Process(t testing.TB, name string) LocalProcess {
	t.Helper()
	for _, p := range c.LocalStatus(t).Processes {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no process %s", name)
	return LocalProcess{}
}

// Processes returns the processes of one kind.
func (c *Cluster) Processes(t testing.TB, kind string) []LocalProcess {
	t.Helper()
	var some []LocalProcess
	for _, p := range c.LocalStatus(t).Processes {
		if p.Kind == kind {
			some = append(some, p)
		}
	}
	return some
}

// Signal sends a signal to a process that Process returned, at once and not by
// way of the runner, so that the test knows when it happened.
func Signal(t testing.TB, p LocalProcess, sig syscall.Signal) {
	t.Helper()
	if p.PID <= 1 {
		t.Fatalf("%s does not run", p.Name)
	}
	if err := syscall.Kill(p.PID, sig); err != nil {
		t.Fatalf("signal %s (pid %d): %v", p.Name, p.PID, err)
	}
}

// StartProcess starts a process that was killed, with more environment.
func (c *Cluster) StartProcess(t testing.TB, name string, env ...string) {
	t.Helper()
	args := []string{"local", "start", name}
	for _, kv := range env {
		args = append(args, "--env", kv)
	}
	if _, err := c.run(args...); err != nil {
		t.Fatal(fmt.Errorf("start %s: %w", name, err))
	}
}

// Kill ends a process with SIGKILL and returns when it is gone.
func (c *Cluster) Kill(t testing.TB, name string) {
	t.Helper()
	c.CLI(t, "local", "kill", name)
}

// EndRunner sends a signal to `basaltctl local up` and returns its exit code,
// -1 when the signal ended it.
func (c *Cluster) EndRunner(t testing.TB, sig syscall.Signal, limit time.Duration) int {
	t.Helper()
	if err := c.runner.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-time.After(limit):
		t.Fatalf("basaltctl local up did not end within %s of %s", limit, sig)
	}
	return c.runner.ProcessState.ExitCode()
}

// ArmOwner makes one of two Configservers the owner of the cluster, armed with a
// fault point ("failover/elected=kill"), and the other one stand by without. It
// returns the owner's name.
func (c *Cluster) ArmOwner(t testing.TB, point string) string {
	t.Helper()
	armed := c.Status(t).GetCluster().GetOwner()
	other := map[string]string{"configserver-0": "configserver-1", "configserver-1": "configserver-0"}[armed]
	c.Kill(t, armed)
	c.Kill(t, other)
	c.StartProcess(t, armed, "BASALT_FAULTPOINT="+point)
	Eventually(t, 15*time.Second, armed+" owns the cluster", func() error {
		st, err := c.TryStatus()
		if err == nil && st.GetCluster().GetOwner() != armed {
			err = fmt.Errorf("%q does", st.GetCluster().GetOwner())
		}
		return err
	})
	c.StartProcess(t, other)
	c.WaitConfigservers(t, 15*time.Second)
	c.WaitHealthy(t, 15*time.Second)
	return armed
}

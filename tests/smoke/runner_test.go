package smoke

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/harness"
)

// pids are the processes of a cluster, and require that all are gone later.
func pids(t *testing.T, c *harness.Cluster) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, p := range c.LocalStatus(t).Processes {
		if p.PID <= 0 {
			t.Fatalf("%s does not run", p.Name)
		}
		all[p.Name] = p.PID
	}
	if len(all) < 5 {
		t.Fatalf("only %v run", all)
	}
	return all
}

func requireGone(t *testing.T, all map[string]int) {
	t.Helper()
	harness.Eventually(t, 5*time.Second, "all processes are gone", func() error {
		for name, pid := range all {
			if syscall.Kill(pid, 0) == nil {
				return fmt.Errorf("%s (pid %d) is there", name, pid)
			}
		}
		return nil
	})
}

// TestCtrlCStopsEverything: the runner ends by itself with exit code 0, takes
// every process along and leaves no temporary files.
func TestCtrlCStopsEverything(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2, Configservers: 2})
	all := pids(t, c)
	if code := c.EndRunner(t, syscall.SIGINT, 15*time.Second); code != 0 {
		t.Errorf("the runner's exit code is %d", code)
	}
	requireGone(t, all)
	if _, err := os.Stat(c.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", c.DataDir, err)
	}
}

// TestKilledRunnerLeavesNoOrphans: kill -9 of the runner, which cannot clean up.
func TestKilledRunnerLeavesNoOrphans(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2, Configservers: 2})
	all := pids(t, c)
	c.EndRunner(t, syscall.SIGKILL, 5*time.Second)
	requireGone(t, all)
	if err := os.RemoveAll(c.DataDir); err != nil {
		t.Error(err)
	}
}

// TestDataDirIsKept: with a data directory of its own a cluster is the same
// after a restart of everything.
func TestDataDirIsKept(t *testing.T) {
	dir := t.TempDir()
	options := harness.Options{Shards: 2, Flags: []string{"--data-dir", dir}}
	c := harness.Start(t, options)
	for i := range 50 {
		redisCLI(t, c.Proxies[0], "set", fmt.Sprintf("key:%d", i), fmt.Sprint(i))
	}
	epoch := c.Topology(t).GetEpoch()
	if code := c.EndRunner(t, syscall.SIGTERM, 15*time.Second); code != 0 {
		t.Errorf("the runner's exit code is %d", code)
	}
	c = harness.Start(t, options)
	for i := range 50 {
		if got := redisCLI(t, c.Proxies[0], "get", fmt.Sprintf("key:%d", i)); got != fmt.Sprint(i) {
			t.Errorf("key:%d is %q after the restart", i, got)
		}
	}
	if now := c.Topology(t).GetEpoch(); now < epoch {
		t.Errorf("epoch went from %d to %d", epoch, now)
	}
	c.RequireInvariants(t)
}

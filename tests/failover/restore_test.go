package failover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestEtcdIsRestoredFromABackup: after the backup one master was moved and another
// one died, so the record is wrong about both. Nothing is done by it, clients are
// served on, and after `topology adopt` everything is as it was before, without a
// restart of the proxies and without an error.
func TestEtcdIsRestoredFromABackup(t *testing.T) {
	c := harness.Start(t, harness.Options{Proxies: 2})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	l := c.StartLoad(t, consistency.Config{})
	time.Sleep(betweenIncidents)
	backup := filepath.Join(t.TempDir(), "backup")
	data := c.Process(t, "configserver-0").DataDir
	c.Kill(t, "configserver-0")
	if err := os.CopyFS(backup, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	c.StartProcess(t, "configserver-0")
	c.WaitHealthy(t, 30*time.Second)
	old := c.Topology(t)

	if r, err := c.Switchover(t.Context(), shardName(0)); err != nil || !r.GetSucceeded() {
		t.Fatalf("switchover: %s, %v", harness.ReportLine(r), err)
	}
	killMaster(t, c, l, 1)
	c.WaitHealthy(t, 30*time.Second)
	newest := c.Topology(t)
	quiet := l.Now()
	c.Kill(t, "configserver-0")
	if err := errors.Join(os.RemoveAll(data), os.CopyFS(data, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	c.StartProcess(t, "configserver-0")
	noticed := harness.Eventually(t, 20*time.Second, "the record is found to be older", func() error {
		st, err := c.TryStatus()
		if err != nil {
			return err
		}
		for _, p := range st.GetProblems() {
			if p.GetCode() == "RecordIsOlder" {
				return nil
			}
		}
		return fmt.Errorf("problems %v", st.GetProblems())
	})
	time.Sleep(3 * time.Second)
	if now := c.Topology(t); now.GetEpoch() > old.GetEpoch() {
		t.Errorf("epoch %d (%s) was committed after epoch %d of the backup", now.GetEpoch(), now.GetReason(), old.GetEpoch())
	}
	if out, err := c.TryCLI("switchover", c.Name, shardName(2)); err == nil || !strings.Contains(out+err.Error(), "topology adopt") {
		t.Errorf("a switchover by the older record: %s, %v", out, err)
	}
	t.Logf("noticed after %s\n%s", noticed.Round(time.Millisecond), c.CLI(t, "topology", "adopt", c.Name))
	out := c.CLI(t, "topology", "adopt", c.Name, "--yes")
	healthy := c.WaitHealthy(t, 30*time.Second)
	adopted := c.Topology(t)
	t.Logf("healthy %s after it was adopted, at epoch %d; before the restore it was %d\n%s", healthy.Round(time.Millisecond), adopted.GetEpoch(), newest.GetEpoch(), out)
	if adopted.GetEpoch() <= newest.GetEpoch() {
		t.Errorf("epoch %d, proxies obeyed %d", adopted.GetEpoch(), newest.GetEpoch())
	}
	for i, s := range adopted.GetShards() {
		if want := newest.GetShards()[i].GetMaster(); s.GetMaster() != want {
			t.Errorf("%s: master %s, want %s", s.GetId(), s.GetMaster(), want)
		}
	}
	requireNoErrors(t, l.Timeline().Touching(quiet, l.Now()))
	time.Sleep(betweenIncidents)

	for shard := range 2 {
		killMaster(t, c, l, shard)
	}
	l.Stop()
	final, err := l.ReadAll(t.Context(), c.Proxies[0])
	if texts, n := l.Violations(); n > 0 || err != nil {
		t.Errorf("%d violations: %v, %v", n, texts, err)
	}
	t.Logf("final read: %d keys, %d behind the newest acknowledged version", final.Keys, final.Behind)
}

package failover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

var errNoEvent = errors.New("no such event")

const (
	switchovers   = 20
	longestStall  = 200 * time.Millisecond
	verdictWithin = 30 * time.Second
)

// TestTwentySwitchovers moves masters twenty times in a row under load: no
// error, nothing lost, no request slower than 200 ms, and the history of several
// writers on hot keys is linearizable.
func TestTwentySwitchovers(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	l := c.StartLoad(t, consistency.Config{})
	var hot []string
	for _, sh := range c.Shards(t) {
		for first := range sh.Slots.Ranges {
			hot = append(hot, consistency.KeyInSlot("hot", first))
			break
		}
	}
	registers, err := consistency.StartRegisters(t.Context(), c.Proxies[0], "", "", hot, 6, 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(betweenIncidents)
	begin := l.Now()
	for i := range switchovers {
		before := c.Master(t, i%3).GetId()
		r, err := c.Switchover(t.Context(), shardName(i%3))
		if err != nil {
			t.Fatalf("switchover %d: %v", i, err)
		}
		if !r.GetSucceeded() || r.GetNewMaster() == before {
			t.Errorf("switchover %d: %s", i, harness.ReportLine(r))
		}
		t.Log(harness.ReportLine(r))
	}
	took := l.Now() - begin
	time.Sleep(betweenIncidents)
	registers.Stop()
	final := l.Judge(t)
	line := l.Timeline()
	requireNoErrors(t, line)
	if final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	longest, stall := longestStallOf(l, line)
	t.Logf("%d switchovers in %s; longest request %s, longest stall without noise %s (shard-%d at %s)",
		switchovers, took.Round(time.Millisecond), line.Longest().Latency, stall, longest.Shard, longest.Start)
	if stall >= longestStall {
		t.Errorf("longest stall %s, want less than %s", stall, longestStall)
	}
	operations, failures, err := registers.Check(verdictWithin)
	t.Logf("%d operations of 6 clients on %d hot keys are linearizable: %t", operations, len(hot), err == nil)
	if err != nil || len(failures) > 0 {
		t.Errorf("hot keys: %v, errors %v", err, failures)
	}
}

// TestRotateCredentialsUnderLoad replaces both secrets while clients work: the
// proxies move to new users, the old ones are gone afterwards, nobody notices.
func TestRotateCredentialsUnderLoad(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	l := c.StartLoad(t, consistency.Config{})
	before := c.Topology(t)
	for _, name := range []string{"cluster-secret", "admin-password"} {
		newSecret(t, c, name, "rotated-"+name+"-0123456789abcdef")
	}
	time.Sleep(betweenIncidents)
	c.CLI(t, "credentials", "rotate", c.Name)
	harness.Eventually(t, 15*time.Second, "every shard has a new generation", func() error {
		for i, sh := range c.Topology(t).GetShards() {
			if sh.GetGeneration() <= before.GetShards()[i].GetGeneration() {
				return errors.New(sh.GetId() + " has the old one")
			}
		}
		return c.Healthy()
	})
	time.Sleep(betweenIncidents)
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	requireNoErrors(t, l.Timeline())
	t.Logf("longest stall %s", l.Timeline().Longest().Latency)
	for _, sh := range c.Topology(t).GetShards() {
		for _, n := range sh.GetNodes() {
			users := do(t, c.Admin(t, n.GetAddress()), "ACL", "LIST").Array
			var proxies []string
			for _, u := range users {
				if strings.HasPrefix(string(u.Text), "user basalt-proxy-") && strings.Contains(string(u.Text), " on ") {
					proxies = append(proxies, strings.Fields(string(u.Text))[1])
				}
			}
			want := fmt.Sprintf("basalt-proxy-%d-", sh.GetGeneration())
			if len(proxies) == 0 || slices.ContainsFunc(proxies, func(u string) bool { return !strings.HasPrefix(u, want) }) {
				t.Errorf("%s lets in %s after the rotation, want only %s", n.GetId(), proxies, want)
			}
		}
	}
}

// newSecret puts a secret on the first line of a credentials file and the one
// that was there on the second.
func newSecret(t *testing.T, c *harness.Cluster, name, secret string) {
	t.Helper()
	path := filepath.Join(c.CredentialsDir, name)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	current, _, _ := strings.Cut(string(old), "\n")
	next := path + ".new" // replaced in one step, like a mounted Secret
	if err := os.WriteFile(next, []byte(secret+"\n"+current+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

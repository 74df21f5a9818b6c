package failover

import (
	"errors"
	"fmt"
	"sync"
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
	c.SetPolicy(t, harness.UnlimitedFailovers)
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

// TestFreshDataSurvives: one key in each shard of a cluster that was formed this
// moment, and then all masters die at once and return empty. There is next to
// no replication history to judge by, and the data is there all the same.
func TestFreshDataSurvives(t *testing.T) {
	for _, delay := range []time.Duration{0, 50 * time.Millisecond, 1500 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			c := harness.Start(t, harness.Options{})
			conn, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			keys := map[string]string{} // key by id of its master
			var masters []harness.LocalProcess
			for _, sh := range c.Topology(t).GetShards() {
				key := consistency.KeyInSlot("fresh", int(sh.GetSlots()[0].GetStart()))
				do(t, conn, "SET", key, sh.GetId())
				keys[sh.GetMaster()] = key
				masters = append(masters, c.Process(t, sh.GetMaster()))
				for _, n := range sh.GetNodes() {
					if n.GetId() == sh.GetMaster() {
						continue
					}
					replica := c.Admin(t, n.GetAddress())
					harness.Eventually(t, 5*time.Second, "the key is in the replica", func() error {
						if r := do(t, replica, "GET", key); string(r.Text) != sh.GetId() {
							return errors.New("it is not")
						}
						return nil
					})
				}
			}
			for _, p := range masters {
				harness.Signal(t, p, syscall.SIGKILL)
			}
			time.Sleep(delay)
			var wg sync.WaitGroup
			for _, p := range masters {
				wg.Go(func() { c.CLI(t, "local", "start", p.Name, "--empty") })
			}
			wg.Wait()
			c.WaitHealthy(t, 20*time.Second)
			for master, key := range keys {
				if got := string(do(t, conn, "GET", key).Text); got == "" || master[:len(got)] != got {
					t.Errorf("%s is %q after %s returned empty", key, got, master)
				}
			}
			c.RequireInvariants(t)
		})
	}
}

// TestWholeShardRestarted kills all nodes of a shard at once. They keep their
// data on disk and return, the former replica first: the data is there again,
// and an event says what happened.
func TestWholeShardRestarted(t *testing.T) {
	dir := t.TempDir()
	c := harness.Start(t, harness.Options{Shards: 2, Flags: []string{"--data-dir", dir}})
	conn, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shard := c.Topology(t).GetShards()[0]
	first := int(shard.GetSlots()[0].GetStart())
	for i := range 100 {
		do(t, conn, "SET", consistency.KeyInSlot("kept", first+i), fmt.Sprint(i))
	}
	c.WaitHealthy(t, 10*time.Second)
	events := c.LastEvent(t)
	var replica string
	for _, n := range shard.GetNodes() {
		harness.Signal(t, c.Process(t, n.GetId()), syscall.SIGKILL)
		if n.GetId() != shard.GetMaster() {
			replica = n.GetId()
		}
	}
	time.Sleep(500 * time.Millisecond)
	c.StartProcess(t, replica)
	time.Sleep(time.Second)
	c.StartProcess(t, shard.GetMaster())
	begin := time.Now()
	c.WaitHealthy(t, 30*time.Second)
	t.Logf("healthy %s after both were back", time.Since(begin).Round(time.Millisecond))
	for i := range 100 {
		if got := string(do(t, conn, "GET", consistency.KeyInSlot("kept", first+i)).Text); got != fmt.Sprint(i) {
			t.Errorf("key %d is %q", i, got)
		}
	}
	for _, e := range c.EventsAfter(t, events) {
		t.Logf("%s: %s", e.GetKind(), e.GetMessage())
	}
	c.RequireInvariants(t)
}

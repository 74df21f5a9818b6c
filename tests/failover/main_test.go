// Package failover shows on real processes that masters may die, hang, return
// empty and be replaced as planned, that the control plane may die at any step,
// and what clients see of it. Every test prints its figures (-v) and runs alone:
//
//	go test ./failover -v -run TestKillMasterUnderLoad
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

func TestMain(m *testing.M) { harness.Main(m) }

// shardName is the id of shard number i.
func shardName(i int) string { return fmt.Sprintf("shard-%d", i) }

// waitNewMaster waits until the shard has another master than old and returns
// how long that took.
func waitNewMaster(t *testing.T, c *harness.Cluster, shard int, old string, limit time.Duration) time.Duration {
	t.Helper()
	return harness.Eventually(t, limit, shardName(shard)+" has a new master", func() error {
		switch m := c.Master(t, shard); {
		case m == nil:
			return errors.New("it has none")
		case m.GetId() == old:
			return fmt.Errorf("it is still %s", old)
		}
		return nil
	})
}

// outage is what clients felt of a master that was taken away at some time.
type outage struct {
	at    time.Duration // on the load's timeline
	shard int
	// until is when a new master was known and the next experiment could begin.
	until time.Duration
}

// killMaster kills the master of a shard with -9, waits for the new one, starts
// the old process again and waits until everything is in sync.
func killMaster(t *testing.T, c *harness.Cluster, l *harness.Load, shard int) outage {
	t.Helper()
	old := c.Master(t, shard)
	process := c.Process(t, old.GetId())
	events := c.LastEvent(t)
	l.LossBegins(shard)
	o := outage{at: l.Now(), shard: shard}
	unconfirmed := l.Unconfirmed(shard)
	harness.Signal(t, process, syscall.SIGKILL)
	took := waitNewMaster(t, c, shard, old.GetId(), 10*time.Second)
	l.LossEnds(shard)
	time.Sleep(200 * time.Millisecond) // the load on the new master, alone
	o.until = l.Now()
	c.StartProcess(t, old.GetId())
	healthy := c.WaitHealthy(t, 20*time.Second)
	t.Logf("%s killed with %d keys not yet seen in a replica: new master after %s, in sync %s after its restart",
		old.GetId(), unconfirmed, took.Round(time.Millisecond), healthy.Round(time.Millisecond))
	for _, r := range c.Reports(t, events) {
		t.Log(harness.ReportLine(r))
	}
	return o
}

// resumed returns how long no write of the shard was acknowledged around the
// outage, and fails the test when writes did not resume.
func (o outage) resumed(t *testing.T, line consistency.Timeline) time.Duration {
	t.Helper()
	gap, ok := line.Shard(o.shard).LongestWriteGap(o.at-20*time.Millisecond, o.until)
	if !ok {
		t.Errorf("%s: writes did not resume between %s and %s", shardName(o.shard), gap.From, gap.To)
	}
	return gap.To - o.at
}

// requireOnlyInFlight fails the test for errors on the shard other than those
// of commands that were in flight when the master went: at most one for each
// connection, sent no later than slack after it.
func (o outage) requireOnlyInFlight(t *testing.T, line consistency.Timeline, slack time.Duration) {
	t.Helper()
	perConn := map[int]int{}
	for _, r := range line.Shard(o.shard).Touching(o.at, o.until).Errors() {
		perConn[r.Conn]++
		if r.Class != consistency.InFlight || r.Start > o.at+slack || perConn[r.Conn] > 1 {
			t.Errorf("%s taken away at %s: connection %d has error number %d at %s, begun at %s: [%s] %s",
				shardName(o.shard), o.at, r.Conn, perConn[r.Conn], r.End(), r.Start, r.Class, r.Text)
		}
	}
}

// requireUnnoticed fails the test when another shard had an error, or a request
// that stalled, while the master was away.
func (o outage) requireUnnoticed(t *testing.T, l *harness.Load) {
	t.Helper()
	others := l.Timeline().OtherShards(o.shard).Touching(o.at, o.until)
	if len(others.Errors()) > 0 {
		t.Errorf("%s taken away at %s: other shards had errors: %s", shardName(o.shard), o.at, others.ErrorTexts())
	}
	if p99 := others.Quantile(0.99) - 2*l.Noise(o.at, o.until); p99 > unnoticedP99 {
		t.Errorf("%s taken away at %s: the 99th percentile of other shards is %s without the noise of the machine; the bound is %s",
			shardName(o.shard), o.at, p99, unnoticedP99)
	}
	if r, stall := longestStallOf(l, others); stall > unnoticedLongest {
		t.Errorf("%s taken away at %s: a request of shard-%d begun at %s took %s, of which %s are not noise of the machine; the bound is %s",
			shardName(o.shard), o.at, r.Shard, r.Start, r.Latency, stall, unnoticedLongest)
	}
}

// longestStallOf returns the request that stalled longest, and how long without
// the noise of the machine.
func longestStallOf(l *harness.Load, line consistency.Timeline) (longest consistency.Record, stall time.Duration) {
	for _, r := range line {
		if r.Latency <= stall {
			continue
		}
		if s := l.Stall(r); s > stall {
			longest, stall = r, s
		}
	}
	return longest, stall
}

// do sends a command that must succeed.
func do(t *testing.T, conn *consistency.Conn, args ...string) consistency.Reply {
	t.Helper()
	r, err := conn.Do(args...)
	if err == nil {
		err = r.Err
	}
	if err != nil {
		t.Fatalf("%.100q: %v", args, err)
	}
	return r
}

// requireNoErrors fails the test for every error in the timeline.
func requireNoErrors(t *testing.T, line consistency.Timeline) {
	t.Helper()
	if errs := line.Errors(); len(errs) > 0 {
		t.Errorf("%d errors: %s", len(errs), errs.ErrorTexts())
	}
}

package failover

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// sortable fills a list so that sorting it keeps a server silent for about a time, and
// returns the command.
func sortable(t *testing.T, proxy *consistency.Conn, key string, want time.Duration) []string {
	t.Helper()
	sort := []string{"SORT", key, "ALPHA", "LIMIT", "0", "1"}
	const fill = `local args = {} for i = 1, 50000 do args[#args + 1] = ARGV[1] .. ':' .. math.random(1, 1e9)
if #args == 5000 then redis.call('RPUSH', KEYS[1], unpack(args)) args = {} end end`
	for n := range 200 {
		do(t, proxy, "EVAL", fill, "1", key, fmt.Sprint(n))
		if n%8 != 7 {
			continue
		}
		begin := time.Now()
		do(t, proxy, sort...)
		if took := time.Since(begin); took > want/2 {
			// As many again: n log n, and the machine may have been slow just now.
			for range n + 1 {
				do(t, proxy, "EVAL", fill, "1", key, "more")
			}
			return sort
		}
	}
	t.Fatal("no list is long enough")
	return nil
}

// TestBusyMasterIsNotReplaced has a server execute a SORT that takes longer than a
// server may be silent that hangs: clients of all proxies wait for it, and nothing
// else happens. One that is stopped while it sorts is replaced when it has been silent
// for max_busy; one that was stopped before is replaced as soon as ever, whatever is
// sent to it then.
func TestBusyMasterIsNotReplaced(t *testing.T) {
	c := harness.Start(t, harness.Options{Proxies: 2})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	l := c.StartLoad(t, consistency.Config{})
	key := "list{" + l.Keys(0)[0] + "}"
	sorter, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer sorter.Close()
	// A bound of hung ones that the SORT exceeds however fast the machine is.
	sort := sortable(t, sorter, key, 4*time.Second)
	c.SetPolicy(t, func(p *pb.Policy) { p.HungAfter.Seconds = 2 })
	c.WaitHealthy(t, 20*time.Second)

	before, events := c.Topology(t), c.LastEvent(t)
	begin := time.Now()
	do(t, sorter, sort...)
	took := time.Since(begin)
	if took < 2500*time.Millisecond {
		t.Fatalf("the SORT took %v only", took)
	}
	time.Sleep(2 * time.Second) // for a decision that would come late
	requireNoMasterlessEpoch(t, c, before.GetEpoch())
	told := false
	for _, e := range c.EventsAfter(t, events) {
		t.Logf("SORT of %v: event %s: %s", took.Round(time.Millisecond), e.GetKind(), e.GetMessage())
		told = told || e.GetKind() == "SlowMaster" && strings.Contains(e.GetMessage(), "waits for SORT") && strings.Contains(e.GetMessage(), "its host answers")
	}
	if !told {
		t.Error("no event says what the master is busy with")
	}
	requireNoErrors(t, l.Timeline())

	c.SetPolicy(t, func(p *pb.Policy) { p.HungAfter.Seconds, p.MaxBusy.Seconds = 4, 8 })
	stop := func(when string, sorting time.Duration, least, most time.Duration, sign string) {
		t.Helper()
		c.WaitHealthy(t, time.Minute) // a SORT may be executed by both once more
		old := c.Master(t, 0)
		process, events := c.Process(t, old.GetId()), c.LastEvent(t)
		l.LossBegins(0)
		sorted := make(chan error, 1)
		ask := func() {
			go func() { _, err := sorter.Do(sort...); sorted <- err }()
		}
		if sorting > 0 {
			ask()
			time.Sleep(sorting)
		}
		harness.Signal(t, process, syscall.SIGSTOP)
		stopped := time.Now()
		if sorting < 0 {
			time.Sleep(-sorting)
			ask()
		}
		waitNewMaster(t, c, 0, old.GetId(), 15*time.Second)
		took := time.Since(stopped)
		l.LossEnds(0)
		if took < least || took > most {
			t.Errorf("%s: replaced after %v, want %v to %v", when, took, least, most)
		}
		signs := false
		for _, r := range c.Reports(t, events) {
			t.Logf("%s: after %v: %s: %s", when, took.Round(time.Millisecond), r.GetCause(), r.GetEvidence())
			signs = signs || strings.Contains(r.GetCause(), sign)
		}
		if !signs {
			t.Errorf("%s: the report does not say %q", when, sign)
		}
		if err := <-sorted; err != nil {
			t.Fatal(err)
		}
		harness.Signal(t, process, syscall.SIGCONT)
	}
	stop("stopped while it sorts", 300*time.Millisecond, 7*time.Second, 10*time.Second, "waits for SORT, for longer than max_busy")
	stop("stopped before", -800*time.Millisecond, 3*time.Second, hungReplacedIn, "nothing that takes long was sent to it before")
	c.WaitHealthy(t, time.Minute)
	l.Judge(t)
}

package fairness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	// calm is how long a crowd is measured before the demand, in which atLeast
	// is spent.
	calm    = 500 * time.Millisecond
	atLeast = 500 * time.Millisecond
	// hop is what two more hops on a busy machine may cost, beside a factor.
	hop = 5 * time.Millisecond
	// attempts are made until others were not disturbed: two cores that run six
	// servers, a crowd and whatever else is there may disturb them as well.
	attempts = 3
	// mostMemory is what the proxy may take: its memory budget (1 GiB) is for
	// requests and replies, the rest for itself.
	mostMemory = 1<<30 + 256<<20
)

// change of latencies by a demand.
type change struct{ before, during felt }

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

func (c change) String() string {
	return fmt.Sprintf("p50 %s → %s, p99 %s → %s, longest %s → %s ms (%d requests)",
		ms(c.before.quantile(0.5)), ms(c.during.quantile(0.5)), ms(c.before.quantile(0.99)), ms(c.during.quantile(0.99)),
		ms(c.before.quantile(1)), ms(c.during.quantile(1)), len(c.during))
}

// twice is the bound that a demand must keep to for clients whose servers are
// not concerned.
func (c change) twice() time.Duration { return 2 * c.before.quantile(0.99) }

// effect of a demand: on clients of the same shard, on clients of others, and on
// clients of a server that has nothing to do with it, for it shares the machine.
type effect struct {
	same, others, bystanders change
	asked                    int
	took                     time.Duration // of one
	memory                   int64         // the most the proxy took, in bytes
}

// site is a server or cluster, and the keys of its crowds.
type site struct {
	addr         string
	same, others []string
	bystander    string
	pid          int // of the proxy, 0 for a plain server
}

// measure makes a demand beside crowds.
func (s *site) measure(t *testing.T, d demand) (e effect) {
	t.Helper()
	h, err := newHog(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := d.prepare(h); err != nil {
		t.Fatalf("%s at %s: prepare: %v", d.name, s.addr, err)
	}
	crowds := []*crowd{gather(t, s.addr, s.same), gather(t, s.addr, s.others), gather(t, s.bystander, s.same)}
	time.Sleep(200 * time.Millisecond)
	s.resetMemory(t)
	begin := time.Now()
	time.Sleep(calm)
	from := time.Now()
	for time.Since(from) < atLeast {
		if err := d.ask(h); err != nil {
			t.Fatalf("%s at %s: %v", d.name, s.addr, err)
		}
		e.asked++
	}
	to := time.Now()
	e.memory = s.mostMemory(t)
	time.Sleep(100 * time.Millisecond)
	for i, change := range []*change{&e.same, &e.others, &e.bystanders} {
		crowds[i].stop(t)
		change.before, change.during = crowds[i].felt(begin, from), crowds[i].felt(from, to)
	}
	if err := d.clean(h); err != nil {
		t.Fatalf("%s at %s: clean: %v", d.name, s.addr, err)
	}
	e.took = to.Sub(from) / time.Duration(e.asked)
	return e
}

// all are the clients of all shards.
func (e *effect) all() change {
	return change{join(e.same.before, e.others.before), join(e.same.during, e.others.during)}
}

// bound is what others' p99 may be. A server that stalls does so once for each
// of its clients, which may be more or less than 1 % of what they sent, so the
// longest wait there counts, too.
func bound(redis, ours change) time.Duration {
	return max(ours.twice(), 2*redis.during.quantile(0.99), redis.during.quantile(1)*3/2) + hop
}

// unconcerned is what the p99 of clients may be whose servers are free: twice
// what it was, or what those feel who only share the machine: twice their p99, or
// the longest they waited, for one stall may be more or less than 1 % of what
// each sent.
func unconcerned(e *effect) time.Duration {
	others := e.bystanders.during
	return max(e.others.twice(), 2*others.quantile(0.99), others.quantile(1)) + hop
}

// resetMemory makes mostMemory count from now on.
func (s *site) resetMemory(t *testing.T) {
	if s.pid == 0 {
		return
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid), []byte("5"), 0); err != nil {
		t.Logf("the peak counts from the start of the proxy: %v", err)
	}
}

// mostMemory is the most resident memory of the proxy, in bytes.
func (s *site) mostMemory(t *testing.T) int64 {
	t.Helper()
	if s.pid == 0 {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("/proc/%d/status has no VmHWM", s.pid)
	return 0
}

// newSites starts a plain server and a cluster, and another plain server for
// bystanders.
func newSites(t *testing.T) (plain, cluster *site) {
	bystander := harness.StartRedis(t).Address
	c := harness.Start(t, harness.Options{Replicas: -1})
	var same, others []string
	for _, shard := range c.Shards(t) {
		hogs := shard.Slots.Has(int(slot.Of([]byte("hog"))))
		for i := range crowdKeys {
			k := fmt.Sprintf("fair:%d", i)
			switch {
			case !shard.Slots.Has(int(slot.Of([]byte(k)))):
			case hogs:
				same = append(same, k)
			default:
				others = append(others, k)
			}
		}
	}
	plain = &site{addr: harness.StartRedis(t).Address, same: same, others: others, bystander: bystander}
	cluster = &site{addr: c.Proxies[0], same: same, others: others, bystander: bystander}
	for _, p := range c.LocalStatus(t).Processes {
		if p.Kind == "proxy" {
			cluster.pid = p.PID
		}
	}
	return plain, cluster
}

// TestOthersKeepTheirPace makes each demand of a plain server and of a cluster.
func TestOthersKeepTheirPace(t *testing.T) {
	plain, cluster := newSites(t)
	for _, d := range demands() {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			var complaint string
			for range attempts {
				redis := plain.measure(t, d)
				ours := cluster.measure(t, d)
				t.Logf("redis: %s, %d demands of %s ms", redis.all(), redis.asked, ms(redis.took))
				t.Logf("proxy: %s, %d demands of %s ms, %d MiB", ours.all(), ours.asked, ms(ours.took), ours.memory>>20)
				if ours.memory > mostMemory {
					t.Errorf("the proxy took %d MiB, want at most %d", ours.memory>>20, mostMemory>>20)
				}
				if complaint = d.judge(t, redis.all(), &ours); complaint == "" {
					return
				}
			}
			t.Error(complaint)
		})
	}
}

// judge says what is wrong with the effect of a demand; "" for nothing.
func (d demand) judge(t *testing.T, redis change, ours *effect) string {
	concerned := ours.all()
	if d.alone {
		concerned = ours.same
		t.Logf("same shard: %s", ours.same)
		t.Logf("other shards: %s", ours.others)
		t.Logf("bystanders: %s", ours.bystanders)
		if p99, limit := ours.others.during.quantile(0.99), unconcerned(ours); p99 > limit {
			return fmt.Sprintf("p99 of clients of other shards is %v, want at most %v", p99, limit)
		}
	}
	if p99, limit := concerned.during.quantile(0.99), bound(redis, concerned); p99 > limit {
		return fmt.Sprintf("p99 of others is %v, want at most %v", p99, limit)
	}
	return ""
}

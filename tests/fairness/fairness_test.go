package fairness

import (
	"fmt"
	"strings"
	"testing"
	"time"

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
)

// effect of a demand on others.
type effect struct {
	before, during felt
	asked          int
	took           time.Duration // of one
}

func (e effect) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }
	return fmt.Sprintf("p50 %s → %s, p99 %s → %s, longest %s → %s ms (%d requests, %d demands of %s ms)",
		ms(e.before.quantile(0.5)), ms(e.during.quantile(0.5)), ms(e.before.quantile(0.99)), ms(e.during.quantile(0.99)),
		ms(e.before.quantile(1)), ms(e.during.quantile(1)), len(e.during), e.asked, ms(e.took))
}

// measure makes a demand of a server beside a crowd.
func measure(t *testing.T, addr string, d demand) (e effect) {
	t.Helper()
	h, err := newHog(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := d.prepare(h); err != nil {
		t.Fatalf("%s at %s: prepare: %v", d.name, addr, err)
	}
	c := gather(t, addr)
	time.Sleep(200 * time.Millisecond)
	begin := c.now()
	time.Sleep(calm)
	from := c.now()
	for c.now()-from < atLeast {
		if err := d.ask(h); err != nil {
			t.Fatalf("%s at %s: %v", d.name, addr, err)
		}
		e.asked++
	}
	to := c.now()
	time.Sleep(100 * time.Millisecond)
	c.stop(t)
	if err := d.clean(h); err != nil {
		t.Fatalf("%s at %s: clean: %v", d.name, addr, err)
	}
	e.before, e.during, e.took = c.felt(begin, from-1), c.felt(from, to), (to-from)/time.Duration(e.asked)
	return e
}

// bound is what others' p99 may be. A server that stalls does so once for each
// of its clients, which may be more or less than 1 % of what they sent, so the
// longest wait there counts, too.
func bound(redis, ours effect) time.Duration {
	return max(2*ours.before.quantile(0.99), 2*redis.during.quantile(0.99), redis.during.quantile(1)*3/2) + hop
}

// TestOthersKeepTheirPace makes each demand of a plain server and of a cluster.
func TestOthersKeepTheirPace(t *testing.T) {
	plain := harness.StartRedis(t)
	c := harness.Start(t, harness.Options{Replicas: -1})
	for _, d := range demands() {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			for attempt := range attempts {
				redis := measure(t, plain.Address, d)
				ours := measure(t, c.Proxies[0], d)
				t.Logf("redis: %s", redis)
				t.Logf("proxy: %s", ours)
				p99, limit := ours.during.quantile(0.99), bound(redis, ours)+d.slack
				if p99 <= limit {
					return
				}
				if attempt == attempts-1 {
					t.Errorf("p99 of others is %v, want at most %v", p99, limit)
				}
			}
		})
	}
}

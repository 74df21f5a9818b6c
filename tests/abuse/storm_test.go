package abuse

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// Limits of the proxy under attack, and what its memory may come to. The budget
// counts bytes of requests and replies; a garbage-collected heap may hold as
// much again that is free, and the program itself needs some.
const (
	memoryBudget = 192 << 20
	replyBuffer  = 32 << 20
	maxRSS       = 2*memoryBudget + 96<<20
)

// patience is what well-behaved clients may feel: 99 % of their requests take
// less than p99 and none longer than longest, what a witness waits at a plain
// server meanwhile not counted: two cores are shared with the servers, the
// attackers, the checks and others. Alone, an attack is felt for as long as a
// server takes for the largest of its requests, for it has one thread, as has a
// loop of the proxy. All at once, the million keys, the pipelines and the replies
// that nobody reads have the servers busy one after the other.
type patience struct{ p99, longest time.Duration }

var (
	alone    = patience{p99: 150 * time.Millisecond, longest: 600 * time.Millisecond}
	together = patience{p99: 400 * time.Millisecond, longest: 2 * time.Second}
)

// stalls are the latencies of requests, sorted, without the noise of the machine.
func stalls(load *consistency.Load, seen consistency.Timeline) []time.Duration {
	list := make([]time.Duration, len(seen))
	for i, r := range seen {
		list[i] = load.Stall(r)
	}
	slices.Sort(list)
	return list
}

// TestAttacks runs each attack alone and then all at once, beside clients that
// verify every reply.
func TestAttacks(t *testing.T) {
	c, p := start(t, "--memory-budget-bytes=192MiB", "--client-reply-buffer-bytes=32MiB")
	list := attacks(append(corpus(t), generated()...))
	files := p.files(t)

	ordeal := func(name string, d time.Duration, limit patience, attacks ...attack) {
		t.Run(name, func(t *testing.T) {
			load := c.StartLoad(t, consistency.Config{Connections: 30, Pace: 5 * time.Millisecond})
			p.resetPeak(t)
			from := load.Now()
			if err := storm(t.Context(), p.addr, d, attacks...); err != nil {
				t.Error(err)
			}
			to := load.Now()
			peak := p.peak(t)
			p.requireAlive(t)
			load.Judge(t)
			seen := load.Timeline().Touching(from, to)
			t.Logf("others: %s; memory: peak %s, now %s", seen.Summary(), mib(peak), mib(p.rss(t)))
			if errs := load.Timeline().Errors(); len(errs) > 0 {
				t.Errorf("other clients saw errors: %s", errs.ErrorTexts())
			}
			if len(seen) == 0 {
				t.Fatal("other clients were not served at all")
			}
			felt := stalls(load.Load, seen)
			p99, longest := felt[len(felt)*99/100], felt[len(felt)-1]
			t.Logf("without the noise of the machine: p99 %v, longest %v", p99, longest)
			if p99 > limit.p99 || longest > limit.longest {
				t.Errorf("other clients: %d requests, p99 %v, longest %v; want at most %v and %v", len(seen), p99, longest, limit.p99, limit.longest)
			}
			if peak > maxRSS {
				t.Errorf("the proxy grew to %s; want at most %s", mib(peak), mib(maxRSS))
			}
		})
	}
	for _, a := range list {
		ordeal(a.name, 1500*time.Millisecond, alone, a)
	}
	ordeal("all at once", 10*time.Second, together, list...)

	harness.Eventually(t, 15*time.Second, "the proxy closes what the attackers left", func() error {
		if now := p.files(t); now > files+10 {
			return fmt.Errorf("%d files are open, %d were before", now, files)
		}
		return nil
	})
	p.requireAlive(t)
	t.Logf("memory afterwards: %s", mib(p.rss(t)))
}

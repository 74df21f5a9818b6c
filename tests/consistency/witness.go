package consistency

import (
	"context"
	"sync"
	"time"
)

// A witness tells the stalls of the machine from those of the system under
// test. It is one more connection, to a plain server that nobody harms, asked
// every few milliseconds. When its answers are late, so is everything else on
// the machine: two cores that run six servers, a proxy, etcd, this generator
// and whatever else happens to be there.
type witness struct {
	mu   sync.Mutex
	seen []span
}

// span is one question of the witness: from when it was due until its answer.
type span struct{ from, to time.Duration }

// witnessPace is the pause of the witness between two questions.
const witnessPace = 5 * time.Millisecond

// Witness asks the server at addr until stop is called; Noise tells what it saw.
func (l *Load) Witness(ctx context.Context, addr string) (stop func(), err error) {
	c, err := Dial(ctx, addr, "", "")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer c.Close()
		for due := l.Now(); ctx.Err() == nil; {
			time.Sleep(due - l.Now())
			if _, err := c.Do("PING"); err != nil {
				return // the test ends it
			}
			answered := l.Now()
			l.witness.mu.Lock()
			l.witness.seen = append(l.witness.seen, span{due, answered})
			l.witness.mu.Unlock()
			due = answered + witnessPace
		}
	})
	return func() { cancel(); wg.Wait() }, nil
}

// Noise is the longest that the witness waited around a time from a to b on the
// timeline; 0 without a witness.
func (l *Load) Noise(a, b time.Duration) (longest time.Duration) {
	const around = 100 * time.Millisecond
	l.witness.mu.Lock()
	defer l.witness.mu.Unlock()
	for _, s := range l.witness.seen {
		if s.to >= a-around && s.from <= b+around {
			longest = max(longest, s.to-s.from)
		}
	}
	return longest
}

// Stall is what a request's latency is without the noise of the machine. A
// request passes two processes where the witness passes one.
func (l *Load) Stall(r Record) time.Duration {
	return max(0, r.Latency-2*l.Noise(r.Start, r.End()))
}

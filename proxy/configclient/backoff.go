package configclient

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Waiting between attempts: from minWait, doubling up to maxWait, each drawn
// from the upper half, so that many proxies do not come back in one instant. A
// Configserver that takes a cluster over in the middle of a switchover holds
// requests until its proxies have found it, so they must not look rarely.
const (
	minWait = 50 * time.Millisecond
	maxWait = 500 * time.Millisecond
)

type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{minWait} }

func (b *backoff) reset() { b.next = minWait }

// wait waits; grow doubles what the next one takes. The error is that of ctx.
func (b *backoff) wait(ctx context.Context, grow bool) error {
	d := b.next/2 + rand.N(b.next/2) //nolint:gosec // spreads reconnects, guards nothing
	if grow {
		b.next = min(2*b.next, maxWait)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// teller logs why there is no connection: at once when the reason is new, else
// every tellEvery, for attempts follow each other quickly.
type teller struct {
	log    *slog.Logger
	reason string
	at     time.Time
}

const tellEvery = 5 * time.Second

func newTeller(log *slog.Logger) *teller { return &teller{log: log} }

func (t *teller) tell(connected bool, address string, err error, s Status) {
	reason := "the configserver ended the stream"
	if err != nil {
		reason = err.Error()
	}
	if !connected && reason == t.reason && time.Since(t.at) < tellEvery {
		return
	}
	t.reason, t.at = reason, time.Now()
	if s.Epoch == 0 {
		t.log.Warn("waiting for a topology; no client is served before", "configserver", address, "error", reason)
		return
	}
	t.log.Warn("configserver lost, serving on by the last epoch", "configserver", address, "error", reason, "epoch", s.Epoch)
}

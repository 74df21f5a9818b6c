package configclient

import (
	"context"
	"errors"
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

// teller logs that there is no connection: once when that lasts, and then every
// tellEvery, whatever each attempt meets. One Configserver that stops and another that goes
// on in its place are no reason to warn. Why a topology is refused is told at once.
type teller struct {
	log *slog.Logger
	// since is when the connection was lost, or none was found first; at is when that
	// was told. refused is the last reason for which a topology was.
	since, at time.Time
	refused   string
}

const (
	tellAfter = 2 * time.Second
	tellEvery = time.Minute
)

func newTeller(log *slog.Logger) *teller { return &teller{log: log} }

func (t *teller) tell(connected bool, address string, err error, s Status) {
	now := time.Now()
	reason := "the configserver ended the stream"
	if err != nil {
		reason = err.Error()
	}
	if connected || t.since.IsZero() {
		t.since, t.at = now, time.Time{}
	}
	if connected {
		t.log.Info("the connection to the configserver ended; looks for one", "configserver", address, "reason", reason)
	}
	due := now.Sub(t.since) >= tellAfter && now.Sub(t.at) >= tellEvery
	if errors.Is(err, errRefused) && t.refused != reason {
		due, t.refused = true, reason
	}
	if !due {
		return
	}
	t.at = now
	if s.Epoch == 0 {
		t.log.Warn("waiting for a topology; no client is served before", "configserver", address, "error", reason)
		return
	}
	t.log.Warn("no configserver, serving on by the last epoch", "configserver", address, "error", reason, "epoch", s.Epoch,
		"for", now.Sub(t.since).Round(time.Second))
}

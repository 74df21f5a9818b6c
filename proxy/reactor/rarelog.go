package reactor

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// logEvery is the shortest time between two lines of one rareLog.
const logEvery = int64(time.Second)

// rareLog is a line that strangers can cause as often as they like, so it is
// written at most once in logEvery, with the number of those that were not
// written since.
type rareLog struct {
	next    atomic.Int64 // by the engine's clock
	skipped atomic.Uint64
}

// rareLogs are those of an engine.
type rareLogs struct {
	attacked, malformed, tooSlow, unaccepted, memory, evicted rareLog
}

func (r *rareLog) log(e *Engine, level slog.Level, text string, args ...any) {
	now, next := int64(time.Since(e.started)), r.next.Load()
	if now < next || !r.next.CompareAndSwap(next, now+logEvery) {
		r.skipped.Add(1)
		return
	}
	if n := r.skipped.Swap(0); n > 0 {
		args = append(args, "not_logged", n)
	}
	e.cfg.Logger.Log(context.Background(), level, text, args...)
}

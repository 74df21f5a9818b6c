package scripts

import (
	"context"
	"errors"
	"time"
)

var (
	errNoKeeper = errors.New("there is no configserver")
	errOften    = errors.New("there are more new scripts than are kept")
	errFlushes  = errors.New("scripts are being flushed all the time")
)

// Run tells the Configserver of scripts until ctx ends.
func (l *Library) Run(ctx context.Context) error {
	if l.keeper == nil {
		<-ctx.Done()
		return nil
	}
	again := time.NewTicker(againEvery)
	defer again.Stop()
	var checked time.Time
	var retry time.Duration
	for {
		// A failure is tried again, a check that is due is made, without a nudge.
		var later <-chan time.Time
		if retry > 0 {
			later = time.After(retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			if retry > 0 { // it is not asked more often because there is more to say
				select {
				case <-later:
				case <-ctx.Done():
					return nil
				}
			}
		case <-later:
		case <-again.C:
			l.putAgain()
		}
		if !sleep(ctx, together) {
			return nil
		}
		err := l.putWaiting(ctx)
		if (err == nil || errors.Is(err, errOften)) && l.takeUsed() {
			if !sleep(ctx, checkEvery-time.Since(checked)) {
				return nil
			}
			if failed := l.check(ctx); failed != nil {
				err = failed
			}
			checked = time.Now()
		}
		if retry = l.failed(ctx, err, retry); retry == 0 && l.Waiting() > 0 {
			l.nudge()
		}
	}
}

// failed returns how long to wait after an error.
func (l *Library) failed(ctx context.Context, err error, before time.Duration) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	if errors.Is(err, errOften) {
		if !l.often {
			l.log.Warn("clients send new scripts all the time: they are kept for other proxies only slowly; write values into ARGV instead of the source")
		}
		l.often = true
		return oftenRetry
	}
	if err == nil {
		if l.told {
			l.log.Info("the configserver keeps scripts again")
		}
		l.told = false
		return 0
	}
	if !l.told {
		l.log.Warn("the configserver does not keep scripts now; they are remembered by this proxy and will be sent when it answers", "error", err)
	}
	l.told = true
	return min(max(2*before, 100*time.Millisecond), lastRetry)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// putWaiting puts one batch of those that were not told yet. Several that call it
// at once share batches: what comes while one is under way is in the next.
func (l *Library) putWaiting(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	if err := l.begin(ctx); err != nil {
		return err
	}
	defer l.end()
	var list []*Script
	size := 0
	l.mu.Lock()
	for e := l.order.Front(); e != nil && len(list) < maxAtOnce; e = e.Next() {
		s := e.Value.(*Script)
		if s.kept || size+len(s.Source) > maxPutBytes {
			continue
		}
		list, size = append(list, s), size+len(s.Source)
	}
	l.mu.Unlock()
	if len(list) == 0 {
		return nil
	}
	return l.putNow(ctx, list)
}

// takeUsed tells if known scripts were used since the last look.
func (l *Library) takeUsed() (used bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.scripts {
		if s.used.Load() {
			used, s.active = true, true
		}
	}
	return used
}

// check learns of flushes elsewhere.
func (l *Library) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	before := l.count()
	_, flushes, err := l.keeper.GetScripts(ctx, nil, false)
	if err != nil {
		return err
	}
	l.counted(flushes, before)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.scripts {
		s.used.Store(false)
	}
	return nil
}

// putAgain has scripts that are in use put again.
func (l *Library) putAgain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.scripts {
		if s.active {
			s.kept = false
		}
	}
}

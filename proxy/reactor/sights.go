package reactor

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/basalt-redis/basalt/proxy/software"
)

// repeatSight is how often an unchanged sight is told again.
const repeatSight = time.Second

// nodeWatch is what all loops together see of one node. The newest sight wins:
// a loop only says what just happened to it.
type nodeWatch struct {
	id        string
	current   atomic.Uint32
	lastReply atomic.Int64 // by the engine's clock; 0 never

	mu         sync.Mutex
	at         int64 // when current was seen
	err        error
	changed    bool
	reportedAt int64
	behind     []behind // by loop

	// software of the node, belongs to Engine.watchMu.
	software software.Software
}

// is tells if the sight is the one given.
func (w *nodeWatch) is(s Sight) bool { return Sight(w.current.Load()) == s }

// saw takes what a loop just saw.
func (w *nodeWatch) saw(l *loop, s Sight, err error) {
	if s == SightUnknown {
		return
	}
	w.mu.Lock()
	changed := !w.is(s)
	w.current.Store(uint32(s))
	w.at, w.err = l.sh.Now, err
	w.changed = w.changed || changed
	w.mu.Unlock()
	if changed {
		l.eng.noteSight()
	}
}

// answered says that the node just answered, if only with an error.
func (w *nodeWatch) answered(l *loop, err error) {
	if l.sh.Now > w.lastReply.Load() {
		w.lastReply.Store(l.sh.Now) // before the sight that is told with it
	}
	w.saw(l, SightOK, err)
}

// replied takes when a reply last arrived at a loop. A reply newer than the
// last bad sight makes it good again.
func (w *nodeWatch) replied(l *loop, at int64) {
	if at <= w.lastReply.Load() {
		return
	}
	w.lastReply.Store(at)
	if w.is(SightOK) {
		return
	}
	w.mu.Lock()
	newer := at > w.at
	w.mu.Unlock()
	if newer {
		w.saw(l, SightOK, nil)
	}
}

// report tells OnSight what changed, or what was not told for a while.
func (w *nodeWatch) report(now int64, tell func(string, Sight, time.Duration, Behind, error)) {
	w.mu.Lock()
	s, err := Sight(w.current.Load()), w.err
	last := w.lastReply.Load()
	// Only fresh evidence is told again: a node that nobody talks to any more is
	// neither good nor bad.
	fresh := w.at > w.reportedAt || s == SightOK && last > w.reportedAt
	due := fresh && now-w.reportedAt >= int64(repeatSight)
	if s == SightUnknown || !w.changed && !due {
		w.mu.Unlock()
		return
	}
	w.changed, w.reportedAt = false, now
	waits := w.waits(now, last)
	w.mu.Unlock()
	since := time.Duration(-1)
	if last > 0 {
		since = time.Duration(now - last)
	}
	tell(w.id, s, since, waits, err)
}

// watchOf returns the watch of a node id, the same for all loops.
func (e *Engine) watchOf(id string) *nodeWatch {
	e.watchMu.Lock()
	defer e.watchMu.Unlock()
	w := e.watches[id]
	if w == nil {
		w = &nodeWatch{id: id}
		e.watches[id] = w
	}
	return w
}

// forgetWatches drops nodes that are in no shard any more.
func (e *Engine) forgetWatches(ids map[string]bool) {
	e.watchMu.Lock()
	defer e.watchMu.Unlock()
	for id := range e.watches {
		if !ids[id] {
			delete(e.watches, id)
		}
	}
	e.chooseSoftware()
}

func (e *Engine) reportSights() {
	if e.cfg.OnSight == nil {
		return
	}
	e.watchMu.Lock()
	watches := make([]*nodeWatch, 0, len(e.watches))
	for _, w := range e.watches {
		watches = append(watches, w)
	}
	e.watchMu.Unlock()
	now := int64(time.Since(e.started))
	for _, w := range watches {
		w.report(now, e.cfg.OnSight)
	}
}

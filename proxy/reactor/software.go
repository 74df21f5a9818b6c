package reactor

import (
	"github.com/basalt-redis/basalt/proxy/software"
)

// Software is what clients are told that the servers are.
func (e *Engine) Software() software.Software { return *e.software.Load() }

// runs takes what a node says that it runs. Clients are told of the oldest of all, which
// is the least that they can rely on.
func (e *Engine) runs(w *nodeWatch, s software.Software) {
	e.watchMu.Lock()
	defer e.watchMu.Unlock()
	if w.software == s {
		return
	}
	w.software = s
	e.chooseSoftware()
}

// chooseSoftware chooses what clients are told; watchMu is held.
func (e *Engine) chooseSoftware() {
	var oldest software.Software
	for _, w := range e.watches {
		s := w.software
		if s.Version != "" && (oldest.Version == "" || s.Before(oldest)) {
			oldest = s
		}
	}
	if oldest.Version != "" && oldest != *e.software.Load() {
		e.software.Store(&oldest)
	}
}

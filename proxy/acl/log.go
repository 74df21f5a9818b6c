package acl

import (
	"strings"
	"sync"
	"time"
)

// MaxLog is the most entries a Log keeps, as acllog-max-len says by default.
const MaxLog = 128

// Log has the newest refusals: requests that a user had no right to, and logins
// that failed. Its methods may be called by any goroutine.
type Log struct {
	mu      sync.Mutex
	entries []Entry // newest first
}

// Entry is one refusal, or several of the same within a minute.
type Entry struct {
	// Count is how often it happened.
	Count int64
	// Reason why it was refused.
	Reason Verdict
	// Context is "toplevel" or "multi".
	Context string
	// Object is the key, the channel or the command; of a failed login, the
	// command that was used.
	Object string
	// User's name.
	User string
	// At is when it happened last.
	At time.Time
	// Client as CLIENT LIST describes it.
	Client string
}

// Entries within this time, among this many of the newest, count as one.
const (
	groupWithin = time.Minute
	groupAmong  = 10
	// maxKept bounds what is kept of a key or channel, and of a user's name.
	maxKept = 1 << 10
)

// Add notes a refusal; Count is set by it.
func (l *Log) Add(e Entry) {
	e.Count = 1
	e.Object, e.User = kept(e.Object), kept(e.User)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.entries[:min(len(l.entries), groupAmong)] {
		o := &l.entries[i]
		if o.Reason == e.Reason && o.Context == e.Context && o.Object == e.Object && o.User == e.User && e.At.Sub(o.At).Abs() <= groupWithin {
			e.Count += o.Count
			l.entries = append(l.entries[:i], l.entries[i+1:]...)
			break
		}
	}
	if len(l.entries) < MaxLog {
		l.entries = append(l.entries, Entry{})
	}
	copy(l.entries[1:], l.entries)
	l.entries[0] = e
}

// kept is the beginning of a text, which does not keep the rest in memory.
func kept(s string) string {
	if len(s) <= maxKept {
		return s
	}
	return strings.Clone(s[:maxKept])
}

// Entries returns up to n of the newest, newest first.
func (l *Log) Entries(n int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Entry(nil), l.entries[:min(n, len(l.entries))]...)
}

// Reset forgets all.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = nil
}

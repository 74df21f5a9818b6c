package consistency

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// keyState is what may be in one key. Only its writer moves sent and acked.
type keyState struct {
	name  string
	shard int

	mu    sync.Mutex
	sent  int64 // newest version that a write was begun for
	acked int64 // newest version acknowledged
	// floor is the newest version seen in a replica; it survives the master.
	floor int64
	// must is the newest version acknowledged or read in span mustSpan; while
	// that span lasts nothing older may be read.
	must     int64
	mustSpan int64
	// failed are versions that never left for a server.
	failed map[int64]bool
}

// model is all keys and the spans of the shards. The span number of a shard is
// even while no acknowledged write may be lost there and odd while it may;
// every change makes it one higher.
type model struct {
	keys  []*keyState
	spans []atomic.Int64

	mu         sync.Mutex
	violations []string
	count      int
}

func (m *model) violate(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.count++; m.count <= 20 {
		m.violations = append(m.violations, fmt.Sprintf(format, args...))
	}
}

// beginWrite returns the version to write next and the span it begins in.
func (m *model) beginWrite(k *keyState) (version, span int64) {
	span = m.spans[k.shard].Load()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sent++
	return k.sent, span
}

// endWrite records how the write ended. Unknown outcomes change nothing: the
// version was sent and may or may not appear.
func (m *model) endWrite(k *keyState, version, span int64, how Class) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case how == OK:
		k.acked = max(k.acked, version)
		m.raise(k, version, span)
	case how.neverSent():
		if k.failed == nil {
			k.failed = map[int64]bool{}
		}
		k.failed[version] = true
	}
}

// raise notes that version was the newest one at some time after span began.
// The caller holds k.mu.
func (m *model) raise(k *keyState, version, span int64) {
	if span%2 == 1 || m.spans[k.shard].Load() != span {
		return
	}
	if k.mustSpan != span {
		k.mustSpan, k.must = span, 0
	}
	k.must = max(k.must, version)
}

// bound is the oldest version a read that begins now may show.
type bound struct{ floor, must, span int64 }

func (m *model) beginRead(k *keyState) bound {
	span := m.spans[k.shard].Load()
	k.mu.Lock()
	defer k.mu.Unlock()
	b := bound{floor: k.floor, span: span}
	if k.mustSpan == span {
		b.must = k.must
	}
	return b
}

// endRead judges a value that was read; nil when the key was not there.
func (m *model) endRead(k *keyState, b bound, value []byte, padding int, where string) {
	var version int64
	if value != nil {
		v, err := decode(k.name, value, padding)
		if err != nil {
			m.violate("%s: %v", where, err)
			return
		}
		version = v
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	least := b.floor
	if m.spans[k.shard].Load() == b.span {
		least = max(least, b.must)
	}
	switch {
	case version > k.sent:
		m.violate("%s: key %s shows version %d, only %d were ever sent", where, k.name, version, k.sent)
	case k.failed[version]:
		m.violate("%s: key %s shows version %d, whose write failed before it was sent", where, k.name, version)
	case version < b.floor:
		m.violate("%s: key %s shows version %d after version %d was acknowledged and replicated", where, k.name, version, b.floor)
	case version < least:
		m.violate("%s: key %s shows version %d after version %d was acknowledged or read", where, k.name, version, least)
	default:
		m.raise(k, version, b.span)
	}
}

// confirm notes that a replica held this value.
func (m *model) confirm(k *keyState, value []byte, padding int, where string) {
	version, err := decode(k.name, value, padding)
	if err != nil {
		m.violate("%s: %v", where, err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if version > k.sent {
		m.violate("%s: key %s shows version %d, only %d were ever sent", where, k.name, version, k.sent)
		return
	}
	k.floor = max(k.floor, version)
}

package acl_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/proxy/acl"
)

// TestLogIsBounded: an entry keeps the beginning of a long key or name, and not
// the memory of the rest.
func TestLogIsBounded(t *testing.T) {
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := inUse()
	var l acl.Log
	for i := range acl.MaxLog {
		long := strings.Repeat(string(rune('a'+i%26)), 1<<18+i)
		l.Add(acl.Entry{Reason: acl.DeniedKey, Object: long, User: long})
	}
	if now := inUse(); now > before+8<<20 {
		t.Errorf("%d bytes are kept", now-before)
	}
	for _, e := range l.Entries(acl.MaxLog) {
		if len(e.Object) > 1024 || len(e.User) > 1024 {
			t.Errorf("an entry of %d and %d bytes", len(e.Object), len(e.User))
		}
	}
	runtime.KeepAlive(&l)
}

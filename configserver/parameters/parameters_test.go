package parameters

import (
	"strings"
	"testing"
	"time"
)

func TestKindsAndRefusals(t *testing.T) {
	const busy = 3500 * time.Millisecond
	for _, c := range []struct {
		name, value string
		kind        Kind
		refused     string // part of the reason; "" when it may be set
	}{
		{"maxmemory-policy", "allkeys-lru", Kept, ""},
		{"MaxMemory", "100mb", Kept, ""},
		{"nosuch", "1", Kept, ""},
		{"daemonize", "yes", Kept, ""}, // the server says that it is immutable
		{"repl-backlog-size", "10000002", Kept, ""},
		{"appendonly", "yes", Momentary, ""},
		{"masterauth", "s3cret", Secret, "credentials files"},
		{"requirepass", "s3cret", Secret, "credentials files"},
		{"tls-key-file-pass", "s3cret", Secret, "credentials files"},
		{"tls-cert-file", "/x", Managed, "lose the server"},
		{"port", "1", Managed, "lose the server"},
		{"slave-read-only", "no", Managed, "must not differ"},
		{"min-slaves-to-write", "1", Kept, ""},
		{"min-slaves-max-lag", "1", Kept, ""},
		{"min-replicas-max-lag", "0", Kept, "at least 1"},
		{"repl-ping-slave-period", "5", Managed, "detected"},
		{"dir", "/", Managed, "files of one server"},
		{"timeout", "10", Managed, "share"},
		{"proto-max-bulk-len", "1mb", Managed, "--max-request-bytes"},
		{"client-output-buffer-limit", "normal 1 1 1", Managed, "--client-reply-buffer-bytes"},
		{"client-output-buffer-limit", "replica 1 1 1 normal 1 1 1", Managed, "--client-reply-buffer-bytes"},
		{"client-output-buffer-limit", "", Managed, "--client-reply-buffer-bytes"},
		{"client-output-buffer-limit", "slave 512mb 128mb 60", Managed, ""},
		{"busy-reply-threshold", "3500", Kept, ""},
		{"lua-time-limit", "10", Kept, ""},
		{"lua-time-limit", "3501", Kept, "--hung-after"},
		{"lua-time-limit", "0", Kept, "--hung-after"},
		{"lua-time-limit", "abc", Kept, ""},
		{"maxclients", "999", Kept, "at least 1000"},
		{"maxclients", "1000", Kept, ""},
		{"repl-timeout", "1", Kept, "at least 10"},
	} {
		if kind := KindOf(c.name); kind != c.kind {
			t.Errorf("%s is of kind %d, want %d", c.name, kind, c.kind)
		}
		reason := Refusal(c.name, c.value, busy)
		if (reason == "") != (c.refused == "") || !strings.Contains(reason, c.refused) {
			t.Errorf("%s %s: %q, want %q", c.name, c.value, reason, c.refused)
		}
		if strings.Contains(reason, "s3cret") {
			t.Errorf("%s: the reason repeats a secret", c.name)
		}
	}
}

// Every reason is about a name that is looked up, and all names of a parameter
// are the same one.
func TestNamesAreCanonical(t *testing.T) {
	for name := range managed {
		if Canonical(name) != name {
			t.Errorf("%s is managed under an old name", name)
		}
	}
	for old, newer := range aliases {
		if Canonical(strings.ToUpper(old)) != newer || Canonical(newer) != newer {
			t.Errorf("%s and %s are not the same", old, newer)
		}
		if KindOf(old) != KindOf(newer) {
			t.Errorf("%s and %s are of different kinds", old, newer)
		}
	}
}

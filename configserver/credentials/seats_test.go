package credentials

import "testing"

// The names of users tell whose they are, and no other name does.
func TestNamesOfProxyUsers(t *testing.T) {
	for _, seat := range []Seat{{0, 1}, {3, 1}, {3, 10}, {1023, 1<<32 - 1}} {
		name := ProxyUser(7, seat)
		if got, ok := SeatOf(name, 7); !ok || got != seat || !IsProxyUser(name) {
			t.Errorf("%s is of %v, %t", name, got, ok)
		}
		if _, ok := SeatOf(name, 70); ok {
			t.Errorf("%s is of another generation", name)
		}
	}
	if ProxyUser(7, Seat{3, 1}) != "basalt-proxy-7-3-1" || ScriptUser(7) != "basalt-proxy-7" || !IsProxyUser(ScriptUser(7)) {
		t.Error(ProxyUser(7, Seat{3, 1}), ScriptUser(7))
	}
	for _, name := range []string{"", "default", "basalt-admin", "basalt-proxy", "basalt-proxy-", "basalt-proxy-7", "basalt-proxy-7-", "basalt-proxy-7-3",
		"basalt-proxy-7-3-", "basalt-proxy-7-3-1-", "basalt-proxy-7-3-1:x", "basalt-proxy-7-03-1", "basalt-proxy-07-3-1", "basalt-proxy-7-3-01", "basalt-proxy-7-+3-1",
		"basalt-proxy-7--3-1", "basalt-proxy-7-3-1x", "basalt-proxy-7:3-1", "basalt-proxy-7-3:1", "basalt-proxy-7-3-4294967296", "basalt-proxy-7-2147483648-1",
		"basalt-proxy-7-99999999999999999999-1", "x-basalt-proxy-7-3-1"} {
		if seat, ok := SeatOf(name, 7); ok {
			t.Errorf("%q is of %v", name, seat)
		}
	}
}

package monitor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	proxyAddr  = "10.0.0.1:1000"
	otherProxy = "10.0.0.2:1000"
	control    = "10.0.0.9:1000"
	fresh      = "10.0.0.3:1000"
)

func line(addr, words string) []byte {
	return []byte(fmt.Sprintf("+1339518083.107412 [0 %s] \"%s\"\r\n", addr, strings.ReplaceAll(words, " ", "\" \"")))
}

func list(users ...string) []byte {
	var b strings.Builder
	b.WriteString("$999\r\n")
	for i := 0; i < len(users); i += 2 {
		fmt.Fprintf(&b, "id=%d addr=%s laddr=10.0.0.8:6379 fd=8 name= user=%s redir=-1\n", i, users[i], users[i+1])
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// shown runs lines "address words" through a filter that knows three sources.
func shown(t *testing.T, lines ...string) (got []string) {
	t.Helper()
	f := NewFilter("basalt-proxy-3-10-1")
	f.Listed(list(proxyAddr, "basalt-proxy-3-10-1", otherProxy, "basalt-proxy-4-2-17", control, "basalt-admin"), nil)
	for _, l := range lines {
		addr, words, _ := strings.Cut(l, " ")
		if f.Take(line(addr, words), func(b []byte) { got = append(got, string(b)) }) {
			t.Errorf("%s is said to be unknown", addr)
		}
	}
	for i := range got {
		addr, words := parse([]byte(got[i]))
		got[i] = addr
		for _, w := range words {
			got[i] += " " + string(w)
		}
	}
	return got
}

func TestOwnBusinessIsNotShown(t *testing.T) {
	lines := []string{
		proxyAddr + " set k v", otherProxy + " GET k", control + " SET k v", control + " PING", control + " INFO",
		proxyAddr + " PING", proxyAddr + " SELECT 3", proxyAddr + " UNWATCH", proxyAddr + " subscribe a b", proxyAddr + " PUBSUB NUMSUB __basalt__:v0 x", proxyAddr + " CLIENT SETNAME x",
		otherProxy + " INFO server", proxyAddr + " HELLO 3 AUTH (redacted) (redacted)", proxyAddr + " SELECT 3", proxyAddr + " INFO server",
		proxyAddr + " AUTH (redacted) (redacted)", proxyAddr + " GET k", proxyAddr + " INFO",
		proxyAddr + " MULTI", proxyAddr + " PING", otherProxy + " PING", proxyAddr + " ECHO x", proxyAddr + " EXEC", proxyAddr + " PING",
		proxyAddr + " mUlTI", proxyAddr + " dIsCARD", proxyAddr + " PING",
		proxyAddr + " WATCH k", proxyAddr + " PUBLISH a b", proxyAddr + " PUBSUB CHANNELS", proxyAddr + " EVAL x 0", "lua SET k v", proxyAddr + " BRANDNEW x",
	}
	want := []string{
		proxyAddr + " set k v", otherProxy + " GET k", otherProxy + " INFO server", proxyAddr + " GET k", proxyAddr + " INFO",
		proxyAddr + " MULTI", proxyAddr + " PING", proxyAddr + " ECHO x", proxyAddr + " EXEC",
		proxyAddr + " WATCH k", proxyAddr + " PUBLISH a b", proxyAddr + " PUBSUB CHANNELS", proxyAddr + " EVAL x 0", "lua SET k v", proxyAddr + " BRANDNEW x",
	}
	if got := shown(t, lines...); !slices.Equal(got, want) {
		t.Errorf("shown:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestUnknownAddress: its lines, and all behind them, wait for the list; one that
// is not in it is judged by its commands.
func TestUnknownAddress(t *testing.T) {
	f := NewFilter("basalt-proxy-3-10-1")
	var got []string
	show := func(b []byte) {
		addr, words := parse(b)
		got = append(got, addr+" "+string(words[0]))
	}
	known := []string{proxyAddr, "basalt-proxy-3-10-1"}
	f.Listed(list(known...), show)
	for _, l := range [][2]string{{proxyAddr, "GET k"}, {fresh, "HELLO 3"}, {fresh, "INFO server"}, {fresh, "SET k v"}, {proxyAddr, "DEL k"}} {
		f.Take(line(l[0], l[1]), show)
	}
	if want := []string{proxyAddr + " GET"}; !slices.Equal(got, want) {
		t.Fatalf("before the list: %q", got)
	}
	if f.Listed(list(append(known, fresh, "basalt-proxy-4-2-17")...), show) {
		t.Error("another list is wanted though all is known")
	}
	want := []string{proxyAddr + " GET", fresh + " SET", proxyAddr + " DEL"}
	if !slices.Equal(got, want) {
		t.Fatalf("after the list: %q, want %q", got, want)
	}
	// It goes, and another takes the address.
	f.Listed(list(append(known, fresh, "basalt-admin")...), show)
	f.Take(line(fresh, "SET k v"), show)
	got = nil
	gone := "10.0.0.4:1"
	if !f.Take(line(gone, "PING"), show) || !f.Take(line(gone, "GET k"), show) || !f.Take(line(proxyAddr, "TTL k"), show) {
		t.Error("no list is wanted for an unknown address")
	}
	// The first list may have been on its way before.
	if !f.Listed(list(known...), show) || len(got) > 0 {
		t.Errorf("judged too early: %q", got)
	}
	if f.Listed(list(known...), show) {
		t.Error("a third list is wanted")
	}
	if want := []string{gone + " GET", proxyAddr + " TTL"}; !slices.Equal(got, want) {
		t.Errorf("after the second list: %q, want %q", got, want)
	}
}

// TestHeldLinesAreBounded: a list that does not come costs no more than that.
func TestHeldLinesAreBounded(t *testing.T) {
	f := NewFilter("")
	count := 0
	for range 5000 {
		f.Take(line(fresh, "SET k "+strings.Repeat("v", 1000)), func([]byte) { count++ })
	}
	if f.bytes > maxHeld || count < 3000 {
		t.Errorf("%d bytes wait, %d lines were shown", f.bytes, count)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		`+1.1 [0 127.0.0.1:5] "SET" "a b" "q\"\\" "\x00"`: `127.0.0.1:5|SET|a b|q\"\\|\x00`,
		`+1.1 [15 [::1]:5] "get" "x] \"y"`:                `[::1]:5|get|x] \"y`,
		`+1.1 [0 lua] "get"`:                              `lua|get`,
		`+1.1 [0 unix:/tmp/s] "get" ""`:                   `unix:/tmp/s|get|`,
		`+OK`:                                             ``,
		`+PONG [`:                                         ``,
		`+1.1 [0 a] "cut`:                                 `a`,
	} {
		addr, words := parse([]byte(text + "\r\n"))
		got := addr
		for _, w := range words {
			got += "|" + string(w)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

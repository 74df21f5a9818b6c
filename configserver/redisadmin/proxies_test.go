package redisadmin

import (
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// proxies are those of a generation with seats in these versions.
func proxies(generation uint64, seats ...uint32) *Proxies {
	return &Proxies{Generation: generation, Seats: seats, Key: "key", Scripts: "secret"}
}

// seatClient logs in as a seat.
func seatClient(s *redistest.Server, generation uint64, seat credentials.Seat) *redis.Client {
	return s.Client(credentials.ProxyUser(generation, seat), credentials.SeatPassword("key", seat))
}

// TestMatchProxies: what a server has is told from what it should have by the names.
func TestMatchProxies(t *testing.T) {
	p := proxies(7, 1, 3)
	right := []string{"basalt-admin", "default", "basalt-proxy-7-0-1", "basalt-proxy-7-1-3"}
	for _, tc := range []struct {
		name          string
		users         []string
		letsIn, exact bool
	}{
		{"right", right, true, true},
		{"with users of applications", append(slices.Clone(right), "basalt-proxy-7:abc", "basalt-proxy-7:7-1-3"), true, true},
		{"one is missing", right[:3], true, false},
		{"none", right[:2], false, false},
		{"of all proxies", append(slices.Clone(right), "basalt-proxy-7"), true, false},
		{"another version", append(slices.Clone(right), "basalt-proxy-7-1-2"), true, false},
		{"another seat", append(slices.Clone(right), "basalt-proxy-7-2-1"), true, false},
		{"another generation", append(slices.Clone(right), "basalt-proxy-70-0-1"), true, false},
		{"another generation's application", append(slices.Clone(right), "basalt-proxy-70:abc"), true, false},
		{"no name of ours", append(slices.Clone(right), "basalt-proxy-x"), true, false},
		{"only another generation", []string{"basalt-proxy-6-0-1", "basalt-proxy-6-1-3"}, false, false},
	} {
		letsIn, exact := p.Match(tc.users)
		if letsIn != tc.letsIn || exact != tc.exact {
			t.Errorf("%s: %t, %t", tc.name, letsIn, exact)
		}
		if stale := p.stale(tc.users); tc.exact && len(stale) > 0 || len(tc.users) > len(right) && !tc.exact && !slices.Equal(stale, tc.users[len(right):]) {
			t.Errorf("%s: stale are %q", tc.name, stale)
		}
	}
	leaving := proxies(7, 1, 3)
	leaving.Leaving = []credentials.Seat{{Number: 1, Version: 2}}
	if _, exact := leaving.Match(append(slices.Clone(right), "basalt-proxy-7-1-2")); !exact {
		t.Error("one that is leaving may not stay")
	}
	if _, exact := leaving.Match(append(slices.Clone(right), "basalt-proxy-6-1-2")); exact {
		t.Error("one that is leaving may stay in another generation")
	}
	alone := proxies(7, 1, 3)
	alone.Alone = true
	if stale := alone.stale(append(slices.Clone(right), "basalt-proxy-7:abc")); !slices.Equal(stale, []string{"basalt-proxy-7:abc"}) {
		t.Errorf("stale are %q", stale)
	}
	if all := (*Proxies)(nil).stale(append(slices.Clone(right), "basalt-proxy-7:abc", "basalt-proxy-7", "basalt-proxy-")); len(all) != 5 {
		t.Errorf("of all proxies: %q", all)
	}
}

// TestOneProxyIsShutOut: it loses its connection and its password, and nobody else
// notices.
func TestOneProxyIsShutOut(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	c := dialTest(t, s)
	if err := c.OnlyProxies(t.Context(), proxies(7, 1, 1)); err != nil {
		t.Fatal(err)
	}
	one, other := seatClient(s, 7, credentials.Seat{Number: 0, Version: 1}).Conn(), seatClient(s, 7, credentials.Seat{Number: 1, Version: 1}).Conn()
	defer one.Close()
	defer other.Close()
	for _, conn := range []*redis.Conn{one, other} {
		if err := conn.Set(t.Context(), "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	before := other.ClientID(t.Context()).Val()
	if err := c.OnlyProxies(t.Context(), proxies(7, 2, 1)); err != nil {
		t.Fatal(err)
	}
	if err := one.Get(t.Context(), "k").Err(); err == nil {
		t.Error("it still reads")
	}
	if now := other.ClientID(t.Context()).Val(); now != before || now == 0 {
		t.Errorf("the other one has connection %d after %d", now, before)
	}
	for seat, want := range map[credentials.Seat]bool{{Number: 0, Version: 1}: false, {Number: 0, Version: 2}: true, {Number: 1, Version: 1}: true} {
		again := seatClient(s, 7, seat)
		if err := again.Ping(t.Context()).Err(); (err == nil) != want {
			t.Errorf("%v: %v", seat, err)
		}
		_ = again.Close()
	}
	users, err := c.Users(t.Context())
	if _, exact := proxies(7, 2, 1).Match(users); !exact || err != nil {
		t.Errorf("%q, %v", users, err)
	}
	// What is there already is not made again.
	commands := proxies(7, 2, 1, 1).missing(users)
	if len(commands) != 1 || commands[0][2] != "basalt-proxy-7-2-1" {
		t.Errorf("makes %v", commands)
	}
	// Nor is what nobody has, for now.
	p := proxies(7, 2, 1, 1, 1)
	p.Held = []int{0, 3}
	if commands := p.missing(users); len(commands) != 1 || commands[0][2] != "basalt-proxy-7-3-1" {
		t.Errorf("makes %v", commands)
	}
}

// TestProxyRules: what a proxy may do of CONFIG, in rules that every server takes.
func TestProxyRules(t *testing.T) {
	for _, rule := range proxyRules {
		if rule := rule.(string); strings.HasPrefix(rule, "-") && strings.Contains(rule, "|") {
			t.Errorf("a server before 7.0 refuses %q", rule)
		}
	}
	s := redistest.Start(t, redistest.Options{})
	if err := dialTest(t, s).OnlyProxies(t.Context(), proxies(7, 1)); err != nil {
		t.Fatal(err)
	}
	c := seatClient(s, 7, credentials.Seat{Number: 0, Version: 1})
	defer c.Close()
	for command, want := range map[string]bool{"get maxmemory": true, "resetstat": true, "set maxmemory 0": false, "rewrite": false} {
		args := []any{"config"}
		for word := range strings.FieldsSeq(command) {
			args = append(args, word)
		}
		err := c.Do(t.Context(), args...).Err()
		if err != nil && !strings.Contains(err.Error(), "NOPERM") || (err == nil) != want {
			t.Errorf("config %s: %v", command, err)
		}
	}
}

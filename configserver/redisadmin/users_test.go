package redisadmin

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/internal/redistest"
)

func text(t *testing.T, name string, modifiers ...string) string {
	t.Helper()
	u := acl.NewUser(name)
	if err := u.Apply(modifiers); err != nil {
		t.Fatal(err)
	}
	return u.Text()
}

// TestNodeUsers: those with limits who may run scripts have one, whatever their
// names and passwords.
func TestNodeUsers(t *testing.T) {
	one := text(t, "one", "on", ">pw", "~a:*", "+@all")
	users := NodeUsers([]string{one, text(t, "same", "nopass", "~a:*", "+@all"), text(t, "full", "~*", "&*", "+@all"), text(t, "plain", "~a", "+@read"),
		text(t, "selector", "(~b +fcall)"), "user broken on +nosuch"})
	if len(users) != 2 || !slices.IsSortedFunc(users, func(a, b NodeUser) int { return strings.Compare(a.Rights, b.Rights) }) ||
		!slices.ContainsFunc(users, func(u NodeUser) bool { return u.Rights == acl.Rights(one) }) {
		t.Errorf("%+v", users)
	}
}

// TestGrantUsers: what a script may do at a real server, who may log in, and what a
// fence leaves.
func TestGrantUsers(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	c := dialTest(t, s)
	rules := text(t, "app", "on", ">of-the-application", "~a:*", `(~"q\"()*" +@all)`, "+@all", "-set")
	later := slices.IndexFunc(acl.Commands(), func(c acl.Command) bool { return c.Later })
	odd := text(t, "odd", "~a:*", "+eval", "+get", "+"+acl.Commands()[later].Name)
	users := NodeUsers([]string{rules, odd})
	p := proxies(7, 1)
	p.Users = users
	if err := c.GrantProxies(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	has, err := c.Users(t.Context())
	if missing, surplus := MatchUsers(has, 7, users); err != nil || len(missing)+len(surplus) > 0 {
		t.Fatalf("missing %v, surplus %v, %v", missing, surplus, err)
	}
	name := acl.NodeUser("basalt-proxy-7", acl.Rights(rules))
	for _, password := range []string{"of-the-application", "wrong", "", credentials.SeatPassword(p.Key, credentials.Seat{Version: 1})} {
		other := s.Client(name, password)
		if err := other.Ping(t.Context()).Err(); err == nil || !strings.HasPrefix(err.Error(), "WRONGPASS") && !strings.HasPrefix(err.Error(), "NOAUTH") {
			t.Errorf("with %q: %v", password, err)
		}
		_ = other.Close()
	}
	app := s.Client(name, "secret").Conn()
	defer app.Close()
	eval := func(script string) string {
		v, err := app.Eval(t.Context(), script, nil).Result()
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(v)
	}
	for script, want := range map[string]string{
		"return redis.call('incr', 'a:1')":                   "1",
		"return redis.call('incr', 'b')":                     "can't access at least one of the keys",
		"return redis.call('set', 'a:1', 2)['ok']":           "can't access at least one of the keys", // by the selector
		`return redis.call('set', 'q"()x', 2)['ok']`:         "OK",
		"return redis.call('swapdb', 0, 1)":                  "can't run this command",
		"return redis.call('migrate', 'h', 1, 'a:1', 0, 1)":  "can't run this command",
		"return redis.call('cluster', 'info')":               "can't run this command",
		"return redis.call('acl', 'setuser', 'x')":           "not allowed from script",
		"return redis.call('config', 'set', 'maxmemory', 1)": "not allowed from script",
		"return redis.call('script', 'load', 'return 1')":    "not allowed from script",
		"return redis.call('multi')":                         "not allowed from script",
		"return redis.call('exec')":                          "not allowed from script",
		"return redis.call('watch', 'a:1')":                  "not allowed from script",
		"return redis.call('client', 'caching', 'yes')":      "not allowed from script",
	} {
		if got := eval(script); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", script, got, want)
		}
	}
	if err := app.Do(t.Context(), "ACL", "WHOAMI").Err(); err == nil {
		t.Error("a user of an application may use ACL at a server")
	}
	// Rights that nobody has any more are removed, others stay.
	has, _ = c.Users(t.Context())
	missing, surplus := MatchUsers(has, 7, NodeUsers([]string{odd, text(t, "new", "~n", "+eval")}))
	if len(missing) != 1 || !slices.Equal(surplus, []string{name}) {
		t.Errorf("missing %v, surplus %q", missing, surplus)
	}
	odds := s.Client(acl.NodeUser("basalt-proxy-7", acl.Rights(odd)), "secret").Conn()
	defer odds.Close()
	if err := odds.Eval(t.Context(), "return 1", nil).Err(); err != nil {
		t.Error(err)
	}
	if err := c.RevokeUsers(t.Context(), surplus); err != nil {
		t.Error(err)
	}
	if got := eval("return 1"); got == "1" {
		t.Error("a script ran as a user that was removed")
	}
	if err := odds.Eval(t.Context(), "return 1", nil).Err(); err != nil {
		t.Error(err)
	}
	// A fence is one for all.
	if _, err := c.RevokeProxies(t.Context(), proxies(8, 1)); err != nil {
		t.Error(err)
	}
	if err := odds.Eval(t.Context(), "return 1", nil).Err(); err == nil {
		t.Error("a script ran after its generation was revoked")
	}
	if has, _ = c.Users(t.Context()); len((*Proxies)(nil).stale(has)) > 0 {
		t.Errorf("left: %q", has)
	}
}

// TestGrantUsersRefused: one that the server does not take is in nobody's way.
func TestGrantUsersRefused(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	c := dialTest(t, s)
	users := []NodeUser{{Rights: "bad", rules: []string{"+nosuchcommand"}}, {Rights: "good", rules: []string{"+eval"}}}
	refused, err := c.GrantUsers(t.Context(), 7, "secret", users)
	if err != nil || len(refused) != 1 || !strings.Contains(refused[0], "nosuchcommand") {
		t.Errorf("%q, %v", refused, err)
	}
	p := proxies(7, 1)
	p.Users = users
	if err := c.GrantProxies(t.Context(), p); err != nil {
		t.Error(err)
	}
	has, err := c.Users(t.Context())
	if !slices.Contains(has, "basalt-proxy-7:good") || slices.Contains(has, "basalt-proxy-7:bad") {
		t.Errorf("%q, %v", has, err)
	}
}

package acl_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/acl"
)

// TestModifiers make a user with the same rights, whatever they are.
func TestModifiers(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	rule := func() string {
		pattern := pick("*", "a", "a*", `q"x`, `it's`, `b\`, "(x", "x)", "é\xff", "", "[^a]*")
		return pick("~", "%R~", "%W~", "&", "~", "+@", "-@", "+", "-", "+", "-") + "|" + pattern
	}
	words := func() (list []string) {
		for range 1 + r.IntN(6) {
			sign, pattern, _ := strings.Cut(rule(), "|")
			switch sign {
			case "+@", "-@":
				pattern = pick("all", "read", "write", "scripting", "dangerous")
			case "+", "-":
				pattern = pick("get", "set", "eval", "config|get", "client")
				if sign == "+" && r.IntN(3) == 0 {
					pattern = pick("select|0", "get|a")
				}
			}
			list = append(list, sign+pattern)
		}
		return list
	}
	for range 2000 {
		u := acl.NewUser("u")
		for _, w := range words() {
			_ = u.Apply([]string{w}) // some do not fit behind others
		}
		if r.IntN(2) == 0 {
			list := words()
			if !slices.ContainsFunc(list, func(w string) bool { return strings.ContainsAny(w, ` "'\()`) }) {
				_ = u.Apply([]string{"(" + strings.Join(list, " ") + ")"})
			} else if err := u.Apply([]string{`(~"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(list[0][1:]) + `" +get)`}); err != nil {
				continue
			}
		}
		again := acl.NewUser("u")
		if err := again.Apply(u.Modifiers(nil)); err != nil || again.Text() != u.Text() {
			t.Fatalf("%s\nbecomes\n%s (%v)\nby %q", u.Text(), again.Text(), err, u.Modifiers(nil))
		}
		if acl.Rights(again.Text()) != acl.Rights(u.Text()) {
			t.Fatalf("%s: rights have two names", u.Text())
		}
	}
}

// TestModifiersOfOldServers leave out commands that those do not know.
func TestModifiersOfOldServers(t *testing.T) {
	u := acl.NewUser("u")
	later := acl.Commands()[slices.IndexFunc(acl.Commands(), func(c acl.Command) bool { return c.Later })].Name
	if err := u.Apply([]string{"~k", "+get", "+" + later, "(~j +eval)"}); err != nil {
		t.Fatal(err)
	}
	got := u.Modifiers(func(c acl.Command) bool { return !c.Later }, "-acl")
	if want := []string{"~k", "resetchannels", "-@all", "+get", "-acl", "(~j resetchannels -@all +eval -acl)"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestRights: rights have the same name whoever has them.
func TestRights(t *testing.T) {
	sum := strings.Repeat("a", 64)
	same := []string{"user a on nopass ~k resetchannels -@all +get", "user b off #" + sum + " ~k resetchannels -@all +get",
		"user on on sanitize-payload #" + sum + " #" + sum + " ~k resetchannels -@all +get"}
	for _, text := range same {
		if acl.Rights(text) != acl.Rights(same[0]) {
			t.Errorf("%s has other rights", text)
		}
	}
	for _, text := range []string{"user a on ~k resetchannels -@all +set", "user a on ~kresetchannels -@all +get", "user a on ~k resetchannels -@all (+get)"} {
		if acl.Rights(text) == acl.Rights(same[0]) {
			t.Errorf("%s has the same rights", text)
		}
	}
}

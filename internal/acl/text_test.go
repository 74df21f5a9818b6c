package acl_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/acl"
)

// What is taken from a Text for ACL LIST is what Describe works out.
func TestPlainRulesAreTheDescription(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	plain := 0
	for range 3000 {
		u := acl.NewUser("u")
		for range 1 + r.IntN(3) {
			_ = u.Apply(modifiers(r)) // those that are wrong change nothing
		}
		rules, ok := acl.PlainRules(u.Text())
		if ok {
			plain++
		}
		if ok && rules != u.Describe() {
			t.Fatalf("%s\nis described as %s", u.Text(), u.Describe())
		}
	}
	if plain < 1000 || plain == 3000 {
		t.Errorf("%d of 3000 users are plain", plain)
	}
	if _, ok := acl.PlainRules("user x"); ok {
		t.Error("no rules are taken for rules")
	}
}

// A change that says as much as it may does not keep a loop from its clients for
// long.
func TestLongChangesTakeShort(t *testing.T) {
	words := []string{"("}
	for len(words) < acl.MaxModifiers-1 {
		words = append(words, "+get")
	}
	words = append(words, ")")
	for name, word := range map[string]func(i int) string{
		"selector":  func(i int) string { return words[i] },
		"passwords": func(i int) string { return ">" + string(rune('a'+i%26)) + time.Duration(i).String() },
	} {
		var modifiers []string
		for i := range acl.MaxModifiers {
			modifiers = append(modifiers, word(i))
		}
		begun := time.Now()
		if err := acl.NewUser("u").Apply(modifiers); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if acl.TooMany(modifiers) != "" || acl.TooMany(append(modifiers, "on")) == "" {
			t.Errorf("%s: the bound is not at %d", name, acl.MaxModifiers)
		}
	}
}

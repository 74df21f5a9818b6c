package glob

import (
	"strings"
	"testing"
)

func TestFold(t *testing.T) {
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", false}, {"", "", true}, {"", "a", false}, {"a", "", false}, {"max*", "maxmemory", true}, {"*mem*", "maxmemory-policy", true},
		{"MAXclients", "maxclients", true}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"h[sg]et", "hget", true}, {"h[^s]et", "hset", false},
		{"h[a-g]et", "hget", true}, {"h[g-a]et", "hget", true}, {"h[a-f]et", "hget", false}, {`a\*c`, "a*c", true}, {`a\*c`, "abc", false},
		{"a*b*c", "axxbyybzc", true}, {"a*b*c", "axxc", false}, {"[abc", "c", true}, {`[\]]`, "]", true}, {"**a**", "bab", true}, {`a\`, `a\`, true},
		{strings.Repeat("*a", 50), strings.Repeat("a", 10000) + "b", false},
	} {
		if got := Fold(tc.pattern, tc.text); got != tc.want {
			t.Errorf("Fold(%q, %.20q) = %v", tc.pattern, tc.text, got)
		}
	}
}

// TestMatch: letters of another case are other letters.
func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"news.*", "news.art", true}, {"News.*", "news.art", false}, {"[A-Z]", "a", false}, {"h[^E]llo", "hello", true},
		{"__keyspace@?__:*", "__keyspace@0__:k", true}, {`\*`, "*", true}, {`\*`, "a", false}, {"?", "\xff", true},
	} {
		if got := Match(tc.pattern, tc.text); got != tc.want {
			t.Errorf("Match(%q, %q) = %v", tc.pattern, tc.text, got)
		}
	}
}

package acl

import (
	"math"
	"slices"
	"strings"
)

// Describe is the user's line in ACL LIST behind "user <name> ".
func (u *User) Describe() string { return u.join(plain) }

// Flags are the words of ACL GETUSER's flags.
func (u *User) Flags() []string {
	flags := []string{"off"}
	if u.On {
		flags[0] = "on"
	}
	if u.NoPass {
		flags = append(flags, "nopass")
	}
	switch u.Sanitize {
	case SkipPayload:
		flags = append(flags, "skip-sanitize-payload")
	case SanitizePayload:
		flags = append(flags, "sanitize-payload")
	}
	return flags
}

// join writes the user's rules in Redis's order.
func (u *User) join(write writer) string {
	words := u.Flags()
	for _, p := range u.Passwords {
		words = append(words, "#"+p)
	}
	for i := range u.Selectors {
		text := u.Selectors[i].join(write)
		if i > 0 {
			text = "(" + text + ")"
		}
		words = append(words, text)
	}
	return strings.Join(words, " ")
}

func (s *Selector) join(write writer) string {
	var words []string
	if s.AllKeys {
		words = append(words, "~*")
	}
	for _, k := range s.Keys {
		words = append(words, write.keys(k))
	}
	if s.AllChannels {
		words = append(words, "&*")
	} else {
		words = append(words, "resetchannels")
	}
	for _, c := range s.Channels {
		words = append(words, write.word("&"+c))
	}
	for _, rule := range s.commandRules() {
		words = append(words, write.word(rule))
	}
	return strings.Join(words, " ")
}

// writer is how patterns and words are written.
type writer struct {
	keys func(KeyPattern) string
	word func(string) string
}

// plain is Redis's way.
var plain = writer{keys: KeyPattern.String, word: func(s string) string { return s }}

// String is the rule as ACL LIST shows it.
func (k KeyPattern) String() string {
	switch {
	case k.Read && k.Write:
		return "~" + k.Pattern
	case k.Read:
		return "%R~" + k.Pattern
	default:
		return "%W~" + k.Pattern
	}
}

// DescribeKeys are the key rules as ACL GETUSER shows them.
func (s *Selector) DescribeKeys() string {
	if s.AllKeys {
		return "~*"
	}
	var words []string
	for _, k := range s.Keys {
		words = append(words, k.String())
	}
	return strings.Join(words, " ")
}

// DescribeChannels are the channel rules as ACL GETUSER shows them.
func (s *Selector) DescribeChannels() string {
	if s.AllChannels {
		return "&*"
	}
	var words []string
	for _, c := range s.Channels {
		words = append(words, "&"+c)
	}
	return strings.Join(words, " ")
}

// DescribeCommands are the command rules as ACL GETUSER shows them.
func (s *Selector) DescribeCommands() string { return strings.Join(s.commandRules(), " ") }

// commandRules finds a short list of rules that allow exactly what the selector
// does, in the way Redis does, so that the texts are the same:
//
//  1. Begin with +@all when commands of later versions are allowed, else -@all.
//  2. While there is a category of which more commands are as in the selector
//     than not, take the one with the fewest that are not, of several the one
//     with the most that are, each category once. What it changes is taken off
//     the selector's rest.
//  3. Correct the commands that are still different, by name, a container
//     before its subcommands. Redis does it in the order of its hash table.
//  4. Behind each command that is not allowed, its first arguments that are.
func (s *Selector) commandRules() []string {
	rules, sign, opposite := []string{"-@all"}, "+@", "-@"
	if s.future {
		rules, sign, opposite = []string{"+@all"}, "-@", "+@"
	}
	made, rest := newSelector(), newSelector()
	made.apply(rules[0])
	rest.allowed = slices.Clone(s.allowed)
	for applied := 0; ; {
		best := rest.bestCategory(applied, !s.future)
		if best < 0 {
			break
		}
		applied |= 1 << best
		made.apply(sign + categories[best])
		rest.apply(opposite + categories[best])
		rules = append(rules, sign+categories[best])
	}
	for id := range commands {
		on := s.allowed.has(id)
		if on != made.allowed.has(id) {
			made.set(id, on)
			rules = append(rules, map[bool]string{true: "+", false: "-"}[on]+commands[id].Name)
		}
		if !on {
			for _, word := range s.firstArgs[id] {
				rules = append(rules, "+"+commands[id].Name+"|"+word)
			}
		}
	}
	return rules
}

// bestCategory is step 2; -1 when no category is left that helps.
func (s *Selector) bestCategory(applied int, additive bool) int {
	best, fewest, most := -1, math.MaxInt, 0
	for i := range categories {
		if applied&(1<<i) != 0 {
			continue
		}
		on, off := 0, 0
		for id := range commands {
			if commands[id].Categories&(1<<i) != 0 && !commands[id].Later {
				if s.allowed.has(id) {
					on++
				} else {
					off++
				}
			}
		}
		same, different := on, off
		if !additive {
			same, different = off, on
		}
		if same > different && (different < fewest || different == fewest && same > most) {
			best, fewest, most = i, different, same
		}
	}
	return best
}

package acl

import (
	"fmt"
	"strings"
)

// Text is the line that is stored and sent: "user <name> <rules>". It is plain
// ASCII, in which words are separated by one space, selectors stand in
// parentheses, and everything else that is not a visible ASCII character, or
// could be mistaken for a parenthesis, is written \xHH. An empty name is "\".
func (u *User) Text() string {
	name := escape(u.Name)
	if name == "" {
		name = `\`
	}
	return "user " + name + " " + u.join(exact)
}

// exactAll is the pattern * for reading and writing, in a Text.
const exactAll = "%RW~*"

var exact = writer{
	keys: func(k KeyPattern) string {
		if k.Pattern == "*" && k.Read && k.Write {
			return exactAll // ~* is the rule that allows all keys
		}
		return escape(k.String())
	},
	word: func(s string) string {
		if s == "&*" {
			return s
		}
		return escape(s)
	},
}

// Parse reads a Text. An unknown command is an error: whoever reads must then
// not take the user for one with fewer limits.
func Parse(text string) (*User, error) {
	words := strings.Split(text, " ")
	if len(words) < 3 || words[0] != "user" {
		return nil, fmt.Errorf("not the text of a user: it must begin with \"user\", a name and rules")
	}
	name := words[1]
	if name == `\` {
		name = ""
	}
	u := NewUser(unescapeWord(name))
	if !ValidName(u.Name) {
		return nil, fmt.Errorf("a user's name has white space or NUL in it")
	}
	at := -1 // of the selector that is open
	for _, word := range words[2:] {
		last := false
		if at >= 0 {
			word, last = strings.CutSuffix(word, ")")
		} else if rest, first := strings.CutPrefix(word, "("); first {
			u.Selectors = append(u.Selectors, newSelector())
			at = len(u.Selectors) - 1
			word, last = strings.CutSuffix(rest, ")")
		}
		var reason string
		rule := unescapeWord(word)
		switch {
		case at >= 0:
			reason = u.Selectors[at].apply(rule)
		case rule == "":
			reason = reasonSyntax
		default:
			reason = u.apply(rule)
		}
		if reason != "" {
			if strings.HasPrefix(rule, "#") || strings.HasPrefix(rule, "!") {
				word = "(redacted)"
			}
			return nil, fmt.Errorf("user %q: rule %q: %s", u.Name, word, reason)
		}
		if last {
			at = -1
		}
	}
	if at >= 0 {
		return nil, fmt.Errorf("user %q: a selector is not closed", u.Name)
	}
	return u, nil
}

// PlainRules are the rules of a Text as Describe would write them, which takes a
// user some 0.1 ms to work out; ok is false when they are written differently.
func PlainRules(text string) (rules string, ok bool) {
	words := strings.SplitN(text, " ", 3)
	if len(words) < 3 || strings.Contains(words[2], `\`) || strings.Contains(words[2], exactAll) {
		return "", false
	}
	return words[2], true
}

// escape writes \xHH for what is no visible ASCII character, for parentheses
// and for \.
func escape(s string) string {
	special := func(c byte) bool { return c <= ' ' || c >= 0x7f || c == '(' || c == ')' || c == '\\' }
	clean := true
	for i := range len(s) {
		clean = clean && !special(s[i])
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if special(s[i]) {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// unescapeWord is the opposite of escape.
func unescapeWord(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' && hexDigit(s[i+2]) >= 0 && hexDigit(s[i+3]) >= 0 {
			b.WriteByte(byte(hexDigit(s[i+2])<<4 | hexDigit(s[i+3])))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// NameOf is the name of the user that a Text is about, also of one that Parse
// does not understand; "" when there is none.
func NameOf(text string) string {
	words := strings.SplitN(text, " ", 3)
	if len(words) < 2 || words[0] != "user" || words[1] == `\` {
		return ""
	}
	return unescapeWord(words[1])
}

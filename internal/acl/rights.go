package acl

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// A user with limits runs its scripts at the servers as a user of the servers,
// which stands for what it may do (see NodeUser).

// rightsVersion is part of Rights. It changes when servers are told of the same
// rights in another way.
const rightsVersion = "1"

// Rights names what a user may do, by its Text: it is the same for two texts that
// differ in the name, the passwords, and whether one may log in at most. It is made
// of the bytes of the text alone, so that everybody who has the text finds the same
// name, whichever commands it knows.
func Rights(text string) string {
	words := strings.Split(text, " ")
	sum := sha256.New()
	sum.Write([]byte(rightsVersion))
	for _, word := range words[min(2, len(words)):] {
		switch word {
		case "on", "off", "nopass", "sanitize-payload", "skip-sanitize-payload":
			continue
		}
		if !strings.HasPrefix(word, "#") {
			sum.Write([]byte(" " + word))
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// NodeUser is the name at a server of the user that has these Rights. proxies is what
// the names of all proxies' users of a generation begin with; it goes as far as ":".
func NodeUser(proxies, rights string) string { return proxies + ":" + rights }

// scripting are the commands that run code in a server.
var scripting = []string{"eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"}

// RunsScripts tells if the user may run scripts or functions, some at least.
func (u *User) RunsScripts() bool {
	for i := range u.Selectors {
		for _, name := range scripting {
			if id := lookup(name); u.Selectors[i].allowed.has(id) || len(u.Selectors[i].firstArgs[id]) > 0 {
				return true
			}
		}
	}
	return false
}

// Modifiers are the rights of the user as arguments of ACL SETUSER, for a user that
// has none yet: without whether it is on, and without passwords. Each selector gets
// the rules of also at its end. known tells which commands may be named; nil for all.
func (u *User) Modifiers(known func(Command) bool, also ...string) []string {
	var words []string
	for i := range u.Selectors {
		rules := append(u.Selectors[i].modifiers(known), also...)
		if i == 0 {
			words = rules
			continue
		}
		for j, rule := range rules {
			rules[j] = quote(rule)
		}
		words = append(words, "("+strings.Join(rules, " ")+")")
	}
	return words
}

func (s *Selector) modifiers(known func(Command) bool) (words []string) {
	if s.AllKeys {
		words = append(words, "~*")
	}
	for _, k := range s.Keys {
		rule := k.String()
		if rule == "~*" { // which allows all keys
			rule = "%RW~*"
		}
		words = append(words, rule)
	}
	words = append(words, "resetchannels")
	if s.AllChannels {
		words = append(words, "&*")
	}
	for _, c := range s.Channels {
		words = append(words, "&"+c)
	}
	for _, rule := range s.commandRules() {
		name := rule[1:]
		if id := lookup(name); id < 0 { // a category, or a command with a first argument
			name, _, _ = strings.Cut(name, "|")
		}
		if id := lookup(name); id >= 0 && known != nil && !known(commands[id]) {
			continue
		}
		words = append(words, rule)
	}
	return words
}

// quote writes a word between parentheses so that splitArgs finds it again.
func quote(word string) string {
	plain := true
	for i := range len(word) {
		plain = plain && word[i] > ' ' && word[i] < 0x7f && strings.IndexByte(`"'\()`, word[i]) < 0
	}
	if plain && word != "" {
		return word
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(word) {
		fmt.Fprintf(&b, `\x%02x`, word[i])
	}
	b.WriteByte('"')
	return b.String()
}

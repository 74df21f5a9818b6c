package acl

import (
	"fmt"
	"slices"
	"strings"
)

// Reasons why a modifier is refused, in Redis's words.
const (
	reasonUnknown   = "Unknown command or category name in ACL"
	reasonSyntax    = "Syntax error"
	reasonAllKeys   = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns"
	reasonAllChans  = "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels"
	reasonNoSuch    = "The password you are trying to remove from the user does not exist"
	reasonHash      = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
	reasonFirstArg  = "Allowing first-arg of a subcommand is not supported"
	unmatchedBefore = "Unmatched parenthesis in acl selector starting at '"
)

// Error says which modifier of ACL SETUSER is wrong. Its text is Redis's; it
// repeats the modifier, which may be a password: show it to nobody but who typed
// it.
type Error struct {
	// Modifier as it was given.
	Modifier string
	// Reason in Redis's words; empty for an unmatched parenthesis.
	Reason string
}

// Error is Redis's text, without "ERR".
func (e *Error) Error() string {
	if e.Reason == "" {
		return unmatchedBefore + e.Modifier + "'."
	}
	return "Error in ACL SETUSER modifier '" + e.Modifier + "': " + e.Reason
}

// ValidName tells if a user may have this name: it must not contain white space
// or NUL.
func ValidName(name string) bool { return !hasSpaces(name) }

func hasSpaces(s string) bool { return strings.ContainsAny(s, " \t\n\v\f\r\x00") }

// MaxModifiers and MaxModifierBytes bound what one change of a user may say: each
// modifier is compared with those before it.
const (
	MaxModifiers     = 2000
	MaxModifierBytes = 256 << 10
)

// TooMany says that there are more words than a change may have, else "".
func TooMany(words []string) string {
	n := 0
	for _, word := range words {
		n += len(word)
	}
	if len(words) > MaxModifiers || n > MaxModifierBytes {
		return fmt.Sprintf("%d words of %d bytes, at most %d of %d bytes are taken at once", len(words), n, MaxModifiers, MaxModifierBytes)
	}
	return ""
}

// Merge joins modifiers of a selector that was given in several words,
// "(~a", "+get)", as Redis does. The error is an *Error.
func Merge(words []string) ([]string, error) {
	var merged []string
	start := -1
	for i, word := range words {
		closes := strings.HasSuffix(word, ")")
		switch {
		case strings.HasPrefix(word, "(") && !closes:
			start = i
		case start >= 0:
			if closes {
				merged = append(merged, strings.Join(words[start:i+1], " "))
				start = -1
			}
		default:
			merged = append(merged, word)
		}
	}
	if start >= 0 {
		return nil, &Error{Modifier: words[start]}
	}
	return merged, nil
}

// Hashed returns modifiers that were merged and are valid in a form without
// passwords: those are replaced by their sums.
func Hashed(modifiers []string) []string {
	hashed := slices.Clone(modifiers)
	for i, m := range hashed {
		switch {
		case strings.HasPrefix(m, ">"):
			hashed[i] = "#" + HashOf(m[1:])
		case strings.HasPrefix(m, "<"):
			hashed[i] = "!" + HashOf(m[1:])
		}
	}
	return hashed
}

// SetsPasswords tells if one of the modifiers changes how one authenticates.
func SetsPasswords(modifiers []string) bool {
	return slices.ContainsFunc(modifiers, func(m string) bool {
		if m == "" {
			return false
		}
		return strings.IndexByte("><#!", m[0]) >= 0 || fold("nopass", m) || fold("resetpass", m) || fold("reset", m)
	})
}

// Apply changes the user by modifiers of ACL SETUSER, all or none. The error is
// an *Error.
func (u *User) Apply(modifiers []string) error {
	merged, err := Merge(modifiers)
	if err != nil {
		return err
	}
	next := u.Clone()
	for _, m := range merged {
		if reason := next.apply(m); reason != "" {
			return &Error{Modifier: m, Reason: reason}
		}
	}
	*u = *next
	return nil
}

// apply changes the user by one modifier; it returns why not.
func (u *User) apply(op string) (reason string) {
	if op == "" {
		return ""
	}
	switch op[0] {
	case '>', '#', '<', '!':
		return u.password(op)
	case '(':
		if strings.HasSuffix(op, ")") {
			return u.addSelector(op[1 : len(op)-1])
		}
	}
	switch lower(op) {
	case "on":
		u.On = true
	case "off":
		u.On = false
	case "skip-sanitize-payload":
		u.Sanitize = SkipPayload
	case "sanitize-payload":
		u.Sanitize = SanitizePayload
	case "nopass":
		u.NoPass, u.Passwords = true, nil
	case "resetpass":
		u.NoPass, u.Passwords = false, nil
	case "clearselectors":
		u.Selectors = u.Selectors[:1]
	case "reset":
		*u = *NewUser(u.Name)
		u.Sanitize = SanitizePayload
	default:
		return u.Selectors[0].apply(op)
	}
	return ""
}

func (u *User) password(op string) (reason string) {
	sum := op[1:]
	if op[0] == '>' || op[0] == '<' {
		sum = HashOf(sum)
	} else if len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
		return reasonHash
	}
	at := slices.Index(u.Passwords, sum)
	switch {
	case op[0] == '>' || op[0] == '#':
		if u.NoPass = false; at < 0 {
			u.Passwords = append(u.Passwords, sum)
		}
	case at < 0:
		return reasonNoSuch
	default:
		u.Passwords = slices.Delete(u.Passwords, at, at+1)
	}
	return ""
}

// addSelector adds the rules between a pair of parentheses.
func (u *User) addSelector(rules string) (reason string) {
	s := newSelector()
	// Of a text with an open quote Redis takes nothing, and does not complain.
	words, _ := splitArgs(rules)
	for _, word := range words {
		if reason := s.apply(word); reason != "" {
			return reason
		}
	}
	u.Selectors = append(u.Selectors, s)
	return ""
}

// apply changes a selector by one rule.
func (s *Selector) apply(op string) (reason string) {
	switch lower(op) {
	case "allkeys", "~*":
		s.AllKeys, s.Keys = true, nil
		return ""
	case "resetkeys":
		s.AllKeys, s.Keys = false, nil
		return ""
	case "allchannels", "&*":
		s.AllChannels, s.Channels = true, nil
		return ""
	case "resetchannels":
		s.AllChannels, s.Channels = false, nil
		return ""
	case "allcommands", "+@all", "nocommands", "-@all":
		on := op[0] == '+' || op[0]|0x20 == 'a'
		s.allowed.setAll(on)
		s.future, s.firstArgs = on, nil
		return ""
	case "":
		return reasonSyntax
	}
	switch op[0] {
	case '~', '%':
		return s.addKeys(op)
	case '&':
		return s.addChannels(op[1:])
	case '+', '-':
		return s.change(op[1:], op[0] == '+')
	}
	return reasonSyntax
}

func (s *Selector) addKeys(op string) (reason string) {
	if s.AllKeys {
		return reasonAllKeys
	}
	p := KeyPattern{Pattern: op[1:], Read: true, Write: true}
	if op[0] == '%' {
		p = KeyPattern{}
		rights, pattern, _ := strings.Cut(op[1:], "~") // without "~", as in "%R", the pattern is empty
		for _, r := range []byte(rights) {
			switch {
			case r|0x20 == 'r' && !p.Read:
				p.Read = true
			case r|0x20 == 'w' && !p.Write:
				p.Write = true
			default:
				return reasonSyntax
			}
		}
		if p.Pattern = pattern; rights == "" {
			return reasonSyntax
		}
	}
	if hasSpaces(p.Pattern) {
		return reasonSyntax
	}
	for i := range s.Keys {
		if known := &s.Keys[i]; known.Pattern == p.Pattern {
			known.Read, known.Write = known.Read || p.Read, known.Write || p.Write
			return ""
		}
	}
	s.Keys = append(s.Keys, p)
	return ""
}

func (s *Selector) addChannels(pattern string) (reason string) {
	switch {
	case s.AllChannels:
		return reasonAllChans
	case hasSpaces(pattern):
		return reasonSyntax
	case !slices.Contains(s.Channels, pattern):
		s.Channels = append(s.Channels, pattern)
	}
	return ""
}

// change allows or forbids a command, a category, or a first argument.
func (s *Selector) change(name string, on bool) (reason string) {
	if strings.HasPrefix(name, "@") {
		bit := categoryBit(name[1:])
		if bit == 0 {
			return reasonUnknown
		}
		for id := range commands {
			if commands[id].Categories&bit != 0 {
				s.set(id, on)
			}
		}
		return ""
	}
	bar := strings.LastIndexByte(name, '|')
	if bar < 0 || !on {
		id := lookup(name)
		if id < 0 {
			return reasonUnknown
		}
		s.set(id, on)
		return ""
	}
	id, word := lookup(name[:bar]), name[bar+1:]
	switch {
	case id < 0:
		return reasonUnknown
	case isSub(id):
		return reasonFirstArg
	case word == "":
		return reasonSyntax
	case commands[id].End > commands[id].First:
		sub := lookup(name)
		if sub < 0 {
			return reasonUnknown
		}
		s.set(sub, true)
	default:
		s.addFirstArg(id, word)
	}
	return ""
}

// set allows or forbids a command, with its subcommands.
func (s *Selector) set(id int, on bool) {
	s.allowed.set(id, on)
	delete(s.firstArgs, id)
	for sub := commands[id].First; sub < commands[id].End; sub++ {
		s.allowed.set(sub, on)
	}
}

func (s *Selector) addFirstArg(id int, word string) {
	if slices.ContainsFunc(s.firstArgs[id], func(known string) bool { return lower(known) == lower(word) }) {
		return
	}
	if s.firstArgs == nil {
		s.firstArgs = map[int][]string{}
	}
	s.firstArgs[id] = append(s.firstArgs[id], word)
}

package command

import (
	"bytes"
	"strings"
)

// Access is what a request does with one of its keys, as ACL rules see it.
type Access struct {
	// Index of the argument.
	Index int
	// Read: its value is given out, or part of it. Write: it is changed. Neither
	// is for requests that tell no more than that a key is there.
	Read, Write bool
}

// Accesses appends what a request does with its keys. A request that does not
// fit the command's syntax has none, as in Redis: servers refuse it.
func (s *Spec) Accesses(args [][]byte, dst []Access) []Access {
	var k spans
	s.spans(args, &k)
	if k.malformed {
		return dst
	}
	for _, r := range k.list[:k.n] {
		flags := variableFlags(s.Name, args, r.flags)
		if strings.Contains(flags, "not_key") {
			continue
		}
		a := Access{Read: strings.Contains(flags, "access")}
		a.Write = strings.Contains(flags, "insert") || strings.Contains(flags, "delete") || strings.Contains(flags, "update")
		for i := r.first; i <= r.last; i += r.step {
			a.Index = i
			dst = append(dst, a)
		}
	}
	return dst
}

// SortPattern is the first option of SORT, "BY" or "GET", by which it reads keys
// that are not among its arguments; "" when there is none.
func (s *Spec) SortPattern(args [][]byte) string {
	if s.rule != ruleSort {
		return ""
	}
	for i := 2; i < len(args); i++ {
		switch a, left := args[i], len(args)-i-1; {
		case isWord(a, "ASC"), isWord(a, "DESC"), isWord(a, "ALPHA"):
		case isWord(a, "LIMIT") && left >= 2:
			i += 2
		case isWord(a, "STORE") && left >= 1:
			i++
		case isWord(a, "BY") && left >= 1:
			if i++; bytes.IndexByte(args[i], '*') >= 0 {
				return "BY"
			}
		case isWord(a, "GET") && left >= 1:
			return "GET"
		default:
			return "" // servers refuse it
		}
	}
	return ""
}

// redacted is what stands for a secret in logs, in Redis's words.
var redacted = []byte("(redacted)")

// Redact replaces the arguments that are, or may be, secrets, for logs. It
// returns args itself when there are none.
func (s *Spec) Redact(args [][]byte) [][]byte {
	secret := func(int) bool { return false }
	switch s.Name {
	case "auth":
		secret = func(i int) bool { return i > 0 }
	case "acl|setuser":
		secret = func(i int) bool { return i > 1 }
	case "config|set":
		secret = func(i int) bool { return i > 2 && i%2 == 1 && secretParameter(args[i-1]) }
	case "hello":
		secret = func(i int) bool { return i > 2 && isWord(args[i-1], "AUTH") || i > 3 && isWord(args[i-2], "AUTH") }
	case "migrate":
		secret = func(i int) bool {
			return i > 5 && (isWord(args[i-1], "AUTH") || isWord(args[i-1], "AUTH2") || isWord(args[i-2], "AUTH2"))
		}
	}
	clean := args
	for i := range args {
		if secret(i) {
			if &clean[0] == &args[0] {
				clean = append([][]byte(nil), args...)
			}
			clean[i] = redacted
		}
	}
	return clean
}

// secretParameter tells if the value of a parameter is a secret.
func secretParameter(name []byte) bool {
	for _, secret := range []string{"MASTERAUTH", "MASTERUSER", "REQUIREPASS", "TLS-KEY-FILE-PASS", "TLS-CLIENT-KEY-FILE-PASS"} {
		if isWord(name, secret) {
			return true
		}
	}
	return false
}

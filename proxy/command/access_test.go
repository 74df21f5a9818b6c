package command

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for line, want := range map[string]string{
		"GET k":                        "GET k",
		"AUTH secret":                  "AUTH (redacted)",
		"AUTH user secret":             "AUTH (redacted) (redacted)",
		"HELLO 3 AUTH user secret":     "HELLO 3 AUTH (redacted) (redacted)",
		"HELLO 3 SETNAME x":            "HELLO 3 SETNAME x",
		"ACL SETUSER app >secret":      "ACL SETUSER (redacted) (redacted)",
		"ACL WHOAMI":                   "ACL WHOAMI",
		"CONFIG SET requirepass s":     "CONFIG SET requirepass (redacted)",
		"CONFIG SET hz 5 MasterAuth s": "CONFIG SET hz 5 MasterAuth (redacted)",
		"MIGRATE h 1 k 0 1 AUTH s":     "MIGRATE h 1 k 0 1 AUTH (redacted)",
		"MIGRATE h 1 k 0 1 AUTH2 u s":  "MIGRATE h 1 k 0 1 AUTH2 (redacted) (redacted)",
	} {
		var args [][]byte
		for _, w := range strings.Fields(line) {
			args = append(args, []byte(w))
		}
		spec, _ := Lookup(args)
		var words []string
		for _, a := range spec.Redact(args) {
			words = append(words, string(a))
		}
		if got := strings.Join(words, " "); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
		if got := string(args[len(args)-1]); got != strings.Fields(line)[len(args)-1] {
			t.Errorf("%s: the request itself was changed", line)
		}
	}
}

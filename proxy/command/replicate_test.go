package command_test

import (
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/proxy/command"
)

func TestMayReplicate(t *testing.T) {
	for line, want := range map[string]bool{
		"GET k": false, "SET k v": true, "PFCOUNT k": true, "PUBLISH a b": true, "SPUBLISH a b": true, "FLUSHALL": true,
		"PING": false, "MULTI": false, "SUBSCRIBE a": false, "EVAL return 0": true, "EVAL_RO return 0": false, "EVALSHA x 0": true,
		"FCALL f 0": true, "FCALL_RO f 0": false, "SCAN 0": false, "GETDEL k": true, "OBJECT FREQ k": false,
		"EVAL #!lua\nreturn 0":                                true,
		"EVAL #!lua\u00a0flags=no-writes\nreturn 0":           false,
		"EVAL #!lua\u00a0flags=allow-oom,no-writes\nreturn 0": false,
		"EVAL #!lua\u00a0flags=no-writesx\nreturn 0":          true,
		"EVAL #!lua\nflags=no-writes 0":                       true,
		"EVAL flags=no-writes 0":                              true,
		"EVAL #!lua\u00a0flags=no-writes":                     true,
		"EVAL #!lua\u00a0flags=no-writes\u00a0x\n":            true,
		"EVAL #!luau\u00a0flags=no-writes\n":                  true,
		"EVAL #!lua\u00a0flags=\n":                            true,
		"EVAL_RO #!lua\nreturn 0":                             true,
		"EVAL_RO #!lua\u00a0flags=no-writes\nreturn 0":        false,
		"EVAL_RO #!js\nreturn 0":                              false,
	} {
		var args [][]byte
		for word := range strings.SplitSeq(line, " ") {
			args = append(args, []byte(strings.ReplaceAll(word, "\u00a0", " ")))
		}
		spec, _ := command.Lookup(args)
		if spec == nil {
			t.Fatalf("%q is unknown", line)
		}
		if got := spec.MayReplicate(args); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func TestInteger(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "-1": -1, "9223372036854775807": 9223372036854775807, "-9223372036854775808": -9223372036854775808,
	} {
		if n, ok := command.Integer([]byte(text)); !ok || n != want {
			t.Errorf("%q: %d, %v", text, n, ok)
		}
	}
	for _, text := range []string{"", "-", "+1", "01", "-0", "00", " 1", "1 ", "1.0", "1e3", "0x1", "1_0", "9223372036854775808", "-9223372036854775809", "99999999999999999999"} {
		if n, ok := command.Integer([]byte(text)); ok {
			t.Errorf("%q is %d", text, n)
		}
	}
}

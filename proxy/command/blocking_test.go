package command

import (
	"fmt"
	"testing"
	"time"
)

// TestTimeout: where the time limit of each blocking command is.
func TestTimeout(t *testing.T) {
	for line, want := range map[string]string{
		"BLPOP a b 5": "3 1s", "BRPOP a 5": "2 1s", "BZPOPMIN a 5": "2 1s", "BZPOPMAX a b 5": "3 1s",
		"BLMOVE a b LEFT RIGHT 5": "5 1s", "BRPOPLPUSH a b 5": "3 1s",
		"BLMPOP 5 1 a LEFT COUNT 3": "1 1s", "BZMPOP 5 1 a MIN": "1 1s",
		"WAIT 1 500": "2 1ms", "WAITAOF 1 1 500": "3 1ms",
		"XREAD BLOCK 5 STREAMS a 0": "2 1ms", "XREAD COUNT 2 block 5 STREAMS a 0": "4 1ms",
		"XREADGROUP GROUP block c NOACK BLOCK 5 STREAMS a >": "6 1ms",
		"XREAD BLOCK 5 BLOCK 6 STREAMS a 0":                  "4 1ms",
		"XREAD STREAMS block 0":                              "0 1ms",
		"XREAD COUNT 1 STREAMS block 5 0 0":                  "0 1ms",
		"XREAD BOGUS BLOCK STREAMS a":                        "0 1ms",
		"GET a":                                              "0 0s",
	} {
		args := fields(line)
		at, unit := mustLookup(t, args).Timeout(args)
		if got := fmt.Sprint(at, unit); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
		if at > 0 && string(args[at]) != "5" && string(args[at]) != "500" && string(args[at]) != "6" {
			t.Errorf("%s: argument %d is %s", line, at, args[at])
		}
	}
	for i := range specs {
		s := &specs[i]
		args := make([][]byte, 20)
		if _, unit := s.Timeout(args); s.Blocking && s.Kind != Unsupported && unit < time.Millisecond {
			t.Errorf("%s may block, and nothing is known of its time limit", s.Name)
		}
	}
}

// TestNewEntries: which IDs of XREAD depend on when it is executed.
func TestNewEntries(t *testing.T) {
	for line, want := range map[string]string{
		"XREAD BLOCK 0 STREAMS a b $ 0": "[6] 2", "XREAD BLOCK 0 streams a $": "[5] 1", "XREAD BLOCK 0 STREAMS $ 0": "[] 1",
		"XREAD BLOCK 0 STREAMS a b c $ 5 $": "[7 9] 3", "XREAD BLOCK 0 STREAMS a b $": "[] 0",
		"XREADGROUP GROUP g c BLOCK 0 STREAMS a $": "[] 0",
	} {
		args := fields(line)
		at, streams := mustLookup(t, args).NewEntries(args)
		if got := fmt.Sprint(at, streams); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

package command

import (
	"bytes"
	"time"
)

// Timeout finds where a request says how long it may block, and in which unit:
// seconds are written with a fraction, milliseconds without. at is 0 when the
// request cannot block: XREAD without BLOCK, or one that servers refuse.
func (s *Spec) Timeout(args [][]byte) (at int, unit time.Duration) {
	switch s.Name {
	case "blpop", "brpop", "bzpopmin", "bzpopmax", "blmove", "brpoplpush":
		return len(args) - 1, time.Second
	case "blmpop", "bzmpop":
		return 1, time.Second
	case "wait":
		return 2, time.Millisecond
	case "waitaof":
		return 3, time.Millisecond
	case "xread", "xreadgroup":
		return blockOption(args), time.Millisecond
	}
	return 0, 0
}

// blockOption finds the argument of the last BLOCK among the options of XREAD
// and XREADGROUP, which they take in any order before STREAMS; 0 without one.
func blockOption(args [][]byte) (at int) {
	for i := 1; i+1 < len(args); i++ {
		switch a := args[i]; {
		case isWord(a, "BLOCK"):
			i++
			at = i
		case isWord(a, "COUNT"):
			i++
		case isWord(a, "GROUP"):
			i += 2
		case isWord(a, "STREAMS"):
			return at
		case !isWord(a, "NOACK"):
			return 0
		}
	}
	return 0
}

// NewEntries returns the arguments of an XREAD that are "$": the ID of the last
// entry of a stream at the time the command begins. The key of each stands
// half the number of streams before it, at i-streams.
func (s *Spec) NewEntries(args [][]byte) (at []int, streams int) {
	if s.Name != "xread" {
		return nil, 0
	}
	for i := 1; i < len(args); i++ {
		if !isWord(args[i], "STREAMS") {
			continue
		}
		rest := len(args) - i - 1
		if streams = rest / 2; rest%2 != 0 {
			return nil, 0
		}
		for j := i + 1 + streams; j < len(args); j++ {
			if bytes.Equal(args[j], []byte("$")) {
				at = append(at, j)
			}
		}
		return at, streams
	}
	return nil, 0
}

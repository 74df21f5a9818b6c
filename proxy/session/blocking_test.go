package session

import (
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/command"
)

// TestLastID: the last ID of a stream, in the beginning of the reply to XINFO
// STREAM in both protocols.
func TestLastID(t *testing.T) {
	fields := "$6\r\nlength\r\n:1\r\n$15\r\nradix-tree-keys\r\n:1\r\n$16\r\nradix-tree-nodes\r\n:2\r\n$17\r\nlast-generated-id\r\n$3\r\n5-1\r\n$20\r\nmax-deleted-entry-id\r\n$3\r\n0-0\r\n"
	for reply, want := range map[string]string{
		"*20\r\n" + fields:            "5-1",
		"%10\r\n" + fields:            "5-1",
		"-ERR no such key\r\n":        "0-0",
		"-WRONGTYPE Operation\r\n":    "",
		"*20\r\n" + fields[:90]:       "",
		"+OK\r\n":                     "",
		"-ERR unknown subcommand\r\n": "",
	} {
		if got := string(lastID([]byte(reply))); got != want {
			t.Errorf("%.60q: %q, want %q", reply, got, want)
		}
	}
}

// TestRequestAgain: what is sent when a command is sent late, or again.
func TestRequestAgain(t *testing.T) {
	sh := &Shared{Now: 1e9}
	for _, c := range []struct{ line, late, again string }{
		{"BLPOP a b 2", "BLPOP a b 0.500", "BLPOP a b 0.500"},
		{"BLPOP a 0", "BLPOP a 0", "BLPOP a 0"},
		{"BLPOP a x", "BLPOP a x", "BLPOP a x"},
		{"BLMPOP 2 1 a LEFT", "BLMPOP 0.500 1 a LEFT", "BLMPOP 0.500 1 a LEFT"},
		{"BRPOP a 1", "BRPOP a 0.001", "BRPOP a 0.001"},
		{"XREAD BLOCK 2000 STREAMS a b $ 3", "XREAD BLOCK 500 STREAMS a b $ 3", "XREAD BLOCK 500 STREAMS a b 7-1 3"},
		{"XREAD BLOCK 0 STREAMS a $", "XREAD BLOCK 0 STREAMS a $", "XREAD BLOCK 0 STREAMS a 7-1"},
		{"WAIT 1 2000", "WAIT 1 500", "WAIT 1 500"},
	} {
		var args [][]byte
		for word := range strings.FieldsSeq(c.line) {
			args = append(args, []byte(word))
		}
		spec, _ := command.Lookup(args)
		b := (&Client{sh: sh}).newBlocked(nil, spec, 0, args, nil)
		b.timeoutAt, b.unit = spec.Timeout(args)
		b.Deadline = b.deadline(args[b.timeoutAt])
		b.fresh, b.streams = spec.NewEntries(args)
		check := func(again bool, want string) {
			t.Helper()
			var words [][]byte
			for word := range strings.FieldsSeq(want) {
				words = append(words, []byte(word))
			}
			if got := string(b.Request(nil, again)); got != string(appendCommand(nil, words)) {
				t.Errorf("%s: %q, want %s", c.line, got, want)
			}
		}
		check(false, c.line)
		sh.Now += int64(1500 * time.Millisecond)
		check(false, c.late)
		b.Answered([][]byte{[]byte("*2\r\n$6\r\nlength\r\n$17\r\nlast-generated-id\r\n$3\r\n7-1\r\n")})
		check(true, c.again)
		sh.Now -= int64(1500 * time.Millisecond)
	}
}

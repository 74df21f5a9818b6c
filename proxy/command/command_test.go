package command

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/slot"
)

func request(words ...string) [][]byte {
	args := make([][]byte, len(words))
	for i, w := range words {
		args[i] = []byte(w)
	}
	return args
}

func fields(line string) [][]byte { return request(strings.Fields(line)...) }

// mustLookup returns the spec of a request that is good.
func mustLookup(t testing.TB, args [][]byte) *Spec {
	t.Helper()
	s, reply := Lookup(args)
	if reply != nil {
		t.Fatalf("Lookup(%q): %q", args, reply)
	}
	return s
}

func TestEverySpecIsFoundInAnyCase(t *testing.T) {
	for i := range specs {
		s := &specs[i]
		if ByID(i) != s || s.ID != i {
			t.Errorf("%s: ID %d, want %d", s.Name, s.ID, i)
		}
		for _, name := range []string{s.Name, strings.ToUpper(s.Name), strings.ToUpper(s.Name[:1]) + s.Name[1:]} {
			if got := ByName(name); got != s {
				t.Errorf("ByName(%q) = %v", name, got)
			}
		}
	}
	if !slices.IsSortedFunc(specs[:], func(a, b Spec) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("specs are not sorted")
	}
}

func TestNoOtherNameIsFound(t *testing.T) {
	for i := range specs {
		name, _, _ := strings.Cut(specs[i].Name, "|")
		for at := range name {
			// Flip the bit that the index ignores where it is not a letter's case,
			// and a bit it does not ignore.
			for _, bit := range []byte{0x20, 0x01, 0x80} {
				other := []byte(name)
				other[at] ^= bit
				if s := find(other); s != nil && !strings.EqualFold(s.Name, string(other)) {
					t.Errorf("find(%q) = %s", other, s.Name)
				}
			}
		}
		for _, other := range []string{name + "\x00", name + "x", "x" + name, name[1:]} {
			if s := find([]byte(other)); s != nil && s.Name != other {
				t.Errorf("find(%q) = %s", other, s.Name)
			}
		}
	}
	if find(nil) != nil || find([]byte(strings.Repeat("a", 1000))) != nil {
		t.Error("found a name that is none")
	}
}

func TestKinds(t *testing.T) {
	for line, want := range map[string]Kind{
		"GET k": Keyed, "EVAL s 1 k": Script, "EVALSHA s 0": Script, "FCALL_RO f 0": Script, "SCRIPT LOAD x": ScriptAdmin, "FUNCTION LIST": ScriptAdmin, "XREAD STREAMS s 0": Keyed, "MEMORY USAGE k": Keyed, "OBJECT ENCODING k": Keyed,
		"MGET a": Split, "MSET a 1": Split, "DEL a": Split, "UNLINK a": Split, "EXISTS a": Split, "TOUCH a": Split,
		"DBSIZE": AllShards, "SCAN 0": AllShards, "KEYS *": AllShards, "INFO": AllShards, "FLUSHALL": AllShards, "RANDOMKEY": AllShards, "CONFIG GET *": AllShards, "SLOWLOG GET": AllShards,
		"PING": Local, "CLIENT ID": Local, "CLIENT SETINFO LIB-NAME x": Local, "CONFIG SET a b": Local, "COMMAND": Local, "HELLO": Local, "MULTI": Local, "WATCH a": Local,
	} {
		if s := mustLookup(t, fields(line)); s.Kind != want {
			t.Errorf("%s is %v, want %v", line, s.Kind, want)
		}
	}
	for line, want := range map[string]string{
		"MULTI x":         "-ERR wrong number of arguments for 'multi' command\r\n",
		"CONFIG REWRITE":  "-ERR CONFIG REWRITE is not supported behind the proxy: ",
		"SCRIPT DEBUG NO": "-ERR SCRIPT DEBUG is not supported behind the proxy: ",
		"REPLICAOF a 1":   "-ERR REPLICAOF is not supported behind the proxy: ",
		"MIGRATE h 1 k 0": "-ERR wrong number of arguments for 'migrate' command\r\n",
		"CLIENT":          "-ERR wrong number of arguments for 'client' command\r\n",
	} {
		s, reply := Lookup(fields(line))
		if s == nil || !strings.HasPrefix(string(reply), want) || !strings.HasSuffix(string(reply), "\r\n") {
			t.Errorf("%s: %v, %q", line, s, reply)
		}
	}
	for i := range specs {
		s := &specs[i]
		if (s.Reason != "") != (s.Kind == Unsupported) || strings.ContainsAny(s.Reason, "\r\n%") {
			t.Errorf("%s is %v with reason %q", s.Name, s.Kind, s.Reason)
		}
		if s.Write && s.ReadOnly {
			t.Errorf("%s writes and only reads", s.Name)
		}
	}
}

func TestSlot(t *testing.T) {
	a, tagged := int(slot.Of([]byte("a"))), int(slot.Of([]byte("x")))
	for line, want := range map[string]int{
		"GET a": a, "SET a 1": a, "MGET a": a, "DEL a a": a, "MGET a b": ManySlots, "MSET a 1 b 2": ManySlots, "MSET a 1 a 2": a,
		"SINTERSTORE {x}d {x}1 {x}2": tagged, "EVAL s 2 {x}1 {x}2 other": tagged, "ZUNIONSTORE {x}d 2 {x}1 {x}2 WEIGHTS 1 2": tagged,
		"XREAD COUNT 2 STREAMS {x}1 {x}2 0 0": tagged, "SORT {x}k BY nosort GET # STORE {x}d": tagged,
		"SORT {x}k BY {x}w_* GET {x}*->f": tagged, "GEORADIUS {x}k 1 1 1 km STORE {x}d": tagged, "COPY {x}a {x}b DB 0": tagged, "COPY {x}a {x}b REPLACE DB 1": tagged,
		"PING": NoSlot, "DBSIZE": NoSlot, "EVAL s 0": NoSlot, "FCALL f 0 arg": NoSlot,
		// Malformed ones reach a server, which says what is wrong.
		"EVAL s 5 a": 0, "EVAL s x a": 0, "XREAD COUNT 1 a": 0, "ZUNIONSTORE a 9 b": a,
		"XREAD STREAMS a b c 0 0": 0, "XREADGROUP GROUP g c STREAMS a b >": 0,
	} {
		args := fields(line)
		if got, reply := mustLookup(t, args).Slot(args); got != want || reply != nil {
			t.Errorf("%s: slot %d, %q; want %d", line, got, reply, want)
		}
	}
	const cross = "-CROSSSLOT Keys in request don't hash to the same slot: \"a\" is in slot 15495, \"b\" in 3300; use one {tag} in all of its keys\r\n"
	for line, want := range map[string]string{
		"RENAME a b": cross, "MSETNX a 1 b 2": cross, "EVAL s 2 a b": cross, "SORT a STORE b": cross, "GEORADIUS a 1 1 1 km STOREDIST b": cross,
		"XREAD STREAMS a b 0 0":                 cross,
		"MSET a 1 b":                            "-ERR wrong number of arguments for 'mset' command\r\n",
		"SORT a BY w_*":                         "-ERR BY option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.",
		"SORT a GET # GET o_*":                  "-ERR GET option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.",
		"SORT_RO {x}a BY *{x}":                  "-ERR BY option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.",
		"SORT {x}a BY {x*}":                     "-ERR BY option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.",
		"XREAD COUNT 1 BLOCK 0 STREAMS a b $ $": cross,
		"BLPOP a b 0":                           cross,
		"BLMPOP 0 2 a b LEFT":                   cross,
	} {
		args := fields(line)
		s := mustLookup(t, args)
		got, reply := s.Slot(args)
		if got == ManySlots && reply == nil {
			reply = s.CrossSlot(args)
			if first := int(slot.Of(args[s.Keys(args, nil)[0]])); s.FirstSlot(args) != first {
				t.Errorf("%s: the first slot is %d, not %d", line, s.FirstSlot(args), first)
			}
		} else if got != NoSlot {
			t.Errorf("%s: slot %d", line, got)
		}
		if !strings.HasPrefix(string(reply), want) {
			t.Errorf("%s: %q; want %q", line, reply, want)
		}
	}
	// A stream or a group may be called BLOCK.
	for _, line := range []string{"XREAD STREAMS block 0", "XREADGROUP GROUP block block STREAMS a >"} {
		args := fields(line)
		if _, reply := mustLookup(t, args).Slot(args); reply != nil {
			t.Errorf("%s: %q", line, reply)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	many := []string{"MGET"}
	for range 1000 {
		many = append(many, "{tag}key")
	}
	requests := [][][]byte{
		fields("GET somekey"), fields("set somekey value EX 10"), request(many...), fields("mset a 1 b 2"), fields("PING"),
		fields("client setname x"), fields("XREAD COUNT 10 STREAMS {a}1 {a}2 0 0"), fields("ZUNIONSTORE {a}d 2 {a}1 {a}2"),
		fields("EVAL return 2 {a}1 {a}2"), fields("RENAME a b"), fields("SORT {a}1 BY nosort STORE {a}2"), fields("MULTI"),
	}
	dst := make([]int, 0, 2000)
	for _, args := range requests {
		if n := testing.AllocsPerRun(100, func() {
			s, _ := Lookup(args)
			if s.Kind == Unsupported {
				return
			}
			if _, reply := s.Slot(args); reply != nil {
				t.Errorf("%s: %q", args[0], reply)
			}
			dst = s.Keys(args, dst[:0])
		}); n != 0 {
			t.Errorf("%s: %v allocations", args[0], n)
		}
	}
}

func FuzzLookup(f *testing.F) {
	for i := range specs {
		f.Add([]byte(strings.ReplaceAll(specs[i].Name, "|", " ") + " a b c 1"))
	}
	f.Add([]byte("eval x 99999999999999999999 a"))
	f.Add([]byte("xread streams"))
	f.Add([]byte("sort k by"))
	f.Fuzz(func(t *testing.T, data []byte) {
		args := bytes.Split(data, []byte(" "))
		s, reply := Lookup(args)
		if reply == nil && s == nil {
			t.Fatal("neither a command nor an error")
		}
		if reply != nil {
			checkLine(t, reply)
			return
		}
		n, reply := s.Slot(args)
		if reply != nil {
			checkLine(t, reply)
			return
		}
		if n < ManySlots || n >= slot.Count {
			t.Fatalf("slot %d of %q", n, args)
		}
		if n == ManySlots {
			checkLine(t, s.CrossSlot(args))
			if first := s.FirstSlot(args); first < 0 || first >= slot.Count {
				t.Fatalf("%q: the first slot is %d", args, first)
			}
		}
		keys := s.Keys(args, nil)
		for _, k := range keys {
			if k < 1 || k >= len(args) {
				t.Fatalf("key at %d of %d arguments", k, len(args))
			}
			if own := int(slot.Of(args[k])); n >= 0 && own != n {
				t.Fatalf("%q: slot %d, but key %q has %d", args, n, args[k], own)
			}
		}
	})
}

func checkLine(t *testing.T, reply []byte) {
	t.Helper()
	if reply[0] != '-' || bytes.IndexAny(reply, "\r\n") != len(reply)-2 || !bytes.HasSuffix(reply, []byte("\r\n")) {
		t.Fatalf("not one error line: %q", reply)
	}
}

func BenchmarkLookupAndSlot(b *testing.B) {
	for _, line := range []string{"GET key:000000012345", "SET key:000000012345 v", "zrangebyscore key:000000012345 1 2", "MGET {a}1 {a}2"} {
		args := fields(line)
		b.Run(string(args[0]), func(b *testing.B) {
			for b.Loop() {
				s, _ := Lookup(args)
				s.Slot(args)
			}
		})
	}
}

// A client's own words end an error reply neither early nor late.
func TestErrorLine(t *testing.T) {
	for echo, want := range map[string]string{
		"plain": "-ERR not 'plain'!\r\n", "a\r\n+OK\r\n": "-ERR not 'a  +OK  '!\r\n", "a\x00b": "-ERR not 'a'!\r\n", "\xff": "-ERR not '\xff'!\r\n", "": "-ERR not ''!\r\n",
	} {
		if got := ErrorLine("not '", []byte(echo), "'!"); string(got) != want {
			t.Errorf("%q: %q, want %q", echo, got, want)
		}
	}
}

// A key that is long or no text ends the line neither early nor late.
func TestCrossSlotNamesTheKeys(t *testing.T) {
	long := strings.Repeat("k", 4<<10)
	for _, keys := range [][]string{{"a\r\n+OK\r\n", "b"}, {"\x00\xff", "é\""}, {long, long + "1"}, {"", "x"}} {
		args := request("RENAME", keys[0], keys[1])
		line := mustLookup(t, args).CrossSlot(args)
		checkLine(t, line)
		if !strings.HasPrefix(string(line), crossSlot+": \"") || len(line) > 4*errorEcho {
			t.Errorf("%q: %q", keys, line)
		}
	}
	if got, want := string(CrossSlot(7, nil, []byte("b"))), "-CROSSSLOT Keys in request don't hash to the same slot: the transaction is in slot 7, \"b\" in 3300; use one {tag} in all of its keys\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

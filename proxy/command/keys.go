package command

import (
	"bytes"
	"strconv"

	"github.com/basalt-redis/basalt/internal/slot"
)

// Results of Slot that are not a slot.
const (
	// NoSlot: the request names no key.
	NoSlot = -1
	// ManySlots: the keys lie in several slots, or SORT may read some in others. A
	// Split command is taken apart for the shards; for any other there must be one
	// shard only, or CrossSlot is the reply.
	ManySlots = -2
)

// findKeynum in keySpec.find: an argument tells the number of keys. Otherwise
// they are a range of arguments, its end counted from the beginning (last >= 0)
// or from the end of the request (last < 0; with a limit, only the first 1/limit
// of the arguments are keys, as in XREAD STREAMS).
const findKeynum = 1

// keySpec is one key specification of Redis's command table. Keys begin at
// index, or behind a keyword that is searched for from an index, backwards
// when that is negative.
type keySpec struct {
	index   int
	keyword string // upper case; empty: begin at index
	find    uint8
	last    int // range: end of the range, see above
	limit   int // range
	step    int
	keynum  int // keynum: where the number is, from the beginning
	first   int // keynum: where the first key is, from the beginning
	flags   string
}

// span is a run of keys: arguments first, first+step, … up to last.
type span struct {
	first, last, step int
	flags             string
}

// spans of a request; no supported command has more key specifications.
type spans struct {
	list [4]span
	n    int
	// malformed: a key specification did not fit the request. The server will
	// refuse it, in its own words.
	malformed bool
}

func (k *spans) add(first, last, step int, flags string) {
	k.list[k.n] = span{first, last, step, flags}
	k.n++
}

// spans finds the keys of a request whose arity is right.
func (s *Spec) spans(args [][]byte, k *spans) {
	for i := range s.keys {
		s.keys[i].find1(args, k)
	}
	if s.rule == ruleSort && s.Write { // SORT_RO takes no STORE
		if store := sortStore(args); store > 0 {
			k.add(store, store, 1, "OW update")
		}
	}
}

// find1 finds the keys of one specification.
func (ks *keySpec) find1(args [][]byte, k *spans) {
	n := len(args)
	first := ks.index
	if ks.keyword != "" {
		if first = ks.search(args); first == 0 {
			return
		}
	}
	var last int
	switch {
	case ks.find == findKeynum:
		count, ok := 0, first+ks.keynum < n
		if ok {
			count, ok = parseInt(args[first+ks.keynum])
		}
		if !ok || count < 0 {
			k.malformed = true
			return
		}
		if count == 0 {
			return
		}
		if count > n {
			count = n // as wrong as any number that is too high
		}
		first += ks.first
		last = first + count - 1
	case ks.last >= 0:
		last = first + ks.last
	case ks.limit > 0:
		last = first + (n-first)/ks.limit + ks.last
	default:
		last = n + ks.last
	}
	if last >= n || last < first || first >= n {
		k.malformed = true
		return
	}
	k.add(first, last, ks.step, ks.flags)
}

// search returns the index behind the keyword, 0 when it is not there.
func (ks *keySpec) search(args [][]byte) int {
	at, end, step := ks.index, len(args)-1, 1
	if at < 0 {
		at, end, step = len(args)+at, 1, -1
	}
	for i := at; i > 0 && i < len(args) && i != end; i += step {
		if isWord(args[i], ks.keyword) {
			return i + 1
		}
	}
	return 0
}

// Keys appends the indexes of the arguments that are keys to dst. Of a request
// that does not fit the command's syntax it may find only some.
func (s *Spec) Keys(args [][]byte, dst []int) []int {
	var k spans
	s.spans(args, &k)
	for _, r := range k.list[:k.n] {
		for i := r.first; i <= r.last; i += r.step {
			dst = append(dst, i)
		}
	}
	return dst
}

// Key is one key of a request.
type Key struct {
	// Index of the argument.
	Index int
	// Flags say what the command does with the key, in Redis's words and order:
	// "RW access update".
	Flags string
}

// KeysWithFlags returns the keys as COMMAND GETKEYSANDFLAGS does. ok is false
// when the request does not fit the command's syntax.
func (s *Spec) KeysWithFlags(args [][]byte) (keys []Key, ok bool) {
	var k spans
	s.spans(args, &k)
	for _, r := range k.list[:k.n] {
		for i := r.first; i <= r.last; i += r.step {
			keys = append(keys, Key{i, variableFlags(s.Name, args, r.flags)})
		}
	}
	return keys, !k.malformed
}

// variableFlags refines the flags that depend on the request's options: SET
// reads only with GET, BITFIELD writes only with SET or INCRBY.
func variableFlags(name string, args [][]byte, flags string) string {
	const readOnly, writeOnly, both = "RO access", "OW update", "RW access update"
	switch name {
	case "set":
		for _, a := range args[3:] {
			if isWord(a, "GET") {
				return both
			}
		}
		return writeOnly
	case "bitfield":
		for i := 2; i < len(args); i++ {
			switch a, left := args[i], len(args)-i-1; {
			case isWord(a, "GET") && left >= 2:
				i += 2
			case isWord(a, "OVERFLOW") && left >= 1:
				i++
			default:
				return both
			}
		}
		return readOnly
	}
	return flags
}

// Slot returns the slot of the keys of a request that Lookup accepted: 0 to
// 16383, NoSlot, or ManySlots. A request that cannot be served is answered by
// errReply, a complete line.
//
// A request whose keys cannot be found is one that servers refuse; it gets
// slot 0, and thereby the server's own words.
func (s *Spec) Slot(args [][]byte) (slotOf int, errReply []byte) {
	if s.first > 0 {
		return int(slot.Of(args[s.first])), nil
	}
	return s.slowSlot(args)
}

// crossSlot is Redis Cluster's reply to a request with keys of several slots.
// Clients know it by its beginning.
const crossSlot = "-CROSSSLOT Keys in request don't hash to the same slot"

// CrossSlot is the reply to a request of ManySlots where there are several shards: Redis
// Cluster's, with two keys that lie apart.
func (s *Spec) CrossSlot(args [][]byte) []byte {
	if s.rule == ruleSort {
		if option := strayPattern(args); option != "" {
			return refusal(option + " option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.")
		}
	}
	keys := s.Keys(args, nil)
	for _, k := range keys {
		if at := slot.Of(args[k]); at != slot.Of(args[keys[0]]) {
			return CrossSlot(int(slot.Of(args[keys[0]])), args[keys[0]], args[k])
		}
	}
	return []byte(crossSlot + "\r\n")
}

// CrossSlot is the reply to a request with a key that is not in the slot at, where key
// one is; with no key one, it is that of what the request belongs to.
func CrossSlot(at int, one, other []byte) []byte {
	reply := append([]byte(crossSlot), ": "...)
	if one != nil {
		reply = appendWord(reply, one)
		reply = append(reply, " is in slot "...)
	} else {
		reply = append(reply, "the transaction is in slot "...)
	}
	reply = append(strconv.AppendInt(reply, int64(at), 10), ", "...)
	reply = appendWord(reply, other)
	reply = append(strconv.AppendInt(append(reply, " in "...), int64(slot.Of(other)), 10), "; use one {tag} in all of its keys\r\n"...)
	return reply
}

// appendWord appends a key for people, in quotes.
func appendWord(dst, key []byte) []byte {
	cut := len(key) > errorEcho
	dst = strconv.AppendQuoteToASCII(dst, string(key[:min(len(key), errorEcho)]))
	if cut {
		dst = append(dst, "..."...)
	}
	return dst
}

// FirstSlot is the slot of the first key of a request of ManySlots.
func (s *Spec) FirstSlot(args [][]byte) int {
	var k spans
	s.spans(args, &k)
	return int(slot.Of(args[k.list[0].first]))
}

func (s *Spec) slowSlot(args [][]byte) (int, []byte) {
	var k spans
	s.spans(args, &k)
	if s.rule == rulePairs && len(args)%2 == 0 {
		return NoSlot, s.wrongArity()
	}
	if s.Unbalanced(args) {
		return 0, nil
	}
	if s.rule == ruleSort && strayPattern(args) != "" {
		return ManySlots, nil
	}
	found := NoSlot
	for _, r := range k.list[:k.n] {
		for i := r.first; i <= r.last; i += r.step {
			switch own := int(slot.Of(args[i])); found {
			case NoSlot:
				found = own
			case own:
			default:
				return ManySlots, nil
			}
		}
	}
	if found == NoSlot && len(s.keys) > 0 && (s.Kind != Script || k.malformed) {
		return 0, nil
	}
	return found, nil
}

// Unbalanced tells of an XREAD or XREADGROUP with a key too many or an ID too
// few. Servers then see no keys at all, and say what is wrong.
func (s *Spec) Unbalanced(args [][]byte) bool {
	for i := range s.keys {
		if ks := &s.keys[i]; ks.limit > 0 {
			first := ks.search(args)
			return first > 0 && (len(args)-first)%ks.limit != 0
		}
	}
	return false
}

// rule names what a command must be checked for besides its key positions.
type rule uint8

const (
	// rulePairs: keys and values alternate (MSET).
	rulePairs rule = iota + 1
	// ruleSort: SORT's STORE, and its patterns that may lie in other slots.
	ruleSort
)

func refusal(sentence string) []byte { return []byte("-ERR " + sentence + "\r\n") }

// sortStore returns the index of the last STORE option's key, 0 without one.
func sortStore(args [][]byte) (at int) {
	for i := 2; i < len(args); i++ {
		switch a := args[i]; {
		case isWord(a, "LIMIT"):
			i += 2
		case isWord(a, "BY"), isWord(a, "GET"):
			i++
		case isWord(a, "STORE") && i+1 < len(args):
			i++
			at = i
		}
	}
	return at
}

// strayPattern names the option of SORT (BY or GET) whose pattern may expand to
// a key outside the slot of the sorted one. A pattern without * names no key
// (BY nosort, GET #). One with a whole {hash tag} before its * stays in the
// slot of that tag.
func strayPattern(args [][]byte) string {
	home := slot.Of(args[1])
	for i := 2; i+1 < len(args); i++ {
		var option string
		switch a := args[i]; {
		case isWord(a, "LIMIT"):
			i += 2
			continue
		case isWord(a, "STORE"):
			i++
			continue
		case isWord(a, "BY"):
			option = "BY"
		case isWord(a, "GET"):
			option = "GET"
		default:
			continue
		}
		i++
		pattern := args[i]
		star := bytes.IndexByte(pattern, '*')
		if star < 0 {
			continue
		}
		open := bytes.IndexByte(pattern[:star], '{')
		if open < 0 || bytes.IndexByte(pattern[open+1:star], '}') <= 0 || slot.Of(pattern) != home {
			return option
		}
	}
	return ""
}

// isWord tells if arg is the upper case word, in any case.
func isWord(arg []byte, word string) bool {
	if len(arg) != len(word) {
		return false
	}
	for i, c := range arg {
		if 'a' <= c && c <= 'z' {
			c &^= 0x20
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// parseInt reads an integer as strictly as Redis does: no sign but "-", no
// leading zeros. Numbers beyond 9 digits are cut off there: nothing here counts
// so far.
func parseInt(b []byte) (n int, ok bool) {
	digits := b
	if len(b) > 1 && b[0] == '-' {
		digits = b[1:]
	}
	if len(digits) == 0 || digits[0] == '0' && len(b) > 1 || len(digits) > 19 {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n < 1e9 {
			n = n*10 + int(c-'0')
		}
	}
	if b[0] == '-' {
		n = -n
	}
	return n, true
}

package pubsub

import (
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/basalt-redis/basalt/proxy/glob"
)

// How the clients of all proxies are counted.
//
// Goal: PUBLISH, NUMSUB and their kin tell how many clients there are behind all
// proxies, as soon as a SUBSCRIBE was confirmed, and whichever proxy or server dies.
//
// A server counts connections: one for each loop that listens to a name. How many
// clients a loop has beyond that one (its surplus) the loops tell the server, too,
// in the only thing that it keeps for them: names that they are subscribed to and
// that nobody publishes to. There is one such name for each bit of the number.
// NUMSUB of all of them, each times its weight, is the surplus of all loops.
//
//  1. When a loop's number of clients of a name changes, it subscribes the bits that
//     are new and then unsubscribes those that are not, behind the name itself, and
//     confirms to its client when the server has. So what was confirmed is counted.
//     A loop with one client of a name, the usual case, has no bits.
//  2. The names of the bits live where the messages of the name are published, those
//     of patterns at the table's PatternSlot: who counts asks one server, or two when
//     channels are spread.
//  3. A proxy that publishes knows its own loops. Only when the server counts more
//     than these, there are others, and it asks for the bits (Inquiry).
//  4. Which patterns match a channel, and have bits, a proxy must know beforehand. It
//     lists them (PUBSUB CHANNELS), and keeps the list as long as it is the same: the
//     loops subscribe to the bits of a signature of their patterns as well, and the
//     numbers of these are asked for with each question.
//
// What a server keeps for a connection ends with it, as the subscriptions themselves
// do: a proxy that dies is no longer counted from the moment its connections end, a
// proxy whose machine vanishes when the server closes them (tcp-keepalive, 300 s by
// default, or at once when the proxy is shut out). While a loop's connection is being
// made again its clients are not counted, and do not get messages.
//
// While a number changes, it may be told too high for the instant between the two
// commands. What a script publishes, and says in its reply, counts loops.

// Internal begins the names that proxies use among themselves.
const Internal = "__basalt__:"

const (
	// fewBits are asked for at first; who has more says so by the bit manyBits.
	fewBits  = 7
	manyBits = 24
	// signatureBits are those of the patterns' signature, of which the last one is
	// set while there are any.
	signatureBits = 13
)

// bitName is the name of one bit of a loop's surplus.
func bitName(k Kind, bit int, name string) string {
	return Internal + "cps"[k:k+1] + strconv.Itoa(bit) + ":" + name
}

// bitsOf are the bits by which a surplus is told.
func bitsOf(surplus int) uint32 {
	bits := uint32(min(surplus, 1<<manyBits-1))
	if bits >= 1<<fewBits {
		bits |= 1 << manyBits
	}
	return bits
}

func signatureName(bit int) string { return Internal + "v" + strconv.Itoa(bit) }

// signature is made of the patterns of a loop that have a surplus.
type signature struct {
	sum      uint32
	patterns int
}

// seed makes signatures of one process comparable; those of others need not be.
var seed = maphash.MakeSeed()

// change takes a pattern in, or out.
func (s *signature) change(pattern string, in bool) {
	s.sum ^= uint32(maphash.String(seed, pattern))
	if s.patterns--; in {
		s.patterns += 2
	}
}

// bits are those that the loop subscribes to.
func (s *signature) bits() uint32 {
	if s.patterns == 0 {
		return 0
	}
	return s.sum&(1<<(signatureBits-1)-1) | 1<<(signatureBits-1)
}

// eachBit calls fn for the bits that are set.
func eachBit(bits uint32, fn func(bit int)) {
	for bit := 0; bits != 0; bit, bits = bit+1, bits>>1 {
		if bits&1 != 0 {
			fn(bit)
		}
	}
}

// SurplusPattern is the pattern of the names that tell of patterns.
const SurplusPattern = Internal + "p*"

// listed are the patterns of all proxies that have a surplus, as of the numbers that
// their signature had.
type listed struct {
	numbers  [signatureBits]int64
	patterns []string
}

// Inquiry is a question to one server for the surplus of names of one kind. It is
// asked as PUBSUB NUMSUB of Names.
type Inquiry struct {
	dir   *Directory
	kind  Kind
	names []string
	bits  int
	// matched: patterns that match channel count as well.
	matched  bool
	channel  string
	patterns []string
	numbers  [signatureBits]int64
	surplus  []int64
}

// Verdict is what an answer is good for.
type Verdict uint8

// Verdicts.
const (
	// Answered: the numbers are there.
	Answered Verdict = iota
	// AskAgain: the question was too short.
	AskAgain
	// ListFirst: there are other patterns than those that are known. Learn, and ask
	// again.
	ListFirst
)

// InquireReceivers asks for those who get a message, by its channel and by patterns.
func (d *Directory) InquireReceivers(k Kind, channel string) *Inquiry {
	return &Inquiry{dir: d, kind: k, names: []string{channel}, bits: fewBits, matched: k == Channel, channel: channel}
}

// InquireMatching asks for those who get a message by patterns only.
func (d *Directory) InquireMatching(channel string) *Inquiry {
	return &Inquiry{dir: d, bits: fewBits, matched: true, channel: channel}
}

// InquireSubscribers asks for those who listen to names.
func (d *Directory) InquireSubscribers(k Kind, names []string) *Inquiry {
	return &Inquiry{dir: d, kind: k, names: names, bits: manyBits}
}

// Names are what the server is to be asked about.
func (q *Inquiry) Names() (names []string) {
	if q.matched {
		for bit := range signatureBits {
			names = append(names, signatureName(bit))
		}
		q.patterns = q.dir.matching(q.channel)
	}
	add := func(k Kind, name string) {
		for bit := range q.bits {
			names = append(names, bitName(k, bit, name))
		}
		names = append(names, bitName(k, manyBits, name))
	}
	for _, name := range q.names {
		add(q.kind, name)
	}
	for _, pattern := range q.patterns {
		add(Pattern, pattern)
	}
	return names
}

// SignatureNames are what the server is to be asked about before it lists
// SurplusPattern.
func SignatureNames() (names []string) {
	for bit := range signatureBits {
		names = append(names, signatureName(bit))
	}
	return names
}

// Learn takes the numbers of SignatureNames and the list that came after.
func (d *Directory) Learn(numbers []int64, names []string) {
	if len(numbers) != signatureBits {
		return
	}
	patterns := map[string]struct{}{}
	for _, name := range names {
		if _, pattern, ok := strings.Cut(strings.TrimPrefix(name, Internal), ":"); ok {
			patterns[pattern] = struct{}{}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listed = listed{[signatureBits]int64(numbers), slices.Collect(maps.Keys(patterns))}
}

// matching are the patterns with a surplus that match a channel, as far as they are
// known.
func (d *Directory) matching(channel string) (patterns []string) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, pattern := range d.listed.patterns {
		if glob.Match(pattern, channel) {
			patterns = append(patterns, pattern)
		}
	}
	return patterns
}

// Take takes the server's numbers for Names.
func (q *Inquiry) Take(numbers []int64) Verdict {
	want := (len(q.names) + len(q.patterns)) * (q.bits + 1)
	if q.matched {
		want += signatureBits
	}
	if len(numbers) != want {
		return Answered // nothing can be learned of it
	}
	if q.matched {
		numbers = numbers[copy(q.numbers[:], numbers):]
	}
	q.surplus = make([]int64, len(q.names)+len(q.patterns))
	more := false
	for i := range q.surplus {
		for bit, n := range numbers[:q.bits] {
			q.surplus[i] += n << bit
		}
		more = more || numbers[q.bits] > 0
		numbers = numbers[q.bits+1:]
	}
	switch {
	case more && q.bits < manyBits:
		q.bits = manyBits
		return AskAgain
	case q.matched && !q.dir.lists(&q.numbers):
		return ListFirst
	}
	return Answered
}

// lists tells if the known patterns are those of a signature.
func (d *Directory) lists(numbers *[signatureBits]int64) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.listed.numbers == *numbers
}

// Elsewhere is how many more clients other proxies have than loops, of the name with
// this index.
func (q *Inquiry) Elsewhere(i int) int64 {
	if q.surplus == nil {
		return 0
	}
	q.dir.mu.RLock()
	defer q.dir.mu.RUnlock()
	return max(q.surplus[i]-q.dir.told(q.kind, q.names[i]), 0)
}

// AllElsewhere is how many more they have of all that was asked about.
func (q *Inquiry) AllElsewhere() (n int64) {
	for i := range q.names {
		n += q.Elsewhere(i)
	}
	if q.surplus == nil {
		return n
	}
	q.dir.mu.RLock()
	defer q.dir.mu.RUnlock()
	for i, pattern := range q.patterns {
		n += max(q.surplus[len(q.names)+i]-q.dir.told(Pattern, pattern), 0)
	}
	return n
}

// told is the surplus that this proxy's loops told the server.
func (d *Directory) told(k Kind, name string) int64 { return int64(d.names[k][name].told) }

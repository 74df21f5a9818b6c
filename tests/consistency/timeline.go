package consistency

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Class is how a request ended.
type Class uint8

// Classes.
const (
	// OK: a reply that is no error.
	OK Class = iota
	// InFlight: the proxy said that the command may or may not have been
	// executed.
	InFlight
	// Down: the proxy refused the request because nobody served its slot; it
	// was not executed.
	Down
	// Refused: no connection to the proxy could be made; nothing was sent.
	Refused
	// Disconnected: the connection to the proxy broke while the request was in
	// flight.
	Disconnected
	// Other: any other error reply.
	Other
)

var classNames = [...]string{"ok", "in flight", "cluster down", "refused", "disconnected", "other"}

// String names the class.
func (c Class) String() string { return classNames[c] }

func (c Class) neverSent() bool { return c == Down || c == Refused }

// classify judges an error reply.
func classify(err error) Class {
	switch text := err.Error(); {
	case strings.Contains(text, "may or may not have been executed"):
		return InFlight
	case strings.HasPrefix(text, "CLUSTERDOWN"):
		return Down
	}
	return Other
}

// Record is one request.
type Record struct {
	// Start is the time since the load began.
	Start   time.Duration
	Latency time.Duration
	Shard   int
	Conn    int
	Write   bool
	// Key and Version that a write was for.
	Key     string
	Version int64
	Class   Class
	// Text of the error.
	Text string
}

// End is when the reply was there, since the load began.
func (r Record) End() time.Duration { return r.Start + r.Latency }

// Timeline is every request of a load, by Start.
type Timeline []Record

// Where returns the records that match.
func (t Timeline) Where(match func(Record) bool) Timeline {
	var out Timeline
	for _, r := range t {
		if match(r) {
			out = append(out, r)
		}
	}
	return out
}

// Touching returns the records that were in progress at some time from a to b.
func (t Timeline) Touching(a, b time.Duration) Timeline {
	return t.Where(func(r Record) bool { return r.End() >= a && r.Start <= b })
}

// Shard returns the records of one shard.
func (t Timeline) Shard(shard int) Timeline {
	return t.Where(func(r Record) bool { return r.Shard == shard })
}

// OtherShards returns the records of all shards but one.
func (t Timeline) OtherShards(shard int) Timeline {
	return t.Where(func(r Record) bool { return r.Shard != shard })
}

// Errors returns the records that ended in an error.
func (t Timeline) Errors() Timeline {
	return t.Where(func(r Record) bool { return r.Class != OK })
}

// Longest is the request with the highest latency; the zero Record when there
// is none.
func (t Timeline) Longest() Record {
	if len(t) == 0 {
		return Record{}
	}
	return slices.MaxFunc(t, func(a, b Record) int { return cmp.Compare(a.Latency, b.Latency) })
}

// Quantile returns the latency that a share q of the requests stays below.
func (t Timeline) Quantile(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	all := make([]time.Duration, len(t))
	for i, r := range t {
		all[i] = r.Latency
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(q*float64(len(all))))]
}

// Gap is a span in which no write was acknowledged.
type Gap struct{ From, To time.Duration }

// Length of the gap.
func (g Gap) Length() time.Duration { return g.To - g.From }

// LongestWriteGap is the longest span between two acknowledged writes one of
// which ended between a and b. ok is false when no write was acknowledged after
// the last one before b, that is when writes did not resume.
func (t Timeline) LongestWriteGap(a, b time.Duration) (gap Gap, ok bool) {
	var ends []time.Duration
	for _, r := range t {
		if r.Write && r.Class == OK && r.End() >= a && r.End() <= b {
			ends = append(ends, r.End())
		}
	}
	if len(ends) == 0 {
		return Gap{a, b}, false
	}
	slices.Sort(ends)
	last := a
	for _, end := range ends {
		if end-last > gap.Length() {
			gap = Gap{last, end}
		}
		last = end
	}
	if b-last > gap.Length() {
		return Gap{last, b}, false
	}
	return gap, true
}

// ErrorTexts counts errors by class and text, for messages.
func (t Timeline) ErrorTexts() string {
	counts := map[string]int{}
	for _, r := range t.Errors() {
		counts[fmt.Sprintf("[%s] %s", r.Class, r.Text)]++
	}
	if len(counts) == 0 {
		return "none"
	}
	var lines []string
	for text, n := range counts {
		lines = append(lines, fmt.Sprintf("%d × %s", n, text))
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

// Summary is one line for people.
func (t Timeline) Summary() string {
	if len(t) == 0 {
		return "no requests"
	}
	longest := t.Longest()
	return fmt.Sprintf("%d requests, p50 %s, p99 %s, p99.9 %s, longest %s, errors %d",
		len(t), round(t.Quantile(0.5)), round(t.Quantile(0.99)), round(t.Quantile(0.999)), round(longest.Latency), len(t.Errors()))
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

package fanout

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tidwall/redcon"
)

// LatencyLatest joins replies to LATENCY LATEST: of each event the latest spike
// of any shard, and the highest of all.
func LatencyLatest(dst []byte, parts [][]byte) ([]byte, error) {
	type event struct{ time, latest, highest int64 }
	events := map[string]event{}
	for _, part := range parts {
		items, err := list(part)
		if err != nil {
			return dst, err
		}
		for _, item := range items {
			if len(item.items) < 4 {
				return dst, ErrReply
			}
			name := string(item.items[0].text)
			e, at := events[name], item.items[1].integer()
			if at > e.time || at == e.time && item.items[2].integer() > e.latest {
				e.time, e.latest = at, item.items[2].integer()
			}
			e.highest = max(e.highest, item.items[3].integer())
			events[name] = e
		}
	}
	dst = redcon.AppendArray(dst, len(events))
	for _, name := range slices.Sorted(maps.Keys(events)) {
		e := events[name]
		dst = redcon.AppendBulkString(redcon.AppendArray(dst, 4), name)
		dst = redcon.AppendInt(redcon.AppendInt(redcon.AppendInt(dst, e.time), e.latest), e.highest)
	}
	return dst, nil
}

// LatencyHistory joins replies to LATENCY HISTORY, the oldest first.
func LatencyHistory(dst []byte, parts [][]byte) ([]byte, error) {
	var all []value
	for _, part := range parts {
		items, err := list(part)
		if err != nil {
			return dst, err
		}
		all = append(all, items...)
	}
	for _, item := range all {
		if len(item.items) != 2 {
			return dst, ErrReply
		}
	}
	slices.SortStableFunc(all, func(a, b value) int { return cmp.Compare(a.items[0].integer(), b.items[0].integer()) })
	dst = redcon.AppendArray(dst, len(all))
	for _, item := range all {
		dst = redcon.AppendInt(redcon.AppendInt(redcon.AppendArray(dst, 2), item.items[0].integer()), item.items[1].integer())
	}
	return dst, nil
}

// Histogram of one command: calls, and how many of them fell into a bucket, by
// its upper bound in microseconds.
type Histogram struct {
	Calls   int64
	Buckets map[int64]int64
}

// LatencyHistogram joins replies to LATENCY HISTOGRAM by adding them up. In a
// reply each bucket counts the ones below it as well, and those that count no
// more than the one before are left out. Of the replies, what is about commands
// that counts says no to is left out; own are further commands.
func LatencyHistogram(dst []byte, parts [][]byte, proto uint8, counts func(name string) bool, own map[string]*Histogram) ([]byte, error) {
	commands := map[string]*Histogram{}
	maps.Copy(commands, own)
	for _, part := range parts {
		items, err := pairs(part)
		if err != nil {
			return dst, err
		}
		for i := 0; i < len(items); i += 2 {
			name := string(items[i].text)
			if !counts(name) {
				continue
			}
			h := commands[name]
			if h == nil {
				h = &Histogram{Buckets: map[int64]int64{}}
				commands[name] = h
			}
			if err := h.add(items[i+1].items); err != nil {
				return dst, err
			}
		}
	}
	dst = appendMap(dst, proto, len(commands))
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		h := commands[name]
		dst = appendMap(redcon.AppendBulkString(dst, name), proto, 2)
		dst = redcon.AppendInt(redcon.AppendBulkString(dst, "calls"), h.Calls)
		dst = appendMap(redcon.AppendBulkString(dst, "histogram_usec"), proto, len(h.Buckets))
		below := int64(0)
		for _, bound := range slices.Sorted(maps.Keys(h.Buckets)) {
			below += h.Buckets[bound]
			dst = redcon.AppendInt(redcon.AppendInt(dst, bound), below)
		}
	}
	return dst, nil
}

func (h *Histogram) add(fields []value) error {
	if len(fields) != 4 || len(fields[3].items)%2 != 0 {
		return ErrReply
	}
	h.Calls += fields[1].integer()
	below := int64(0)
	for i := 0; i < len(fields[3].items); i += 2 {
		bound, upTo := fields[3].items[i].integer(), fields[3].items[i+1].integer()
		h.Buckets[bound] += upTo - below
		below = upTo
	}
	return nil
}

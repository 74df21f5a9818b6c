package fanout

import (
	"cmp"
	"slices"

	"github.com/tidwall/redcon"
)

// The slow log of a cluster is that of all its masters, the newest entry first.
// An entry has the six fields of Redis's; in place of the client's name, which a
// server does not know behind a proxy, stands the node.
//
// Servers number their entries from 0 each, so the numbers are made anew: from
// the time of the entry in seconds, the server's number and the shard, 53 bits in
// all, which is what every client's integers hold. They rise with time, are the
// same whenever and through whichever proxy one asks, and go on rising when a
// server starts again or another becomes master, so a tool that remembers the
// highest one it saw does not miss an entry.

const (
	// slowEpoch is the year 2020 in seconds; 29 bits last until 2037.
	slowEpoch     = 1577836800
	slowTimeBits  = 29
	slowCountBits = 14
	slowShardBits = 10
)

type slowEntry struct {
	id, time int64
	shard    int
	fields   [][]byte
}

// number is the entry's id.
func (e *slowEntry) number() int64 {
	since := max(e.time-slowEpoch, 0) & (1<<slowTimeBits - 1)
	return (since<<slowCountBits|e.id&(1<<slowCountBits-1))<<slowShardBits | int64(e.shard)&(1<<slowShardBits-1)
}

// SlowLog joins replies to SLOWLOG GET; nodes are the nodes that gave them. At
// most count entries are left, all when count is negative. Entries of the same
// second are in the order of the servers' numbers.
func SlowLog(dst []byte, parts [][]byte, nodes []string, count int64) ([]byte, error) {
	var all []slowEntry
	for i, part := range parts {
		entries, err := Elements(part)
		if err != nil {
			return dst, err
		}
		for _, raw := range entries {
			e := slowEntry{shard: i}
			if e.fields, err = Elements(raw); err != nil || len(e.fields) < 6 {
				return dst, ErrReply
			}
			if e.id, err = Integer(e.fields[0]); err == nil {
				e.time, err = Integer(e.fields[1])
			}
			if err != nil {
				return dst, err
			}
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b slowEntry) int {
		return cmp.Or(cmp.Compare(b.time, a.time), cmp.Compare(b.id, a.id))
	})
	if count >= 0 && int64(len(all)) > count {
		all = all[:count]
	}
	dst = redcon.AppendArray(dst, len(all))
	for _, e := range all {
		dst = redcon.AppendArray(dst, 6)
		dst = redcon.AppendInt(dst, e.number())
		for _, field := range e.fields[1:5] {
			dst = append(dst, field...)
		}
		dst = redcon.AppendBulkString(dst, nodes[e.shard])
	}
	return dst, nil
}

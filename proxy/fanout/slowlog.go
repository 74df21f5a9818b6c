package fanout

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/command"
)

// The slow log of a cluster.
//
// Goal: SLOWLOG tells what clients did, as one server's would: with the client's
// address and name, the newest first, never more entries than slowlog-max-len; and
// at which node. A command is there once, or once for each shard that executed it.
//
//  1. Servers measure what they execute. An entry of theirs has the proxy's address
//     and no name, so this proxy looks for the command among those it saw (Seen):
//     the same words, underway at that second, for at least as long. Of commands
//     that came through another proxy the address stays that proxy's.
//  2. What the proxy answers itself, or asks every server for in order to answer,
//     it measures itself (Seen.Own). What servers log of such commands, Basalt's
//     own among them, is left out (Logged).
//  3. Servers tell whole seconds. Within one, an entry stands where the proxy saw
//     its end, one that it did not see behind the one before it in its server.
//
// An entry has the six fields of Redis's. The node stands in front of the client's
// address, "shard-0-0/127.0.0.1:50000", which leaves what follows the last colon a
// port; in an entry of the proxy's it is "proxy".
//
// Servers number their entries from 0 each, so the numbers are made anew: from
// the time of the entry in seconds, the server's number and the shard, 53 bits in
// all, which is what every client's integers hold. They rise with the seconds, are the
// same whenever and through whichever proxy one asks, and go on rising when a
// server starts again or another becomes master, so a tool that remembers the
// highest one it saw does not miss an entry.
const (
	// slowEpoch is the year 2020 in seconds; 29 bits last until 2037.
	slowEpoch     = 1577836800
	slowTimeBits  = 29
	slowCountBits = 14
	slowShardBits = 10
	// ownShard stands for the proxy.
	ownShard = 1<<slowShardBits - 1
)

// Seen is a command that took long, as the proxy saw it.
type Seen struct {
	// ID rises with each.
	ID int64
	// Start is when it was parsed, End when it was answered.
	Start, End time.Time
	// Client is its address, Name what it set with CLIENT SETNAME.
	Client, Name string
	// Args as servers keep them: shortened.
	Args []string
	// Own: the proxy answered it, or joined the answers of all servers.
	Own bool
}

// Logged tells if servers log a command as clients sent it; else the proxy does.
func Logged(spec *command.Spec) bool {
	switch {
	case spec.OnShards():
		return true
	case spec.Kind == command.PubSub:
		return spec.Name == "publish" || spec.Name == "spublish"
	case spec.Kind != command.AllShards:
		return false
	}
	switch base, _, _ := strings.Cut(spec.Name, "|"); base {
	case "info", "role", "lastsave", "slowlog", "latency", "memory", "config":
		return false
	}
	return true
}

// SlowLog is what there is to say of slow commands.
type SlowLog struct{ entries []slowEntry }

type slowEntry struct {
	id, time, duration int64
	at                 time.Time
	shard              int
	args               []string
	node, client, name string
}

// number is the entry's id.
func (e *slowEntry) number() int64 {
	since := max(e.time-slowEpoch, 0) & (1<<slowTimeBits - 1)
	return (since<<slowCountBits|e.id&(1<<slowCountBits-1))<<slowShardBits | int64(e.shard)&(1<<slowShardBits-1)
}

// Slow joins replies to SLOWLOG GET, which nodes gave, and what the proxy saw. At
// most the newest entries are left, those of slowlog-max-len.
func Slow(parts [][]byte, nodes []string, seen []Seen, most int64) (SlowLog, error) {
	var log SlowLog
	index := map[string][]*Seen{} // the newest last
	for i := range seen {
		s := &seen[i]
		if s.Own {
			log.entries = append(log.entries, slowEntry{
				id: s.ID, time: s.End.Unix(), duration: s.End.Sub(s.Start).Microseconds(), at: s.End, shard: ownShard,
				args: s.Args, node: "proxy", client: s.Client, name: s.Name,
			})
			continue
		}
		key := strings.Join(s.Args, "\x00")
		index[key] = append(index[key], s)
	}
	for shard, part := range parts {
		if part == nil { // it did not come
			continue
		}
		entries, err := readSlow(part, shard)
		if err != nil {
			return log, err
		}
		var before time.Time
		for i := len(entries) - 1; i >= 0; i-- { // the oldest first
			e := &entries[i]
			e.node, e.at = nodes[shard], time.Unix(e.time, 0)
			if s := e.find(index); s != nil {
				e.client, e.name = s.Client, s.Name
				if s.End.After(e.at) {
					e.at = s.End
				}
				if last := time.Unix(e.time+1, -1); e.at.After(last) {
					e.at = last
				}
			}
			if e.at.Before(before) {
				e.at = before
			}
			before = e.at
		}
		log.entries = append(log.entries, entries...)
	}
	slices.SortStableFunc(log.entries, func(a, b slowEntry) int {
		return cmp.Or(b.at.Compare(a.at), cmp.Compare(b.id, a.id))
	})
	log.limit(most)
	return log, nil
}

// readSlow reads a reply to SLOWLOG GET, without what the proxy logs itself.
func readSlow(part []byte, shard int) (entries []slowEntry, err error) {
	items, err := list(part)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		f := item.items
		if len(f) < 6 || f[0].kind != ':' || f[1].kind != ':' || len(f[3].items) == 0 {
			return nil, ErrReply
		}
		e := slowEntry{id: f[0].integer(), time: f[1].integer(), duration: f[2].integer(), shard: shard, client: string(f[4].text), name: string(f[5].text)}
		var words [][]byte
		for _, arg := range f[3].items {
			e.args, words = append(e.args, string(arg.text)), append(words, arg.text)
		}
		if spec, _ := command.Lookup(words); spec == nil || Logged(spec) {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// find takes the command out of the index that an entry is about; nil when there
// is none.
func (e *slowEntry) find(index map[string][]*Seen) *Seen {
	key := strings.Join(e.args, "\x00")
	for i, s := range index[key] {
		long := s.End.Sub(s.Start) + time.Millisecond
		if s.Start.Unix() <= e.time+1 && s.End.Unix() >= e.time-1 && long >= time.Duration(e.duration)*time.Microsecond {
			index[key] = slices.Delete(index[key], i, i+1)
			return s
		}
	}
	return nil
}

// limit leaves the newest entries; all when most is negative.
func (l *SlowLog) limit(most int64) {
	if most >= 0 && int64(len(l.entries)) > most {
		l.entries = l.entries[:most]
	}
}

// Len is the number of entries.
func (l *SlowLog) Len() int { return len(l.entries) }

// Append appends the reply to SLOWLOG GET: at most count entries, all when it is
// negative.
func (l *SlowLog) Append(dst []byte, count int64) []byte {
	l.limit(count)
	dst = redcon.AppendArray(dst, len(l.entries))
	for i := range l.entries {
		e := &l.entries[i]
		dst = redcon.AppendArray(dst, 6)
		dst = redcon.AppendInt(redcon.AppendInt(redcon.AppendInt(dst, e.number()), e.time), e.duration)
		dst = redcon.AppendArray(dst, len(e.args))
		for _, arg := range e.args {
			dst = redcon.AppendBulkString(dst, arg)
		}
		dst = redcon.AppendBulkString(redcon.AppendBulkString(dst, e.node+"/"+e.client), e.name)
	}
	return dst
}

package topology

import (
	"cmp"
	"slices"
	"strings"
)

// MarkPrefix begins the names of ACL users by which servers say which node they are.
const MarkPrefix = "basalt-node:"

// Mark is the name of the ACL user, which is off, by which a server says that it is
// a node of a cluster. No name has a ":" in it.
func Mark(c *Cluster, shard, node string) string {
	return strings.Join([]string{MarkPrefix + cmp.Or(c.UID, c.Name), shard, node}, ":")
}

// IsMark tells if an ACL user is a mark.
func IsMark(user string) bool { return strings.HasPrefix(user, MarkPrefix) }

// OtherMark finds among ACL users the mark of another node than the one with this
// mark; "" when there is none.
func OtherMark(users []string, own string) string {
	i := slices.IndexFunc(users, func(u string) bool { return IsMark(u) && u != own })
	if i < 0 {
		return ""
	}
	return users[i]
}

// MarkedAs says in words which node a mark names.
func MarkedAs(c *Cluster, mark string) string {
	name := strings.TrimPrefix(mark, MarkPrefix)
	parts := strings.SplitN(name, ":", 3)
	switch {
	case len(parts) < 3:
		return name
	case parts[0] == cmp.Or(c.UID, c.Name):
		return parts[2] + " of " + parts[1]
	}
	return parts[2] + " of " + parts[1] + " in another cluster (uid " + parts[0] + ")"
}

// Knows tells if a replication id is one of the shard's history.
func (s *Shard) Knows(replID string) bool {
	return replID != "" && slices.ContainsFunc(s.Histories, func(h History) bool { return h.ReplID == replID })
}

// History returns the newest of the shard's histories, which the present or last
// master wrote; the zero value when none is known.
func (s *Shard) History() History {
	if len(s.Histories) == 0 {
		return History{}
	}
	return s.Histories[len(s.Histories)-1]
}

// Continue adds the history that the shard's new master writes. One that is known
// already is gone back to: what came after it is no part of the shard's data any more.
func (s *Shard) Continue(h History) {
	if h.ReplID == "" {
		return
	}
	if s.Knows(h.ReplID) {
		s.GoBack(h.ReplID)
		return
	}
	s.Histories = append(slices.Clone(s.Histories), h)
	if n := len(s.Histories); n > MaxHistories {
		s.Histories = s.Histories[n-MaxHistories:]
	}
}

// GoBack makes a known history the newest.
func (s *Shard) GoBack(replID string) {
	i := slices.IndexFunc(s.Histories, func(h History) bool { return h.ReplID == replID })
	if i >= 0 {
		s.Histories = slices.Clone(s.Histories[:i+1])
	}
}

// Place is where a node stands in the shard's stream of writes, in bytes, by what it
// says: at offset in the history replID. -1 when that cannot be told.
func (s *Shard) Place(replID string, offset int64) int64 {
	beyond := s.Beyond(replID, offset)
	if beyond < 0 {
		return -1
	}
	return offset - beyond
}

// Beyond is how many bytes of the stream that a node stands at, offset in the
// history replID, are no part of the shard's data: it wrote or got them from a master
// whose place another took. -1 when that cannot be told.
func (s *Shard) Beyond(replID string, offset int64) int64 {
	i := slices.IndexFunc(s.Histories, func(h History) bool { return h.ReplID == replID })
	switch {
	case i < 0 || offset < 0:
		return -1
	case i == len(s.Histories)-1:
		return 0
	case s.Histories[i+1].Start < 0:
		return -1
	}
	return max(0, offset-s.Histories[i+1].Start)
}

// Members are the ids of the nodes in the in-sync set.
func (s *Shard) Members() (ids []string) {
	for i := range s.Nodes {
		if s.Nodes[i].InSync {
			ids = append(ids, s.Nodes[i].ID)
		}
	}
	return ids
}

// Complete fills in what a record does not say that was written before there were
// in-sync sets: the master had everything, and who could be read was close behind.
func (c *Cluster) Complete() {
	for i := range c.Shards {
		s := &c.Shards[i]
		if len(s.Members()) > 0 || c.Phase == Forming && s.Master == "" {
			continue
		}
		for j := range s.Nodes {
			n := &s.Nodes[j]
			n.InSync = n.Incarnation != "" && (n.ID == s.Master || n.InReadSet || s.Operation != nil && s.Operation.OldMaster == n.ID)
		}
	}
}

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

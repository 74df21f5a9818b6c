package health

import (
	"fmt"
	"slices"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Identity: who answers at a node's address.
//
// An address is not an identity: a pod's IP is used again, a DNS record is stale,
// a port forward ends at another server. So a server says itself who it is, by the
// name of an ACL user that is off (topology.Mark): it is set when the server is
// admitted, and stands in the configuration of servers that are to say it as soon as
// they start. It costs nothing to read, since probes list the users anyway.
//
// Nothing that changes a server is sent before this was judged on the connection it
// is sent over.

// Stranger says in what way the server that answers at a node's address is not the
// node; "" when it is. What is said follows the node's name in a sentence.
//
//  1. The admitted process is the node, whatever else is seen.
//  2. A process that was admitted as another node of the cluster is that one.
//  3. A server with the mark of another node, of this cluster or another, is that
//     one.
//  4. A server with the node's own mark is the node; it restarted.
//  5. Without a mark, it may be taken when it is empty, or when what it holds is of
//     the shard's history, or when an admin said that its data may be discarded, or
//     is to become the first of its shard.
func Stranger(c *topology.Cluster, s *topology.Shard, n *topology.Node, info *redisadmin.Info, users []string) string {
	if n.Incarnation != "" && info.RunID == n.Incarnation {
		return ""
	}
	if _, other := admittedAs(c, info.RunID); other != nil {
		return fmt.Sprintf("another server answers at %s: node %s", n.Address, other.ID)
	}
	if n.Discard != "" && n.Discard == info.RunID {
		return ""
	}
	own := topology.Mark(c, s.ID, n.ID)
	if mark := topology.OtherMark(users, own); mark != "" {
		return fmt.Sprintf("another server answers at %s: it says it is %s", n.Address, topology.MarkedAs(c, mark))
	}
	first := s.Master == "" && c.Phase == topology.Forming && s.Nodes[0].ID == n.ID
	if slices.Contains(users, own) || first || info.Keys <= 0 || s.Knows(info.ReplID) || s.Knows(info.ReplID2) {
		return ""
	}
	text := fmt.Sprintf("the server at %s holds %d keys and does not say which node it is: if it is %s, restart it with the line \"user %s off\" in its configuration",
		n.Address, info.Keys, n.ID, own)
	if n.ID != s.Master && (s.Operation == nil || s.Operation.OldMaster != n.ID) {
		text += fmt.Sprintf("; if its data is of no use, `basaltctl node register %s %s %s %s --discard-data`", c.Name, s.ID, n.ID, n.Address)
	}
	return text
}

// admittedAs finds the node that a process was admitted as.
func admittedAs(c *topology.Cluster, runID string) (*topology.Shard, *topology.Node) {
	if runID == "" {
		return nil, nil
	}
	for i := range c.Shards {
		for j := range c.Shards[i].Nodes {
			if c.Shards[i].Nodes[j].Incarnation == runID {
				return &c.Shards[i], &c.Shards[i].Nodes[j]
			}
		}
	}
	return nil, nil
}

// Stranger judges who answered a node's probes, as the function of that name; ""
// too while that is not known yet.
func (o *Observations) Stranger(c *topology.Cluster, s *topology.Shard, n *topology.Node) string {
	seen, known := o.Nodes[n.ID]
	if !known || seen.Info.RunID == "" || seen.Info.RunID == n.Incarnation || seen.UsersAt.IsZero() {
		return ""
	}
	return Stranger(c, s, n, &seen.Info, seen.Users)
}

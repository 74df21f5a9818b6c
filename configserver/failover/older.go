package failover

import (
	"fmt"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// A record that is older than its servers.
//
// etcd may be restored from a backup. Then masters changed that the record does not
// know of, and putting servers right by it would take the data from the master that
// proxies write to. So nothing is changed while somebody knows more than the record:
//
//   - A proxy obeys a later epoch (package control hears it).
//   - A server lets proxies of a later generation in. The generation after the
//     record's is granted before it is committed, but the operation that does so is
//     committed before; without one, that generation is a later one as well where
//     it is the only one: at a master that the record does not know as such, or at
//     the record's own and every other node that answers.
//
// An admin then has what the servers say taken over (adopt.go).

// RecordIsOlder is the problem of a cluster whose record is older than what somebody
// knows; none when why is empty.
func RecordIsOlder(c *topology.Cluster, why string) []Problem {
	if why == "" {
		return nil
	}
	return []Problem{ofCluster("RecordIsOlder", fmt.Sprintf(
		"%s: etcd was restored from an older backup, so nothing is changed at the servers, and no master that fails is replaced: look at `basaltctl topology adopt %s`", why, c.Name))}
}

// CredentialsNotOnFile is the problem of a cluster whose files cannot be read, or do not
// hold what is in use; none when why is empty.
func CredentialsNotOnFile(c *topology.Cluster, why string) []Problem {
	if why == "" {
		return nil
	}
	return []Problem{ofCluster("CredentialsNotOnFile", fmt.Sprintf(
		"credentials of %s: %s; what this Configserver knows still works, until it restarts", c.Name, why))}
}

// ofCluster is a problem of no single shard.
func ofCluster(code, message string) Problem {
	at := slices.IndexFunc(Table, func(r Row) bool { return r.Code == code })
	return Problem{Code: code, Priority: at, Severity: Table[at].Severity, Message: message}
}

// ofTheCluster is the match of a problem of no single shard.
func ofTheCluster(*situation) []found { return nil }

// Newer says what a server of a shard knows that is newer than the record, or "".
func Newer(c *topology.Cluster, s *topology.Shard, o *health.Observations, now time.Time) string {
	if c.Phase == topology.Deleting {
		return ""
	}
	next := s.Operation.Next(s.Generation)
	var live, moved int
	master := false
	for i := range s.Nodes {
		n := &s.Nodes[i]
		seen := o.Nodes[n.ID]
		if !o.Live(n.ID, now) || !ours(c, s, n, &seen) {
			continue
		}
		generation := redisadmin.Generation(seen.Users)
		if generation > next {
			return later(s, n.ID, generation)
		}
		live++
		if generation == next && !slices.ContainsFunc(seen.Users, func(u string) bool {
			of, ok := credentials.GenerationOf(u)
			return ok && of == s.Generation
		}) {
			moved++
			master = master || n.ID == s.Master
			if s.Operation == nil && seen.Info.Master && n.ID != s.Master {
				return later(s, n.ID, generation)
			}
		}
	}
	if s.Operation == nil && master && moved == live {
		return later(s, s.Master, next)
	}
	return ""
}

func later(s *topology.Shard, node string, generation uint64) string {
	return fmt.Sprintf("%s accepts proxies of generation %d, the record of %s says %d", node, generation, s.ID, s.Generation)
}

// ours tells if a server is the one that the record means: the process that was
// admitted, or one that is marked as this node.
func ours(c *topology.Cluster, s *topology.Shard, n *topology.Node, seen *health.Node) bool {
	mark := topology.Mark(c, s.ID, n.ID)
	if topology.OtherMark(seen.Users, mark) != "" {
		return false
	}
	return slices.Contains(seen.Users, mark) || n.Incarnation != "" && seen.Info.RunID == n.Incarnation
}

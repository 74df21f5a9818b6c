package failover

import (
	"fmt"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Servers of several versions in one shard.
//
// An upgrade goes server by server, so a shard may hold Redis and Valkey of several
// versions. Newer ones follow older ones. An older one may follow a newer one as long as
// it can go on where it stands: a full copy it cannot load (redisadmin.Software.Loads).
// A server empties itself before it finds that out, and tries again for ever, so it is
// never told to follow a master that would send it one.

// CannotCopy says why a server cannot become a replica of a master: it would need a full
// copy and cannot load it. "" when it can. What is said follows the node's name.
func CannotCopy(info, master *redisadmin.Info) string {
	if info.Software.Loads(master.Software) || info.GoesOn(master) {
		return ""
	}
	return fmt.Sprintf("runs %s, which cannot load a full copy from %s: run %s or later there", info.Software, master.Software, master.Software)
}

// cannotCopy is CannotCopy about nodes that were seen; "" too while that is not known.
func cannotCopy(o *health.Observations, n, master *topology.Node) string {
	of, from := o.Nodes[n.ID].Info, o.Nodes[master.ID].Info
	follows := !of.Master && of.LinkUp && of.MasterAddress == master.Endpoint()
	if of.RunID == "" || from.RunID == "" || from.RunID != master.Incarnation || follows {
		return ""
	}
	return CannotCopy(&of, &from)
}

// olderThanMaster: nodes that could not load a full copy of their master's data.
func olderThanMaster(x *situation) []found {
	return x.others(func(n *topology.Node, seen *health.Node) bool {
		master := x.o.Nodes[x.master.ID].Info
		return x.o.Live(n.ID, x.now) && x.o.Live(x.master.ID, x.now) && !seen.Info.Software.Loads(master.Software)
	}, func(n *topology.Node, seen *health.Node) string {
		if why := cannotCopy(x.o, n, x.master); why != "" {
			return fmt.Sprintf("%s %s; until then it is left as it is, and follows nobody", n.ID, why)
		}
		from := x.o.Nodes[x.master.ID].Info.Software
		return fmt.Sprintf("%s runs %s, which cannot load a full copy from its master's %s and does not know all that this writes: run %s or later there",
			n.ID, seen.Info.Software, from, from)
	})
}

// strands lists the nodes that could not load a full copy from a node, as far as it is
// known what they run.
func strands(s *topology.Shard, node string, o *health.Observations) (ids []string) {
	from := o.Nodes[node].Info.Software
	for i := range s.Nodes {
		if id := s.Nodes[i].ID; id != node && !o.Nodes[id].Info.Software.Loads(from) {
			ids = append(ids, id)
		}
	}
	return ids
}

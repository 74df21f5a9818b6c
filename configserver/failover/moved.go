package failover

import (
	"context"
	"fmt"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/resolve"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Nodes that are registered by a host name. Where an incarnation answered when it was
// admitted is committed with its run_id, and replicas and proxies use that. When the
// name means something else later:
//
//   - The same process answers there: its place is committed anew, before anybody is
//     told of it. A replica is admitted again; of a master only the place changes, and
//     its replicas are pointed at it next (ReplicatesFromWrongMaster).
//   - Another process answers there while the admitted one is well: nothing is done but
//     tell of it (NameLeadsElsewhere).
//   - The admitted process is gone, and another one is there: it restarted, or it is
//     somebody else (health.Stranger).

func masterMoved(x *situation) []found {
	if x.master == nil || x.operating() || !x.movedFrom(x.master) {
		return nil
	}
	return []found{{node: x.master.ID, message: x.movedMessage(x.master)}}
}

func replicaMoved(x *situation) []found {
	return x.others(func(n *topology.Node, _ *health.Node) bool { return x.movedFrom(n) },
		func(n *topology.Node, _ *health.Node) string { return x.movedMessage(n) })
}

// movedFrom tells if the admitted process of a node answers at another place than it
// was admitted at.
func (x *situation) movedFrom(n *topology.Node) bool {
	seen := x.o.Nodes[n.ID]
	return x.o.Admitted(n, x.now) && n.Moved(seen.Endpoint) && x.fresh(&seen)
}

func (x *situation) movedMessage(n *topology.Node) string {
	return fmt.Sprintf("%s, which was at %s, answers at %s now, where %s leads", n.ID, n.Endpoint(), x.o.Nodes[n.ID].Endpoint, n.Address)
}

// nameLeadsElsewhere: a node is well, and would not be found if it were looked for.
func nameLeadsElsewhere(x *situation) (list []found) {
	for i := range x.s.Nodes {
		n := &x.s.Nodes[i]
		if astray := x.o.Nodes[n.ID].Astray; astray != "" && x.o.Admitted(n, x.now) {
			list = append(list, found{node: n.ID, message: fmt.Sprintf("%s answers at %s, but %s leads to %s now, where it is not: nobody is sent there; correct the name, "+
				"or %s is not found any more when it restarts", n.ID, n.Endpoint(), n.Address, astray, n.ID)})
		}
	}
	return list
}

// Relocate commits where the admitted incarnation of a master answers now. It is
// judged on the connection that leads there.
func (x *Executor) Relocate(ctx context.Context, node string) error {
	s, n, err := x.find(node)
	if err != nil {
		return err
	}
	c, err := x.dialNode(ctx, s, n)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.Info.RunID != n.Incarnation {
		return fmt.Errorf("%s: %w", node, redisadmin.ErrIncarnation)
	}
	if !n.Moved(c.Remote()) {
		return fmt.Errorf("%s answers at %s, as is committed; the probe of it comes next", node, c.Remote())
	}
	_, err = x.host.Commit(ctx, x.shard+": "+node+" moved", func(r *topology.Cluster) ([]topology.Event, error) {
		s := r.Shard(x.shard)
		if r.Phase == topology.Deleting || s == nil || s.Node(node) == nil || s.Operation != nil ||
			s.Node(node).Incarnation != c.Info.RunID || s.Node(node).Address != n.Address {
			return nil, ErrSuperseded
		}
		s.Node(node).ReachedAt(c.Remote())
		return []topology.Event{{Time: time.Now(), Kind: "NodeMoved", Severity: topology.Info, Shard: s.ID, Node: node, Epoch: r.Epoch,
			Message: fmt.Sprintf("%s is at %s now and was at %s: replicas and proxies connect there", node, c.Remote(), n.Endpoint())}}, nil
	})
	if err != nil {
		return err
	}
	// It names itself by its new place.
	return x.Regrant(ctx, node)
}

// dial connects to whatever incarnation is a node now, only to look.
func (x *Executor) dial(ctx context.Context, n *topology.Node) (*redisadmin.Conn, error) {
	passwords := x.host.AdminPasswords(n.ID)
	seen := ""
	if !topology.Literal(n.Address) {
		seen = x.host.Observe(x.shard).Nodes[n.ID].Endpoint // what was decided is about whoever answers there
	}
	place, err := resolve.Locate(ctx, x.host.Resolve, n, passwords, seen)
	if err != nil {
		return nil, err
	}
	return redisadmin.Dial(ctx, place.Endpoint, passwords)
}

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) nodeMark() *cobra.Command {
	return &cobra.Command{
		Use: "mark [CLUSTER] NODE", Short: "Print the line that lets a server say which node it is", Args: between(1, 2),
		Long: `Print the line of a server's configuration that lets it say which node it is.

The Configserver marks every server that it admits with an ACL user that nobody
can log in as. A server that restarts has lost it, as all that is not in its
configuration, and is known by its address alone; but an address may have gone to
another server meanwhile. With this line in its configuration (or its ACL file) a
server says who it is as soon as it runs.`,
		RunE: a.about(callTimeout, 1, func(ctx context.Context, name string, rest []string) error {
			c, err := a.clusters().GetCluster(ctx, &basaltv1.GetClusterRequest{Name: name})
			if err != nil {
				return err
			}
			t, err := a.topologyAt(ctx, name, 0)
			if err != nil {
				return err
			}
			for _, s := range t.GetShards() {
				for _, n := range s.GetNodes() {
					if n.GetId() == rest[0] {
						return a.say("user %s off", topology.Mark(&topology.Cluster{Name: c.GetName(), UID: c.GetUid()}, s.GetId(), n.GetId()))
					}
				}
			}
			return usagef("node %s is not registered in cluster %s; `basaltctl topology show %s` lists those that are", rest[0], name, name)
		}),
	}
}

package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "Register, deregister and set nodes readable, and print the line that says which node a server is",
		a.nodeRegister(), a.nodeDeregister(), a.nodeReadable(), a.nodeMark())
}

// changed prints the topology after a change of a node, or says what was done
// to it and since which epoch.
func (a *app) changed(t *basaltv1.Topology, node, cluster, done string) error {
	if a.output == "json" {
		return a.printProto(t)
	}
	return a.say("%s of cluster %s%s (epoch %d)", node, cluster, done, t.GetEpoch())
}

func (a *app) nodeRegister() *cobra.Command {
	var priority uint32
	var discard bool
	cmd := &cobra.Command{
		Use: "register [CLUSTER] SHARD NODE HOST:PORT", Short: "Add a server to a shard", Args: between(3, 4),
		Long: `Add a server to a shard. The first node of a shard becomes its master while the
cluster forms; every later one becomes a replica and loses the data it holds.`,
		RunE: a.about(callTimeout, 3, func(ctx context.Context, name string, rest []string) error {
			t, err := call(ctx, a.clusters().RegisterNode, &basaltv1.RegisterNodeRequest{
				Cluster: name, Shard: rest[0], Node: rest[1], Address: rest[2],
				Priority: priority, DiscardData: discard,
			})
			if err != nil {
				return err
			}
			return a.changed(t, rest[1], name, ": registered")
		}),
	}
	cmd.Flags().Uint32Var(&priority, "priority", 0, "preference when a master is chosen, lower first (default 100)")
	cmd.Flags().BoolVar(&discard, "discard-data", false, "the server holds keys, and they may be lost")
	return cmd
}

func (a *app) nodeDeregister() *cobra.Command {
	return &cobra.Command{
		Use: "deregister [CLUSTER] NODE", Short: "Take a replica out of its shard", Args: between(1, 2),
		RunE: a.about(callTimeout, 1, func(ctx context.Context, name string, rest []string) error {
			t, err := call(ctx, a.clusters().DeregisterNode, &basaltv1.DeregisterNodeRequest{Cluster: name, Node: rest[0]})
			if err != nil {
				return err
			}
			return a.changed(t, rest[0], name, ": deregistered")
		}),
	}
}

func (a *app) nodeReadable() *cobra.Command {
	return &cobra.Command{
		Use: "readable [CLUSTER] NODE true|false", Short: "Let a node into the read set, or keep it out", Args: between(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			readable, err := strconv.ParseBool(args[len(args)-1])
			if err != nil {
				return usagef("%s: want true or false", args[len(args)-1])
			}
			may := " may serve reads"
			if !readable {
				may = " may not serve reads"
			}
			return a.about(callTimeout, 2, func(ctx context.Context, name string, rest []string) error {
				t, err := call(ctx, a.clusters().SetNodeReadable, &basaltv1.SetNodeReadableRequest{
					Cluster: name, Node: rest[0], Readable: readable,
				})
				if err != nil {
					return err
				}
				return a.changed(t, rest[0], name, may)
			})(cmd, args)
		},
	}
}

func (a *app) credentialsCommand() *cobra.Command {
	rotate := &cobra.Command{
		Use: "rotate [CLUSTER]", Short: "Put the credentials that are in the files now into force", Args: between(0, 1),
		Long: `Put the credentials that are in the Configserver's files now into force, without a
failed request. Put the new password on the first line of a file and the old one
on the second, rotate, and remove the second line afterwards.`,
		RunE: a.about(operationTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			reply, err := call(ctx, a.clusters().RotateCredentials, &basaltv1.RotateCredentialsRequest{Cluster: name})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(reply)
			}
			t := newTable("SHARD", "GENERATION").numbers(1)
			for _, shard := range sortedShards(reply.GetGenerations()) {
				t.row(shard, fmt.Sprint(reply.GetGenerations()[shard]))
			}
			return t.print(a.out)
		}),
	}
	return group("credentials", "Rotate passwords", rotate)
}

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Create, list, watch, change and delete clusters",
		a.clusterList(), a.clusterCreate(), a.clusterStatus(), a.clusterUpdate(), a.clusterConfig(), a.clusterDelete())
}

func (a *app) clusterList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List clusters", Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := a.within(cmd.Context(), callTimeout)
			defer cancel()
			list, err := a.clusters().ListClusters(ctx, &basaltv1.ListClustersRequest{})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(list)
			}
			if len(list.GetClusters()) == 0 {
				return a.say("no clusters; make one with `basaltctl cluster create`")
			}
			t := newTable("NAME", "STATE", "SHARDS", "NODES", "EPOCH", "AGE", "OWNER").numbers(2, 3, 4)
			for _, c := range list.GetClusters() {
				is := state(c.GetPhase(), c.GetNotServing())
				if !c.GetServingKnown() && c.GetPhase() == basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING {
					is = "not watched" // by any Configserver that answers
				}
				t.row(c.GetName(), is,
					fmt.Sprint(c.GetShards()), fmt.Sprint(c.GetShards()*c.GetNodesPerShard()),
					fmt.Sprint(c.GetEpoch()), a.age(c.GetCreatedAt()), orDash(c.GetOwner()))
			}
			return t.print(a.out)
		},
	}
}

func (a *app) clusterCreate() *cobra.Command {
	var shards, nodes uint32
	var policy policyFlags
	cmd := &cobra.Command{
		Use: "create CLUSTER", Short: "Create a cluster without nodes", Args: between(1, 1),
		Long: `Create a cluster without nodes. Register its nodes afterwards; it serves when
every shard has its nodes in sync. The cluster's credentials must be in the
Configserver's --credentials-dir.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.within(cmd.Context(), callTimeout)
			defer cancel()
			request := &basaltv1.CreateClusterRequest{
				Name: args[0], Shards: shards, NodesPerShard: nodes, Policy: &basaltv1.Policy{},
			}
			if err := policy.apply(cmd.Flags(), request.Policy); err != nil {
				return err
			}
			c, err := a.clusters().CreateCluster(ctx, request)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(c)
			}
			return a.say("cluster %s created; register its nodes with `basaltctl node register %s shard-0 shard-0-0 HOST:PORT`", c.GetName(), c.GetName())
		},
	}
	cmd.Flags().Uint32Var(&shards, "shards", 3, "shards, 1 to 1024")
	cmd.Flags().Uint32Var(&nodes, "nodes-per-shard", 2, "nodes in each shard, the master included, 1 to 6")
	policy.register(cmd.Flags())
	return cmd
}

func (a *app) clusterUpdate() *cobra.Command {
	var policy policyFlags
	cmd := &cobra.Command{
		Use: "update [CLUSTER]", Short: "Change a cluster's policy", Args: between(0, 1),
		Long: "Change a cluster's policy. What no flag names stays as it is.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !policy.changed(cmd.Flags()) {
				return usagef("say what to change; see `%s --help`", cmd.CommandPath())
			}
			return a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
				now, err := a.clusters().GetCluster(ctx, &basaltv1.GetClusterRequest{Name: name})
				if err != nil {
					return err
				}
				if err := policy.apply(cmd.Flags(), now.Policy); err != nil {
					return err
				}
				c, err := call(ctx, a.clusters().UpdateCluster, &basaltv1.UpdateClusterRequest{Name: name, Policy: now.Policy})
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.printProto(c)
				}
				if err := a.say("policy of cluster %s at epoch %d", c.GetName(), c.GetEpoch()); err != nil {
					return err
				}
				return policyTable(c.GetPolicy()).print(a.out)
			})(cmd, args)
		},
	}
	policy.register(cmd.Flags())
	return cmd
}

func (a *app) clusterDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete CLUSTER --yes", Aliases: []string{"rm"}, Short: "Forget a cluster; the data on its nodes is left alone", Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return usagef("this stops cluster %s from serving; say --yes if that is meant", args[0])
			}
			ctx, cancel := a.within(cmd.Context(), operationTimeout)
			defer cancel()
			reply, err := call(ctx, a.clusters().DeleteCluster, &basaltv1.DeleteClusterRequest{Name: args[0]})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(reply)
			}
			return a.say("cluster %s deleted; its nodes are fenced and keep their data", args[0])
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, delete it")
	return cmd
}

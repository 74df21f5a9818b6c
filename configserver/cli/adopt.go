package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) topologyAdopt() *cobra.Command {
	var yes, plan bool
	cmd := &cobra.Command{
		Use: "adopt [CLUSTER] [--yes]", Short: "Take over what the servers say, after etcd was restored from a backup", Args: between(0, 1),
		Long: `Take over what the servers say, after etcd was restored from a backup.

While proxies or servers know more than the record, the Configserver changes
nothing, and a master that fails is not replaced; clients are served on. Without
--yes, or with --plan, this shows what would be taken over: the masters, by the
servers' own word. Parameters, policy, users of applications and nodes that were
registered since stay as they are in the backup. With --yes it is committed, and
proxies follow without a restart.`,
		RunE: a.about(operationTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			if plan && yes {
				return usagef("--plan shows and --yes does it; give one of them")
			}
			reply, err := call(ctx, a.topologies().AdoptTopology, &basaltv1.AdoptTopologyRequest{Cluster: name, PlanOnly: !yes})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(reply)
			}
			return a.printAdopted(name, reply, yes)
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	cmd.Flags().BoolVar(&plan, "plan", false, "only show what would be taken over, as without --yes")
	return cmd
}

func (a *app) printAdopted(name string, reply *basaltv1.AdoptTopologyResponse, done bool) error {
	if err := a.say("the record is older than the servers: %s\n", reply.GetWhy()); err != nil {
		return err
	}
	table := newTable("SHARD", "MASTER", "IN THE RECORD", "GENERATION", "FOLLOWERS").numbers(3)
	var notes []string
	for _, s := range reply.GetShards() {
		table.row(s.GetShard(), s.GetMaster(), orDash(s.GetRecordedMaster()), fmt.Sprint(s.GetGeneration()), orDash(strings.Join(s.GetFollowers(), " ")))
		for _, note := range s.GetNotes() {
			notes = append(notes, s.GetShard()+": "+note)
		}
	}
	if err := table.print(a.out); err != nil {
		return err
	}
	for _, note := range notes {
		if err := a.say("%s", note); err != nil {
			return err
		}
	}
	if done {
		return a.say("\ncluster %s goes on from this as epoch %d", name, reply.GetEpoch())
	}
	return a.say("\nnothing was changed; `basaltctl topology adopt %s --yes` takes this over as epoch %d", name, reply.GetEpoch())
}

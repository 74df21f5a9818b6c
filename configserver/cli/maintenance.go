package cli

import (
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) maintenanceCommand() *cobra.Command {
	cmd := group("maintenance", "Pause automatic failover for a while", a.maintenanceOn(), a.maintenanceOff())
	cmd.Long = `Pause automatic failover for a while, of one shard or of a whole cluster: a master
that dies or hangs is not replaced then: its shard waits for it. Failovers that an admin asks for are done, and
servers that start again are looked after. cluster status shows it.`
	return cmd
}

func (a *app) maintenanceOn() *cobra.Command {
	var length time.Duration
	var reason string
	cmd := &cobra.Command{
		Use: "on CLUSTER [SHARD]", Short: "Replace no master that is lost", Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if length <= 0 || length > topology.MaxMaintenance {
				return usagef("--for %v: want more than 0 and at most %v", length, topology.MaxMaintenance)
			}
			return a.maintain(cmd, args, length, reason)
		},
	}
	cmd.Flags().DurationVar(&length, "for", time.Hour, "how `long`; then it ends by itself")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for others to `read`")
	return cmd
}

func (a *app) maintenanceOff() *cobra.Command {
	return &cobra.Command{
		Use: "off CLUSTER [SHARD]", Short: "Replace masters that are lost again", Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.maintain(cmd, args, 0, "") },
	}
}

// maintain begins a maintenance of a cluster or a shard, or ends it.
func (a *app) maintain(cmd *cobra.Command, args []string, length time.Duration, reason string) error {
	ctx, cancel := a.within(cmd.Context(), callTimeout)
	defer cancel()
	request := &basaltv1.SetMaintenanceRequest{Cluster: args[0], Length: durationpb.New(length), Reason: reason}
	what := "cluster " + args[0]
	if len(args) > 1 {
		request.Shard, what = args[1], args[1]
	}
	reply, err := call(ctx, a.clusters().SetMaintenance, request)
	switch {
	case err != nil:
		return err
	case a.output == "json":
		return a.printProto(reply)
	case length > 0:
		return a.say("%s: masters that are lost are not replaced for %v (epoch %d)", what, length, reply.GetEpoch())
	}
	return a.say("%s: masters that are lost are replaced again (epoch %d)", what, reply.GetEpoch())
}

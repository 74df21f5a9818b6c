package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) topologyCommand() *cobra.Command {
	return group("topology", "Show, list and watch epochs, wait for proxies to obey them, and go on after etcd was restored",
		a.topologyShow(), a.topologyEpochs(), a.topologyWatch(), a.topologyBarrier(), a.topologyAdopt())
}

func (a *app) topologyShow() *cobra.Command {
	var epoch uint64
	cmd := &cobra.Command{
		Use: "show [CLUSTER]", Short: "Show the topology, now or at an epoch", Args: between(0, 1),
		RunE: a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			t, err := a.topologyAt(ctx, name, epoch)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(t)
			}
			return a.printTopology(t)
		}),
	}
	cmd.Flags().Uint64Var(&epoch, "epoch", 0, "a past epoch instead of the newest")
	return cmd
}

func (a *app) topologyAt(ctx context.Context, name string, epoch uint64) (*basaltv1.Topology, error) {
	return a.topologies().GetTopology(ctx, &basaltv1.GetTopologyRequest{Cluster: name, Epoch: epoch})
}

func (a *app) printTopology(t *basaltv1.Topology) error {
	err := a.say("cluster %s is %s at epoch %d, committed %s ago: %s", t.GetCluster(), state(t.GetPhase(), t.GetNotServing()),
		t.GetEpoch(), a.age(t.GetCommittedAt()), orDash(t.GetReason()))
	if err != nil || len(t.GetShards()) == 0 {
		return err
	}
	a.printOutages(a.out, t.GetNotServing())
	if err := a.say(""); err != nil {
		return err
	}
	table := newTable("SHARD", "SLOTS", "MASTER", "NODES", "READ SET", "GENERATION", "STATE").numbers(5)
	for _, s := range t.GetShards() {
		var nodes, readSet []string
		for _, n := range s.GetNodes() {
			nodes = append(nodes, n.GetId())
			if n.GetInReadSet() {
				readSet = append(readSet, n.GetId())
			}
		}
		table.row(s.GetId(), orDash(slotRanges(s.GetSlots())), orDash(s.GetMaster()), orDash(strings.Join(nodes, " ")),
			orDash(strings.Join(readSet, " ")), fmt.Sprint(s.GetGeneration()), shardState(s, t.GetNotServing()))
	}
	return table.print(a.out)
}

// shardState says in a few words what a shard does.
func shardState(s *basaltv1.Shard, outages []*basaltv1.ShardOutage) string {
	var words []string
	if slices.ContainsFunc(outages, func(o *basaltv1.ShardOutage) bool { return o.GetShard() == s.GetId() }) {
		words = append(words, "NOT SERVING")
	}
	if op := s.GetOperation(); op != nil {
		words = append(words, enum(op.GetKind(), "OPERATION_KIND_")+" "+op.GetPhase())
	}
	if s.GetFrozen() {
		words = append(words, "frozen")
	}
	switch {
	case len(words) > 0:
		return strings.Join(words, ", ")
	case s.GetMaster() == "":
		return "no master"
	}
	return "-"
}

func (a *app) topologyEpochs() *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use: "epochs [CLUSTER]", Short: "List the epochs that are kept, newest first", Args: between(0, 1),
		RunE: a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			list, err := a.topologies().ListEpochs(ctx, &basaltv1.ListEpochsRequest{Cluster: name, Limit: limit})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(list)
			}
			t := newTable("EPOCH", "AGE", "PHASE", "REASON").numbers(0)
			for _, e := range list.GetEpochs() {
				t.row(fmt.Sprint(e.GetEpoch()), a.age(e.GetCommittedAt()), enum(e.GetPhase(), "CLUSTER_PHASE_"), orDash(e.GetReason()))
			}
			return t.print(a.out)
		}),
	}
	cmd.Flags().Uint32VarP(&limit, "limit", "n", 0, "how many (default 50)")
	return cmd
}

// watchInterval is how often `topology watch` looks. It reads what is
// committed; the stream of the API is for proxies only, which become members
// by it.
const watchInterval = 200 * time.Millisecond

func (a *app) topologyWatch() *cobra.Command {
	return &cobra.Command{
		Use: "watch [CLUSTER]", Short: "Show the topology, then every epoch as it is committed", Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.about(callTimeout, 0, func(_ context.Context, name string, _ []string) error {
				return a.watchTopology(cmd.Context(), name)
			})(cmd, args)
		},
	}
}

func (a *app) watchTopology(ctx context.Context, name string) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for last := uint64(0); ; {
		if err := a.showSince(ctx, name, &last); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// showSince prints the epochs after last, none left out as long as it is kept.
// A Configserver that is away is waited for.
func (a *app) showSince(ctx context.Context, name string, last *uint64) error {
	ctx, cancel := a.within(ctx, callTimeout)
	defer cancel()
	newest, err := a.topologyAt(ctx, name, 0)
	if status.Code(err) == codes.Unavailable {
		return nil
	}
	if err != nil || newest.GetEpoch() <= *last {
		return err
	}
	if *last == 0 {
		*last = newest.GetEpoch() - 1
	}
	for *last < newest.GetEpoch() {
		t, epoch := newest, *last+1
		if epoch < newest.GetEpoch() {
			t, err = a.topologyAt(ctx, name, epoch)
			if status.Code(err) == codes.NotFound { // compacted meanwhile
				*last = epoch
				continue
			}
			if err != nil {
				return err
			}
		}
		if a.output == "json" {
			err = a.printProtoLine(t)
		} else if err = a.printTopology(t); err == nil {
			err = a.say("")
		}
		if err != nil {
			return err
		}
		*last = epoch
	}
	return nil
}

func (a *app) topologyBarrier() *cobra.Command {
	var epoch uint64
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "barrier [CLUSTER]", Short: "Wait until every proxy obeys an epoch", Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.timeout > 0 && !cmd.Flags().Changed("wait") {
				wait = a.timeout
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), wait+5*time.Second)
			defer cancel()
			name, _, err := a.clusterAnd(ctx, args, 0)
			if err != nil {
				return err
			}
			reply, err := call(ctx, a.topologies().Barrier, &basaltv1.BarrierRequest{
				Cluster: name, Epoch: epoch, Timeout: durationpb.New(wait),
			})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(reply)
			}
			return a.say("all proxies (%d) obey epoch %d or a later one", len(reply.GetProxies()), reply.GetEpoch())
		},
	}
	cmd.Flags().Uint64Var(&epoch, "epoch", 0, "the epoch (default: the newest)")
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long to wait")
	return cmd
}

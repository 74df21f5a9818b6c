package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) eventsCommand() *cobra.Command {
	return group("events", "List and watch what happened to a cluster",
		a.eventsList(), a.eventsShow(), a.eventsWatch())
}

func (a *app) eventsList() *cobra.Command {
	var after uint64
	var limit uint32
	var reports bool
	cmd := &cobra.Command{
		Use: "list [CLUSTER]", Aliases: []string{"ls"}, Short: "List kept events, oldest first", Args: between(0, 1),
		RunE: a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			list, err := a.events().ListEvents(ctx, &basaltv1.ListEventsRequest{Cluster: name, After: after, Limit: limit})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(list)
			}
			if reports {
				for _, e := range list.GetEvents() {
					a.printEvent(e, true)
				}
				return nil
			}
			t := newTable("SEQ", "AGE", "SEVERITY", "KIND", "WHERE", "EPOCH", "MESSAGE").numbers(0, 5)
			for _, e := range list.GetEvents() {
				t.row(fmt.Sprint(e.GetSequence()), a.age(e.GetTime()), enum(e.GetSeverity(), "SEVERITY_"), e.GetKind(),
					where(e), fmt.Sprint(e.GetEpoch()), e.GetMessage())
			}
			return t.print(a.out)
		}),
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "only events after this sequence `number`")
	cmd.Flags().Uint32VarP(&limit, "limit", "n", 0, "at most this many, the newest ones (default 100)")
	cmd.Flags().BoolVar(&reports, "reports", false, "with the reports of failovers and switchovers")
	return cmd
}

func where(e *basaltv1.Event) string {
	if e.GetNode() != "" {
		return e.GetNode()
	}
	return orDash(e.GetShard())
}

func (a *app) eventsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [CLUSTER] SEQ", Short: "Show one event, with its report", Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			sequence, err := strconv.ParseUint(args[len(args)-1], 10, 64)
			if err != nil || sequence == 0 {
				return usagef("%s: want the sequence number of an event", args[len(args)-1])
			}
			return a.about(callTimeout, 1, func(ctx context.Context, name string, _ []string) error {
				list, err := a.events().ListEvents(ctx, &basaltv1.ListEventsRequest{Cluster: name, After: sequence - 1, Limit: 1000})
				if err != nil {
					return err
				}
				if len(list.GetEvents()) == 0 || list.GetEvents()[0].GetSequence() != sequence {
					return fmt.Errorf("event %d is not there, or not kept any more; see `basaltctl events list`", sequence)
				}
				if a.output == "json" {
					return a.printProto(list.GetEvents()[0])
				}
				a.printEvent(list.GetEvents()[0], true)
				return nil
			})(cmd, args)
		},
	}
}

func (a *app) eventsWatch() *cobra.Command {
	var after int64
	var reports bool
	cmd := &cobra.Command{
		Use: "watch [CLUSTER]", Short: "Show events as they happen", Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
				last := uint64(max(after, 0))
				if after < 0 {
					list, err := a.events().ListEvents(ctx, &basaltv1.ListEventsRequest{Cluster: name, Limit: 1})
					if err != nil {
						return err
					}
					for _, e := range list.GetEvents() {
						last = e.GetSequence()
					}
				}
				return a.followEvents(cmd.Context(), name, last, reports)
			})(cmd, args)
		},
	}
	cmd.Flags().Int64Var(&after, "after", -1, "also events after this sequence `number`, 0 for all (default: new ones only)")
	cmd.Flags().BoolVar(&reports, "reports", true, "with the reports of failovers and switchovers")
	return cmd
}

// followEvents prints events until ctx ends, and goes on where it was when a
// Configserver went away.
func (a *app) followEvents(ctx context.Context, name string, last uint64, reports bool) error {
	for {
		err := func() error {
			stream, err := a.events().WatchEvents(ctx, &basaltv1.WatchEventsRequest{Cluster: name, After: last})
			if err != nil {
				return err
			}
			for {
				e, err := stream.Recv()
				if err != nil {
					return err
				}
				last = e.GetSequence()
				if a.output == "json" {
					err = a.printProtoLine(e)
				} else {
					a.printEvent(e, reports)
				}
				if err != nil {
					return err
				}
			}
		}()
		if ctx.Err() != nil || errors.Is(err, io.EOF) {
			return nil
		}
		if status.Code(err) != codes.Unavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (a *app) printEvent(e *basaltv1.Event, report bool) {
	fmt.Fprintf(a.out, "%s  %-8s  %s  %s  %s\n", e.GetTime().AsTime().Local().Format("15:04:05.000"),
		enum(e.GetSeverity(), "SEVERITY_"), e.GetKind(), where(e), e.GetMessage())
	if report && e.GetReport() != nil {
		printReport(a.out, e.GetReport(), "  ")
	}
}

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

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
	var since, until string
	var only eventFilter
	cmd := &cobra.Command{
		Use: "list [CLUSTER]", Aliases: []string{"ls"}, Short: "List kept events, oldest first", Args: between(0, 1),
		RunE: a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			request := &basaltv1.ListEventsRequest{Cluster: name, After: after, Limit: limit, Shard: only.shard}
			var errs [3]error
			request.Severity, errs[0] = only.atLeast()
			request.Since, errs[1] = a.pointInTime("--since", since)
			request.Until, errs[2] = a.pointInTime("--until", until)
			if err := cmp.Or(errs[:]...); err != nil {
				return err
			}
			list, err := a.events().ListEvents(ctx, request)
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
			t := newTable("SEQ", "TIME", "AGE", "SEVERITY", "KIND", "WHERE", "EPOCH", "MESSAGE").numbers(0, 6)
			for _, e := range list.GetEvents() {
				t.row(fmt.Sprint(e.GetSequence()), e.GetTime().AsTime().Local().Format(time.DateTime), a.age(e.GetTime()), enum(e.GetSeverity(), "SEVERITY_"), e.GetKind(),
					where(e), fmt.Sprint(e.GetEpoch()), message(e))
			}
			return t.print(a.out)
		}),
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "only events after this sequence `number`")
	cmd.Flags().Uint32VarP(&limit, "limit", "n", 0, "at most this many, the newest ones (default 100)")
	cmd.Flags().BoolVar(&reports, "reports", false, "with the reports of failovers and switchovers")
	cmd.Flags().StringVar(&since, "since", "", "only events from this `time` on: 90m (ago), or 2026-01-31 14:05")
	cmd.Flags().StringVar(&until, "until", "", "only events before this `time`")
	only.flags(cmd.Flags())
	return cmd
}

// eventFilter says which events are wanted.
type eventFilter struct{ shard, severity string }

func (f *eventFilter) flags(fs *pflag.FlagSet) {
	fs.StringVar(&f.shard, "shard", "", "only events of this `shard`")
	fs.StringVar(&f.severity, "severity", "", "only events at least as `severe`: "+strings.Join(severities(), ", "))
}

// atLeast is the least severity that is wanted.
func (f *eventFilter) atLeast() (basaltv1.Severity, error) {
	if f.severity == "" {
		return 0, nil
	}
	value, ok := basaltv1.Severity_value["SEVERITY_"+strings.ToUpper(f.severity)]
	if !ok || value == 0 {
		return 0, usagef("--severity %s: want %s", f.severity, strings.Join(severities(), ", "))
	}
	return basaltv1.Severity(value), nil
}

// severities are the words for them, the least first.
func severities() (words []string) {
	for i := int32(1); basaltv1.Severity_name[i] != ""; i++ {
		words = append(words, enum(basaltv1.Severity(i), "SEVERITY_"))
	}
	return words
}

// pointInTime reads a time: a duration is that long ago; what has no zone is local.
func (a *app) pointInTime(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return timestamppb.New(a.now().Add(-d)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, usagef(`%s %s: want how long ago ("90m"), or a time ("2026-01-31 14:05")`, flag, text)
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
	var only eventFilter
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
				severity, err := only.atLeast()
				if err != nil {
					return err
				}
				return a.followEvents(cmd.Context(), &basaltv1.WatchEventsRequest{Cluster: name, After: last, Shard: only.shard, Severity: severity}, func(e *basaltv1.Event) error {
					if a.output == "json" {
						return a.printProtoLine(e)
					}
					a.printEvent(e, reports)
					return nil
				})
			})(cmd, args)
		},
	}
	cmd.Flags().Int64Var(&after, "after", -1, "also events after this sequence `number`, 0 for all (default: new ones only)")
	cmd.Flags().BoolVar(&reports, "reports", true, "with the reports of failovers and switchovers")
	only.flags(cmd.Flags())
	return cmd
}

// followEvents gives events to show until ctx ends, and goes on where it was when a
// Configserver went away.
func (a *app) followEvents(ctx context.Context, request *basaltv1.WatchEventsRequest, show func(*basaltv1.Event) error) error {
	for {
		err := func() error {
			stream, err := a.events().WatchEvents(ctx, request)
			if err != nil {
				return err
			}
			for {
				e, err := stream.Recv()
				if err != nil {
					return err
				}
				request.After = e.GetSequence()
				if err := show(e); err != nil {
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
	fmt.Fprintln(a.out, eventLine(e))
	if report && e.GetReport() != nil {
		printReport(a.out, e.GetReport(), "  ")
	}
}

func eventLine(e *basaltv1.Event) string {
	return visible(fmt.Sprintf("%s  %-8s  %s  %s  %s", e.GetTime().AsTime().Local().Format(timeFormat),
		enum(e.GetSeverity(), "SEVERITY_"), e.GetKind(), where(e), message(e)))
}

// message is what an event says, and who asked for it.
func message(e *basaltv1.Event) string {
	if e.GetAskedBy() == "" {
		return e.GetMessage()
	}
	return e.GetMessage() + " (asked by " + e.GetAskedBy() + ")"
}

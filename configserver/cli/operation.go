package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/basalt-redis/basalt/internal/settings"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) switchoverCommand() *cobra.Command {
	var to string
	cmd := a.operation("switchover [CLUSTER] SHARD", "Make a replica the master, without a client error", &to,
		func(ctx context.Context, cluster, shard string) (*basaltv1.OperationResult, error) {
			return call(ctx, a.clusters().Switchover, &basaltv1.SwitchoverRequest{Cluster: cluster, Shard: shard, Candidate: to})
		})
	return cmd
}

func (a *app) failoverCommand() *cobra.Command {
	var to string
	var acceptLoss, yes bool
	cmd := a.operation("failover [CLUSTER] SHARD", "Make a replica the master without asking the old one; what it did not replicate is lost", &to,
		func(ctx context.Context, cluster, shard string) (*basaltv1.OperationResult, error) {
			request := &basaltv1.FailoverRequest{Cluster: cluster, Shard: shard, Candidate: to, AcceptLoss: acceptLoss}
			if !yes {
				plan, err := call(ctx, a.clusters().PlanFailover, &basaltv1.PlanFailoverRequest{Failover: request})
				if err == nil {
					err = a.confirm(planned(cluster, shard, plan))
				}
				if err != nil {
					return nil, err
				}
			}
			return call(ctx, a.clusters().Failover, request)
		})
	cmd.Long = `Make a replica the master without asking the old one.

Only a node of the in-sync set is promoted, so that nothing is lost that a node
that answers still has. When there is none, nothing is changed, and the error says
what could be promoted and, where that is known, how many bytes it lacks. With
--accept-loss that node, or the one of --to, is promoted: what it lacks is lost.
What the old master has is saved to a file when it comes back, if it can be
(basaltctl diverged list).

Without --yes it says what will be lost; on a terminal it then asks.`
	cmd.Flags().BoolVar(&acceptLoss, "accept-loss", false, "promote a node even if it is not in sync; what it lacks is lost")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	return cmd
}

// planned says what a failover will do.
func planned(cluster, shard string, p *basaltv1.FailoverPlan) string {
	who := orDash(p.GetCandidate()) + " becomes the master of " + shard
	if p.GetCandidate() == "" {
		who = "the best node of " + shard + " becomes its master when those that may have more were waited for"
	}
	var loss string
	switch lost := p.GetLost(); {
	case lost != "":
		loss = "lost is " + lost
	case p.GetMasterLives():
		loss = "lost is what " + p.GetMaster() + " acknowledges until then and does not replicate"
		if n := p.GetBytes(); n >= 0 {
			loss += ", " + settings.DescribeBytes(n) + " a moment ago"
		}
		loss += fmt.Sprintf("; `basaltctl switchover %s %s` loses nothing", cluster, shard)
	default:
		loss = p.GetMaster() + " does not answer: lost is what it acknowledged and did not replicate"
		if n := p.GetBytes(); n >= 0 {
			loss += ", as far as is known " + settings.DescribeBytes(n)
		}
		loss += "; nothing is when it is started again first"
	}
	return who + "; " + loss
}

func (a *app) operation(use, short string, to *string,
	do func(ctx context.Context, cluster, shard string) (*basaltv1.OperationResult, error),
) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: between(1, 2),
		RunE: a.about(operationTimeout, 1, func(ctx context.Context, name string, rest []string) error {
			result, err := do(ctx, name, rest[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				err = a.printProto(result)
			} else {
				printReport(a.out, result.GetReport(), "")
			}
			if err == nil && !result.GetReport().GetSucceeded() {
				err = fmt.Errorf("%s of %s did not succeed: %s", enum(result.GetReport().GetKind(), "OPERATION_KIND_"),
					rest[0], cmp.Or(result.GetReport().GetError(), "see the report"))
			}
			return err
		}),
	}
	cmd.Flags().StringVar(to, "to", "", "`node` that becomes master (default: the best replica)")
	return cmd
}

// printReport writes everything about a failover or switchover.
func printReport(w io.Writer, r *basaltv1.Report, indent string) {
	var total float64
	for _, p := range r.GetPhases() {
		total += p.GetDuration().AsDuration().Seconds()
	}
	how := "succeeded"
	if !r.GetSucceeded() {
		how = "did not succeed"
	}
	fmt.Fprintf(w, "%s%s of %s: %s → %s, %s in %.0f ms, epochs %d to %d\n", indent,
		enum(r.GetKind(), "OPERATION_KIND_"), r.GetShard(), orDash(r.GetOldMaster()), orDash(r.GetNewMaster()),
		how, total*1000, r.GetStartEpoch(), r.GetEndEpoch())
	section := func(name string, lines []string) {
		for _, line := range lines {
			fmt.Fprintf(w, "%s  %-11s %s\n", indent, name, line)
			name = ""
		}
	}
	if r.GetError() != "" {
		section("error", []string{r.GetError()})
	}
	if r.GetLost() != "" {
		section("lost", []string{r.GetLost()})
	}
	if r.GetCause() != "" {
		section("cause", []string{r.GetCause()})
	}
	var lines []string
	for _, e := range r.GetEvidence() {
		lines = append(lines, e.GetVantagePoint()+": "+evidence(e))
	}
	section("evidence", lines)
	phases := newTable().numbers(1)
	for _, p := range r.GetPhases() {
		phases.row(p.GetName(), milliseconds(p.GetDuration().AsDuration()))
	}
	section("phases", tableLines(phases))
	candidates := newTable()
	for _, c := range r.GetCandidates() {
		verdict := "refused: " + c.GetRefused()
		if c.GetChosen() {
			verdict = "chosen"
		}
		candidates.row(c.GetNode(), "offset "+count(c.GetOffset()), "priority "+strconv.FormatUint(uint64(c.GetPriority()), 10), verdict)
	}
	section("candidates", tableLines(candidates))
	switch gap := r.GetOffsetGap(); {
	case gap < 0:
		section("offset gap", []string{"unknown: the old master could not be asked"})
	default:
		section("offset gap", []string{settings.DescribeBytes(gap)})
	}
	if len(r.GetUnackedProxies()) > 0 {
		fenced := "not fenced"
		if r.GetFenced() {
			fenced = "fenced at the server"
		}
		names := strings.Join(r.GetUnackedProxies(), ", ")
		if more := r.GetMoreUnacked(); more > 0 {
			names += fmt.Sprintf(" and %d more, which the Configserver's log names", more)
		}
		section("unacked", []string{names + " (" + fenced + ")"})
	}
}

// evidence is what one vantage point saw, with the details in brackets unless they are
// all that is known or say the same.
func evidence(e *basaltv1.Evidence) string {
	sight, detail := enum(e.GetSight(), "SIGHT_"), e.GetDetail()
	switch {
	case detail == "" || detail == sight:
		return sight
	case e.GetSight() == basaltv1.Sight_SIGHT_UNSPECIFIED:
		return detail
	}
	return sight + " (" + detail + ")"
}

func tableLines(t *table) []string {
	if len(t.rows) == 0 {
		return nil
	}
	var b strings.Builder
	_ = t.print(&b)
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

// sortedShards orders shard ids by their numbers: shard-2 before shard-10.
func sortedShards[V any](m map[string]V) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
}

package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) clusterStatus() *cobra.Command {
	var watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use: "status [CLUSTER]", Short: "Show every node, proxy and problem of a cluster", Args: between(0, 1),
		Long: `Show every node, proxy and problem of a cluster. The exit status is 0 when every
shard serves, 2 when one does not, or the cluster is forming or being deleted,
and 1 when that cannot be told. With --watch it tells nothing.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
				if watch {
					return a.watchStatus(cmd.Context(), name, interval)
				}
				s, err := a.status(ctx, name)
				if err != nil {
					return err
				}
				if a.output == "json" {
					err = a.printProto(s)
				} else {
					err = a.printStatus(a.out, s)
				}
				if err == nil && !serves(s.GetCluster()) {
					err = errNotServing
				}
				return err
			})(cmd, args)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again and again, until interrupted")
	cmd.Flags().DurationVar(&interval, "interval", 500*time.Millisecond, "interval of --watch")
	return cmd
}

func (a *app) status(ctx context.Context, name string) (*basaltv1.ClusterStatus, error) {
	return read(ctx, a.clusters().GetStatus, &basaltv1.GetStatusRequest{Cluster: name})
}

// watchStatus shows the status until ctx ends. On a terminal each picture
// replaces the one before; elsewhere one follows the other. A Configserver that
// is away for a while is shown as such and waited for.
func (a *app) watchStatus(ctx context.Context, name string, interval time.Duration) error {
	wipe := ""
	if isTerminal(a.out) {
		wipe = "\x1b[H\x1b[2J"
	}
	tick := time.NewTicker(max(interval, 50*time.Millisecond))
	defer tick.Stop()
	for {
		once, cancel := context.WithTimeout(ctx, 2*time.Second)
		s, err := a.status(once, name)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		var picture bytes.Buffer
		switch {
		case err != nil && a.output == "json":
			fmt.Fprintln(a.err, "basaltctl: "+oneLine(a.explain(err)))
		case err != nil:
			fmt.Fprintln(&picture, oneLine(a.explain(err)))
		case a.output == "json":
			if err := a.printProtoLine(s); err != nil {
				return err
			}
		default:
			if err := a.printStatus(&picture, s); err != nil {
				return err
			}
		}
		if picture.Len() > 0 {
			if _, err := fmt.Fprintf(a.out, "%s%s  %s\n", wipe, a.now().Format(timeFormat), picture.Bytes()); err != nil {
				return err
			}
			if wipe == "" {
				fmt.Fprintln(a.out)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// printStatus is the picture of a cluster for people: what it is, its nodes by
// shard, what is being done to shards, its proxies, and its problems.
func (a *app) printStatus(w io.Writer, s *basaltv1.ClusterStatus) error {
	c := s.GetCluster()
	owner := ""
	if c.GetOwner() != "" {
		owner = ", run by " + c.GetOwner()
	}
	problems, rows := "", slices.DeleteFunc(slices.Clone(s.GetProblems()), func(p *basaltv1.Problem) bool {
		return p.GetCode() == notServing // see printOutages
	})
	switch n := len(rows); {
	case n == 1:
		problems = "; 1 problem, see below"
	case n > 1:
		problems = fmt.Sprintf("; %d problems, see below", n)
	}
	fmt.Fprintf(w, "cluster %s is %s at epoch %d: %d shards × %d nodes%s%s\n", c.GetName(),
		state(c.GetPhase(), c.GetNotServing()), c.GetEpoch(), c.GetShards(), c.GetNodesPerShard(), owner, problems)
	a.printOutages(w, c.GetNotServing())
	if len(c.GetConfig()) > 0 {
		fmt.Fprintf(w, "configuration of its nodes: %s\n", configLine(c.GetConfig()))
	}
	if s.GetProgress() != "" {
		fmt.Fprintf(w, "waiting: %s\n", s.GetProgress())
	}
	if len(s.GetNodes()) > 0 {
		fmt.Fprintln(w)
		if err := nodeTable(s).print(w); err != nil {
			return err
		}
	}
	a.printOperations(w, s.GetTopology())
	if len(s.GetProxies()) > 0 {
		fmt.Fprintln(w)
		if err := a.proxyTable(s.GetProxies(), 12).print(w); err != nil {
			return err
		}
	}
	if err := printCrossSlot(w, s); err != nil {
		return err
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		t := newTable("PROBLEM", "WHERE", "SINCE", "MESSAGE")
		for _, p := range rows {
			where := p.GetNode()
			if where == "" {
				where = p.GetShard()
			}
			t.row(p.GetCode(), orDash(where), a.age(p.GetSince()), p.GetMessage())
		}
		return t.print(w)
	}
	return nil
}

// notServing is the code of the problem that a shard serves nobody.
const notServing = "ShardNotServing"

// errNotServing ends `cluster status` when a shard does not serve; what was printed
// says which.
var errNotServing = exitError{exitNotServing}

// serves tells if every shard of a cluster serves.
func serves(c *basaltv1.Cluster) bool {
	return c.GetPhase() == basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING && len(c.GetNotServing()) == 0
}

// state is the phase of a cluster in a word, or which of its shards do not serve.
func state(phase basaltv1.ClusterPhase, outages []*basaltv1.ShardOutage) string {
	if len(outages) == 0 {
		return enum(phase, "CLUSTER_PHASE_")
	}
	const most = 3
	var names []string
	for _, o := range outages[:min(most, len(outages))] {
		names = append(names, o.GetShard())
	}
	text := "NOT SERVING " + strings.Join(names, ", ")
	if more := len(outages) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// printOutages says of each shard that serves nobody why, since when and what to do.
func (a *app) printOutages(w io.Writer, outages []*basaltv1.ShardOutage) {
	for _, o := range outages {
		fmt.Fprintf(w, "NOT SERVING: %s (slots %s) since %s, %s: %s\n", o.GetShard(), slotRanges(o.GetSlots()),
			o.GetSince().AsTime().Local().Format("2006-01-02 15:04:05"), a.age(o.GetSince()), visible(o.GetMessage()))
	}
}

func nodeTable(s *basaltv1.ClusterStatus) *table {
	slots := map[string]string{}
	for _, shard := range s.GetTopology().GetShards() {
		slots[shard.GetId()] = slotRanges(shard.GetSlots())
	}
	t := newTable("SHARD", "SLOTS", "NODE", "ROLE", "ADDRESS", "OFFSET", "LAG", "KEYS", "MEMORY", "READS", "IN SYNC", "INCARNATION", "HEALTH").numbers(5, 6, 7, 8)
	before := ""
	for _, n := range s.GetNodes() {
		shard, ranges := n.GetShard(), orDash(slots[n.GetShard()])
		if shard == before {
			shard, ranges = "", ""
		}
		before = n.GetShard()
		lag := size(n.GetLag())
		if n.GetRole() == basaltv1.NodeRole_NODE_ROLE_MASTER {
			lag = "-"
		}
		t.row(shard, ranges, n.GetNode(), enum(n.GetRole(), "NODE_ROLE_"), n.GetAddress(),
			count(n.GetOffset()), lag, count(n.GetKeys()), size(n.GetUsedMemory()),
			yesNo(n.GetInReadSet()), yesNo(n.GetInSync()), short(n.GetIncarnation(), 8), healthOf(n, s.GetProblems()))
	}
	return t
}

// healthOf is a node's health in a word: of a problem the code, for its message is in
// the list of problems, and would make lines of the table too long to read.
func healthOf(n *basaltv1.NodeStatus, problems []*basaltv1.Problem) string {
	for _, p := range problems {
		if p.GetNode() == n.GetNode() && p.GetMessage() == n.GetHealth() {
			return p.GetCode()
		}
	}
	return orDash(n.GetHealth())
}

// printOperations says what is being done to shards, and which ones hold.
func (a *app) printOperations(w io.Writer, t *basaltv1.Topology) {
	first := true
	for _, s := range t.GetShards() {
		var what []string
		if op := s.GetOperation(); op != nil {
			line := fmt.Sprintf("%s, %s, for %s", enum(op.GetKind(), "OPERATION_KIND_"), op.GetPhase(), a.age(op.GetStartedAt()))
			if op.GetOldMaster() != "" || op.GetCandidate() != "" {
				line += fmt.Sprintf(" (%s → %s)", orDash(op.GetOldMaster()), orDash(op.GetCandidate()))
			}
			if op.GetCause() != "" {
				line += ": " + op.GetCause()
			}
			what = append(what, line)
		}
		if s.GetFrozen() {
			what = append(what, "frozen: proxies hold requests")
		} else if s.GetMaster() == "" && t.GetPhase() == basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING {
			what = append(what, "no master: proxies hold requests")
		}
		if len(what) == 0 {
			continue
		}
		if first {
			fmt.Fprintln(w)
			first = false
		}
		fmt.Fprintf(w, "%s: %s\n", s.GetId(), strings.Join(what, "; "))
	}
}

func slotRanges(slots []*basaltv1.SlotRange) string {
	var parts []string
	for _, r := range slots {
		if r.GetStart() == r.GetEnd() {
			parts = append(parts, fmt.Sprint(r.GetStart()))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", r.GetStart(), r.GetEnd()))
		}
	}
	if len(parts) > 3 {
		return fmt.Sprintf("%s +%d more", strings.Join(parts[:3], " "), len(parts)-3)
	}
	return strings.Join(parts, " ")
}

// mostCrossSlot is how many kinds of requests over several slots are shown.
const mostCrossSlot = 15

// printCrossSlot says who sends requests over several slots, and what becomes of them.
func printCrossSlot(w io.Writer, s *basaltv1.ClusterStatus) error {
	all := s.GetCrossSlot()
	if len(all) == 0 {
		return nil
	}
	rate, total := 0.0, uint64(0)
	for _, k := range all {
		rate, total = rate+k.GetPerSecond(), total+k.GetRequests()
	}
	what := "are refused (CROSSSLOT)"
	if len(s.GetTopology().GetShards()) == 1 && s.GetTopology().GetCrossSlot() == basaltv1.CrossSlot_CROSS_SLOT_ONE_SHARD {
		what = "would fail with a second shard (CROSSSLOT)"
	}
	fmt.Fprintf(w, "\n%s requests a second %s, %s since the proxies started:\n", perSecond(rate), what, count(int64(total)))
	t := newTable("COMMAND", "CLIENT NAME", "A SECOND", "REQUESTS").numbers(2, 3)
	for _, k := range all[:min(len(all), mostCrossSlot)] {
		t.row(k.GetCommand(), orDash(k.GetClientName()), perSecond(k.GetPerSecond()), count(int64(k.GetRequests())))
	}
	if err := t.print(w); err != nil {
		return err
	}
	if n := len(all) - mostCrossSlot; n > 0 {
		fmt.Fprintf(w, "and %d kinds more, see -o json\n", n)
	}
	return nil
}

// perSecond is a rate for people.
func perSecond(rate float64) string {
	if rate > 0 && rate < 0.1 {
		return "<0.1"
	}
	return fmt.Sprintf("%.1f", rate)
}

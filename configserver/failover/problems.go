package failover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Remedy is what is done about a problem.
type Remedy string

// Remedies.
const (
	// Tell: an event, nothing else.
	Tell Remedy = ""
	// Replace: fail the master over.
	Replace Remedy = "replace the master"
	// AdmitMaster: admit the first node of a forming shard as its master.
	AdmitMaster Remedy = "admit as master"
	// Admit: fence the node, make it a replica, admit its incarnation.
	Admit Remedy = "admit as replica"
	// Relocate: commit where the admitted incarnation of the master answers now.
	Relocate Remedy = "commit its new place"
	// Regrant: put users, passwords and settings of an admitted node right.
	Regrant Remedy = "renew users and settings"
)

// Problem is one row of the table that matches.
type Problem struct {
	Code     string
	Priority int // position in the table, 0 is the worst
	Severity topology.Severity
	Remedy   Remedy
	Shard    string
	Node     string
	Message  string
	// Why is the message of NotServing without its beginning, which names the shard.
	Why string
	// Since is when it began; zero: when it was found.
	Since time.Time
	// Stage tells apart what a problem comes to while it lasts: when it changes, the
	// problem is told of again.
	Stage    string
	Evidence []topology.Evidence
}

// Row is a named problem.
type Row struct {
	Code     string
	Severity topology.Severity
	Remedy   Remedy
	// Event and Ended are the kinds of the events that tell of its begin and its
	// end; without Event it is shown in the status only.
	Event, Ended string
	// After is how long it must last before it is told.
	After time.Duration
	// Counts: replacing the master counts for the limit of failovers per period. Those
	// of servers that were started again, by whoever runs them, do not, nor what an
	// admin asks for.
	Counts bool

	match func(x *situation) []found
}

// found is one match: a node and what to say.
type found struct {
	node     string
	message  string
	why      string
	since    time.Time
	severity topology.Severity // instead of the row's
	stage    string
	evidence []topology.Evidence
	wait     bool // matches, and the remedy has to wait
}

// Table holds every problem, the worst first. Matches exclude each other where
// their remedies would.
var Table = []Row{
	{Code: "RecordIsOlder", Severity: topology.Critical, Event: "RecordIsOlder", Ended: "RecordAdopted", match: ofTheCluster},
	{Code: NotServing, Severity: topology.Critical, Event: NotServing, Ended: "ShardServing", After: time.Second, match: shardNotServing},
	{Code: "FailoversExhausted", Severity: topology.Critical, Event: "FailoversExhausted", match: failoversExhausted},
	{Code: "FailoverPaused", Severity: topology.Critical, Event: "FailoverPaused", match: failoverPaused},
	{Code: "DeadMaster", Severity: topology.Critical, Remedy: Replace, Counts: true, match: lost(health.Dead)},
	{Code: "HungMaster", Severity: topology.Critical, Remedy: Replace, Counts: true, match: lost(health.Hung)},
	{Code: "MasterRestarted", Severity: topology.Critical, Remedy: Replace, match: lost(health.Restarted)},
	{Code: "MasterRestartedNoCandidate", Severity: topology.Critical, Remedy: Replace, match: masterRestartedNoCandidate},
	{Code: "AllNodesRestarted", Severity: topology.Critical, Remedy: Replace, Event: "AllNodesRestarted", match: allNodesRestarted},
	{Code: "MasterIsReplica", Severity: topology.Critical, Remedy: Replace, Counts: true, After: time.Second, match: masterIsReplica},
	{Code: "FailoverBlocked", Severity: topology.Critical, Event: "FailoverBlocked", After: time.Second, match: failoverBlocked},
	{Code: "DeadMasterNoReplicas", Severity: topology.Critical, Event: "DeadMasterNoReplicas", After: time.Second, match: noReplicas(health.Dead)},
	{Code: "HungMasterNoReplicas", Severity: topology.Critical, Event: "HungMasterNoReplicas", After: time.Second, match: noReplicas(health.Hung)},
	{Code: "WrongServerAtAddress", Severity: topology.Critical, Event: "WrongServerAtAddress", match: wrongServer},
	{Code: "TwoWritableMasters", Severity: topology.Critical, Remedy: Admit, Event: "TwoWritableMasters", match: twoWritableMasters},
	{Code: "StaleMaster", Severity: topology.Warning, Remedy: Admit, match: staleMaster},
	{Code: "MasterUnreachableFromConfigserver", Severity: topology.Warning, Event: "MasterUnreachableFromConfigserver", After: time.Second, match: unreachable},
	{Code: "MisconfiguredNode", Severity: topology.Critical, Event: "MisconfiguredNode", match: misconfigured},
	{Code: "NodeRefusesAdmin", Severity: topology.Critical, Event: "NodeRefusesAdmin", After: time.Second, match: refusesAdmin},
	{Code: "CredentialsNotOnFile", Severity: topology.Critical, Event: "CredentialsNotOnFile", After: time.Second, match: ofTheCluster},
	{Code: "MasterMoved", Severity: topology.Warning, Remedy: Relocate, match: masterMoved},
	{Code: "ReplicaMoved", Severity: topology.Warning, Remedy: Admit, match: replicaMoved},
	{Code: "NameLeadsElsewhere", Severity: topology.Warning, Event: "NameLeadsElsewhere", After: time.Second, match: nameLeadsElsewhere},
	{Code: "ReplicaRestarted", Severity: topology.Warning, Remedy: Admit, match: replicaRestarted},
	{Code: "ReplicatesFromWrongMaster", Severity: topology.Warning, Remedy: Admit, match: wrongMaster},
	{Code: "ReplicaOlderThanMaster", Severity: topology.Warning, Event: "ReplicaOlderThanMaster", match: olderThanMaster},
	{Code: "DeadReplica", Severity: topology.Warning, Event: "ReplicaLost", Ended: "ReplicaRecovered", match: deadReplica},
	{Code: "StaleUsers", Severity: topology.Warning, Remedy: Regrant, match: staleUsers},
	{Code: "ReplicaNotReplicating", Severity: topology.Warning, Remedy: Regrant, Event: "ReplicaNotReplicating", After: 5 * time.Second, match: notReplicating},
	{Code: "ReplicaLagging", Severity: topology.Warning, Event: "ReplicaLagging", match: lagging},
	{Code: "ReplicaOutOfSync", Severity: topology.Warning, Event: "ReplicaOutOfSync", After: 5 * time.Second, match: replicaOutOfSync},
	{Code: "SlowMaster", Severity: topology.Warning, Event: "SlowMaster", match: slowMaster},
	{Code: "NodeWithoutMark", Severity: topology.Warning, Event: "NodeWithoutMark", After: 5 * time.Second, match: withoutMark},
	{Code: "Maintenance", Severity: topology.Info, match: ofTheCluster},
	{Code: "FirstNodeNotAdmitted", Severity: topology.Info, Remedy: AdmitMaster, match: firstNode},
	{Code: "NodeNotAdmitted", Severity: topology.Info, Remedy: Admit, match: notAdmitted},
}

// EndedKind is the kind of the event that tells that a problem is over.
func (r *Row) EndedKind() string {
	if r.Ended != "" {
		return r.Ended
	}
	return r.Event + "Ended"
}

// RowOf returns the row of a code, or nil.
func RowOf(code string) *Row {
	for i := range Table {
		if Table[i].Code == code {
			return &Table[i]
		}
	}
	return nil
}

// situation is what the rows look at: one shard at one instant.
type situation struct {
	c   *topology.Cluster
	s   *topology.Shard
	o   *health.Observations
	now time.Time

	master *topology.Node
	// about is the judgement of the master; candidates and chosen are worked
	// out only when it is in trouble.
	about     health.Assessment
	outcome   Outcome
	chosen    string
	exhausted bool
	failovers []time.Time // those that count, oldest first
	paused    *topology.Maintenance
}

// Detect finds the problems of one shard, the worst first. It is pure: the
// same values give the same problems.
func Detect(c *topology.Cluster, s *topology.Shard, o *health.Observations, now time.Time) []Problem {
	if c.Phase == topology.Deleting {
		return nil
	}
	x := &situation{c: c, s: s, o: o, now: now, master: s.MasterNode()}
	if x.master != nil {
		x.about = health.AssessMaster(c, s, o, now)
		if x.troubled() {
			offset := int64(-1)
			if h := o.Histories[s.ID]; h.ReplID != "" {
				offset = h.Offset
			}
			x.outcome = Elect(c, s, Election{Old: x.master.ID, Since: troubleSince(s, o), Offset: offset}, o, now)
			x.chosen = x.outcome.Chosen()
			x.failovers = recent(s.Failovers, now, c.Policy.FailoverPeriod)
			// One that was started again is looked after, or its shard would not serve
			// when all its nodes are back.
			if x.about.Verdict != health.Restarted {
				x.exhausted = len(x.failovers) >= c.Policy.MaxFailovers
				x.paused = c.MaintenanceOf(s.ID, now)
			}
		}
	}
	var problems []Problem
	for i := range Table {
		row := &Table[i]
		for _, f := range row.match(x) {
			p := Problem{Code: row.Code, Priority: i, Severity: row.Severity, Remedy: row.Remedy,
				Shard: s.ID, Node: f.node, Message: f.message, Why: f.why, Since: f.since, Stage: f.stage, Evidence: f.evidence}
			if f.wait {
				p.Remedy = Tell
			}
			if f.severity != "" {
				p.Severity = f.severity
			}
			problems = append(problems, p)
		}
	}
	return problems
}

// recent keeps the times of automatic failovers that still count.
func recent(times []time.Time, now time.Time, period time.Duration) []time.Time {
	return slices.DeleteFunc(slices.Clone(times), func(t time.Time) bool { return now.Sub(t) >= period })
}

func refusals(candidates []topology.Candidate) string {
	text := ""
	for _, c := range candidates {
		if c.Refused != "" {
			text += fmt.Sprintf("; %s: %s", c.Node, c.Refused)
		}
	}
	return text
}

// operating tells if a failover or a switchover is at work: it sees to the
// shard's roles itself.
func (x *situation) operating() bool {
	op := x.s.Operation
	return op != nil && op.Kind != topology.Rotation
}

// troubled tells if the master is lost for certain.
func (x *situation) troubled() bool {
	if x.master == nil || x.operating() {
		return false
	}
	switch x.about.Verdict {
	case health.Dead, health.Hung, health.Restarted:
		return true
	}
	return x.roleLost()
}

// roleLost: the master runs and was made a replica by somebody else.
func (x *situation) roleLost() bool {
	return x.master != nil && x.about.Verdict == health.Alive && x.o.Admitted(x.master, x.now) && !x.o.Nodes[x.master.ID].Info.Master &&
		x.o.Fresh(x.s.ID, x.o.Nodes[x.master.ID].InfoAt)
}

func (x *situation) blame(format string, args ...any) []found {
	return []found{{node: x.master.ID, message: fmt.Sprintf(format, args...), evidence: x.about.Evidence}}
}

func failoversExhausted(x *situation) []found {
	if !x.troubled() || !x.exhausted || x.paused != nil || x.chosen == "" || x.chosen == x.master.ID {
		return nil
	}
	return x.blame("master %s is lost (%s) and is not replaced automatically before %s, for %s was failed over %d times within %v: "+
		"start %s again, or let it go on if it hangs: the shard serves then, and writes that only %s has are not thrown away; "+
		"`basaltctl failover %s %s` makes %s the master now, without them; find out why masters die there",
		x.master.ID, x.about.Detail, x.again().UTC().Format(time.RFC3339), x.s.ID, len(x.failovers), x.c.Policy.FailoverPeriod,
		x.master.ID, x.master.ID, x.c.Name, x.s.ID, x.chosen)
}

// failoverPaused: an admin said that masters are not to be replaced now.
func failoverPaused(x *situation) []found {
	if !x.troubled() || x.paused == nil || x.chosen == "" || x.chosen == x.master.ID {
		return nil
	}
	return x.blame("master %s is lost (%s) and is not replaced before %s, for %s: start %s again, or let it go on if it hangs; "+
		"`basaltctl failover %s %s` makes %s the master now, and `basaltctl maintenance off %s` ends the pause",
		x.master.ID, x.about.Detail, x.paused.Until.UTC().Format(time.RFC3339), pausedFor(x.c, x.paused), x.master.ID,
		x.c.Name, x.s.ID, x.chosen, strings.TrimSpace(x.c.Name+" "+x.paused.Shard))
}

// pausedFor says what is in maintenance, and why.
func pausedFor(c *topology.Cluster, m *topology.Maintenance) string {
	text := cmp.Or(m.Shard, "cluster "+c.Name) + " is in maintenance"
	if m.Reason != "" {
		text += " (" + m.Reason + ")"
	}
	return text
}

// InMaintenance are the problems of a cluster whose masters are not replaced now.
func InMaintenance(c *topology.Cluster, now time.Time) (list []Problem) {
	for i := range c.Maintenance {
		if m := &c.Maintenance[i]; now.Before(m.Until) {
			list = append(list, ofCluster("Maintenance", fmt.Sprintf("%s since %s, until %s: masters that are lost are not replaced; `basaltctl maintenance off %s` ends it",
				pausedFor(c, m), m.Since.UTC().Format(time.RFC3339), m.Until.UTC().Format(time.RFC3339), strings.TrimSpace(c.Name+" "+m.Shard))))
		}
	}
	return list
}

// again is when the limit of failovers allows one.
func (x *situation) again() time.Time {
	return x.failovers[len(x.failovers)-x.c.Policy.MaxFailovers].Add(x.c.Policy.FailoverPeriod)
}

// mayReplace tells if a lost master can be replaced by an admitted node now.
// A master that takes its own place is no failover that could flap.
func (x *situation) mayReplace() bool {
	return x.troubled() && x.chosen != "" && (!x.exhausted && x.paused == nil || x.chosen == x.master.ID)
}

func lost(v health.Verdict) func(x *situation) []found {
	return func(x *situation) []found {
		if !x.mayReplace() || x.about.Verdict != v || x.outcome.Restarted {
			return nil
		}
		return x.blame("master %s is lost: %s", x.master.ID, x.about.Detail)
	}
}

func masterRestartedNoCandidate(x *situation) []found {
	if !x.mayReplace() || !x.outcome.Restarted || x.about.Verdict != health.Restarted || x.othersAdmitted() {
		return nil
	}
	if x.outcome.Lost != "" {
		return x.blame("master %s restarted and nobody else has its data: it is admitted again; lost is %s", x.master.ID, x.outcome.Lost)
	}
	return harmless(x.blame("master %s restarted with its data and is admitted again", x.master.ID))
}

// allNodesRestarted tells of a loss, or of a restart as planned: nothing is lost.
func allNodesRestarted(x *situation) []found {
	if !x.mayReplace() || !x.outcome.Restarted || x.about.Verdict == health.Restarted && !x.othersAdmitted() {
		return nil
	}
	switch {
	case x.outcome.Lost != "":
		return x.blame("the in-sync nodes of %s restarted or are gone: %s is taken as master; lost is %s", x.s.ID, x.chosen, x.outcome.Lost)
	case x.chosen != x.master.ID:
		return x.blame("the in-sync nodes of %s restarted or are gone: %s is taken as master; it found everything on its disk", x.s.ID, x.chosen)
	}
	return harmless(x.blame("the in-sync nodes of %s restarted: %s is the master again; it found everything on its disk", x.s.ID, x.chosen))
}

func harmless(list []found) []found {
	list[0].severity = topology.Info
	return list
}

func (x *situation) othersAdmitted() bool {
	return slices.ContainsFunc(x.s.Nodes, func(n topology.Node) bool { return n.ID != x.master.ID && n.Incarnation != "" })
}

func masterIsReplica(x *situation) []found {
	if !x.roleLost() || !x.mayReplace() {
		return nil
	}
	return x.blame("master %s was made a replica of %s by somebody else", x.master.ID, x.o.Nodes[x.master.ID].Info.MasterAddress)
}

// failoverBlocked: a shard that has other nodes waits for one of them, or for an
// admin, before or during its failover.
func failoverBlocked(x *situation) []found {
	if op := x.s.Operation; op != nil && x.s.Master == "" {
		e := ElectionOf(op)
		e.Since = troubleSince(x.s, x.o)
		outcome := Elect(x.c, x.s, e, x.o, x.now)
		if op.Phase != Electing || outcome.Chosen() != "" {
			return nil
		}
		return []found{{node: op.OldMaster, message: x.s.ID + " has no master: " + outcome.Blocked(x.c, x.s), stage: outcome.stage()}}
	}
	if !x.troubled() || x.chosen != "" || len(x.s.Nodes) == 1 {
		return nil
	}
	blocked := x.blame("master %s is lost (%s): %s", x.master.ID, x.about.Detail, x.outcome.Blocked(x.c, x.s))
	blocked[0].stage = x.outcome.stage()
	return blocked
}

func noReplicas(v health.Verdict) func(x *situation) []found {
	return func(x *situation) []found {
		// A restarted master that may not take its own place yet is as good as dead.
		matches := x.about.Verdict == v || v == health.Dead && x.about.Verdict == health.Restarted
		if !x.troubled() || !matches || x.chosen != "" || len(x.s.Nodes) > 1 {
			return nil
		}
		return x.blame("master %s is lost (%s) and %s has no other node: start it again", x.master.ID, x.about.Detail, x.s.ID)
	}
}

// wrongServer: somebody else answers at a node's address. Nothing is done to it.
func wrongServer(x *situation) (list []found) {
	for i := range x.s.Nodes {
		n := &x.s.Nodes[i]
		if stranger := x.o.Stranger(x.c, x.s, n); stranger != "" && x.o.Live(n.ID, x.now) {
			list = append(list, found{node: n.ID, message: fmt.Sprintf("%s: %s; nothing is done to it: see that the address leads to %s, "+
				"or deregister the node and register it with its new address", n.ID, stranger, n.ID)})
		}
	}
	return list
}

// withoutMark: a server with an append-only file, which says nothing about where its
// data is from, would not be known again when it restarts.
func withoutMark(x *situation) (list []found) {
	for i := range x.s.Nodes {
		n := &x.s.Nodes[i]
		if n.Unmarked && x.o.Admitted(n, x.now) && x.o.Nodes[n.ID].Info.AppendOnly {
			list = append(list, found{node: n.ID, message: fmt.Sprintf("%s has an append-only file and its configuration does not say which node it is: put the line "+
				"\"user %s off\" there (`basaltctl node mark %s %s` prints it), or it is not admitted when it restarts with data",
				n.ID, topology.Mark(x.c, x.s.ID, n.ID), x.c.Name, n.ID)})
		}
	}
	return list
}

func replicaOutOfSync(x *situation) []found {
	return x.others(func(n *topology.Node, _ *health.Node) bool { return n.Incarnation != "" && !n.InSync && n.Out != nil },
		func(n *topology.Node, _ *health.Node) string {
			return fmt.Sprintf("%s is not in sync since %s (%s): it is not promoted automatically", n.ID, n.Out.Since.Format(time.RFC3339), n.Out.Why)
		})
}

func unreachable(x *situation) []found {
	if x.master == nil || x.operating() || x.about.Verdict != health.Unreachable {
		return nil
	}
	return x.blame("master %s does not answer this Configserver (%s), but others reach it: it stays master; look at the network between them",
		x.master.ID, x.about.Detail)
}

// signs are what all vantage points saw, for people.
func signs(evidence []topology.Evidence) string {
	list := make([]string, len(evidence))
	for i, e := range evidence {
		list[i] = e.VantagePoint + ": " + e.Detail
	}
	return strings.Join(list, "; ")
}

func slowMaster(x *situation) []found {
	if x.master == nil || x.operating() {
		return nil
	}
	switch x.about.Verdict {
	case health.Busy:
		busy := x.blame("master %s is busy and stays, until it has answered nobody for %v (max_busy): %s",
			x.master.ID, max(x.c.Policy.MaxBusy, x.c.Policy.HungAfter), signs(x.about.Evidence))
		busy[0].stage = string(health.Busy)
		return busy
	case health.Slow:
	default:
		return nil
	}
	return x.blame("master %s is slow: %s; a long command or script, a fork, or a host without CPU", x.master.ID, x.about.Detail)
}

// others lists the nodes that should follow the shard's master and match, when
// nothing else is being done to the shard's roles.
func (x *situation) others(match func(n *topology.Node, seen *health.Node) bool, message func(n *topology.Node, seen *health.Node) string) (list []found) {
	if x.master == nil || x.operating() {
		return nil
	}
	for i := range x.s.Nodes {
		n := &x.s.Nodes[i]
		if n.ID == x.master.ID {
			continue
		}
		if seen := x.o.Nodes[n.ID]; match(n, &seen) {
			// One that still lets proxies in is fenced first, whatever else can be done.
			stays := cannotCopy(x.o, n, x.master) != "" && !x.writable(&seen)
			list = append(list, found{node: n.ID, message: message(n, &seen), wait: stays || !x.joinable(&seen) || x.o.Stranger(x.c, x.s, n) != ""})
		}
	}
	return list
}

// joinable tells if a node may be made to follow the master now: the master's
// admitted incarnation answers, so nobody is pointed at an empty newcomer.
func (x *situation) joinable(seen *health.Node) bool {
	return x.o.Admitted(x.master, x.now) && x.o.Nodes[x.master.ID].Info.Master &&
		!seen.Info.Loading && seen.Busy != "LOADING" && !isMisconfigured(seen)
}

// isMisconfigured tells if a node must not serve. One with a narrow default user
// may: what that endangers is lost when it starts, not now.
func isMisconfigured(seen *health.Node) bool {
	return seen.DefaultUser.On || seen.Info.Mode != "" && seen.Info.Mode != "standalone"
}

// fresh tells if what a node said is not of the time before the newest record of
// the shard.
func (x *situation) fresh(seen *health.Node) bool { return x.o.Fresh(x.s.ID, seen.InfoAt) }

func (x *situation) stale(n *topology.Node, seen *health.Node) bool {
	return x.o.Admitted(n, x.now) && seen.Info.Master && x.fresh(seen)
}

// writable tells if a node lets the proxies of the present generation in.
func (x *situation) writable(seen *health.Node) bool {
	letsIn, _ := x.proxies().Match(seen.Users)
	return letsIn && x.o.Fresh(x.s.ID, seen.UsersAt)
}

// proxies are those that nodes should let in.
func (x *situation) proxies() *redisadmin.Proxies {
	return &redisadmin.Proxies{Generation: x.s.Generation, Seats: x.c.Seats, Leaving: x.o.Leaving}
}

func twoWritableMasters(x *situation) []found {
	return x.others(func(n *topology.Node, seen *health.Node) bool { return x.stale(n, seen) && x.writable(seen) },
		func(n *topology.Node, _ *health.Node) string {
			return fmt.Sprintf("%s is a master too and accepts the proxies' present credentials: it is fenced and made a replica of %s", n.ID, x.master.ID)
		})
}

func staleMaster(x *situation) []found {
	return x.others(func(n *topology.Node, seen *health.Node) bool { return x.stale(n, seen) && !x.writable(seen) },
		func(n *topology.Node, _ *health.Node) string {
			return fmt.Sprintf("%s still is a master: it is fenced and made a replica of %s", n.ID, x.master.ID)
		})
}

func replicaRestarted(x *situation) []found {
	return x.others(func(n *topology.Node, seen *health.Node) bool {
		return n.Incarnation != "" && seen.Info.RunID != n.Incarnation && x.o.Live(n.ID, x.now) && x.o.Stranger(x.c, x.s, n) == ""
	}, func(n *topology.Node, seen *health.Node) string {
		return fmt.Sprintf("%s restarted as incarnation %.8s and is fenced until it is admitted again", n.ID, seen.Info.RunID)
	})
}

func wrongMaster(x *situation) []found {
	return x.others(func(n *topology.Node, seen *health.Node) bool {
		return !seen.Info.Master && seen.Info.MasterAddress != x.master.Endpoint() && x.fresh(seen) && x.o.Admitted(n, x.now)
	}, func(n *topology.Node, seen *health.Node) string {
		return fmt.Sprintf("%s follows %s instead of %s", n.ID, seen.Info.MasterAddress, x.master.Endpoint())
	})
}

func deadReplica(x *situation) []found {
	return x.others(func(n *topology.Node, _ *health.Node) bool {
		verdict := health.AssessNode(x.c, n, x.o, x.now).Verdict
		return n.Incarnation != "" && (verdict == health.Dead || verdict == health.Hung)
	}, func(n *topology.Node, _ *health.Node) string {
		return fmt.Sprintf("replica %s is lost: %s", n.ID, health.AssessNode(x.c, n, x.o, x.now).Detail)
	})
}

func notReplicating(x *situation) []found {
	return x.others(func(n *topology.Node, seen *health.Node) bool {
		return !seen.Info.Master && !seen.Info.LinkUp && !seen.Info.Syncing && seen.Info.MasterAddress == x.master.Endpoint() &&
			x.o.Admitted(n, x.now) && x.o.Admitted(x.master, x.now)
	}, func(n *topology.Node, _ *health.Node) string {
		return fmt.Sprintf("%s is told to follow %s and its link is down", n.ID, x.master.ID)
	})
}

func lagging(x *situation) []found {
	return x.others(func(n *topology.Node, _ *health.Node) bool {
		_, lag := x.o.InSync(x.s, n, x.now)
		limit := x.c.Policy.MaxReadLag
		if n.Readable && !n.InReadSet {
			limit /= 2 // it comes back when half of it is made up
		}
		return lag > limit
	}, func(n *topology.Node, _ *health.Node) string {
		_, lag := x.o.InSync(x.s, n, x.now)
		return fmt.Sprintf("%s is %d bytes behind its master: it serves no reads until it has caught up", n.ID, lag)
	})
}

func staleUsers(x *situation) (list []found) {
	if x.s.Operation != nil || x.master == nil {
		return nil
	}
	for i := range x.s.Nodes {
		n := &x.s.Nodes[i]
		seen := x.o.Nodes[n.ID]
		if !x.o.Admitted(n, x.now) || !x.o.Fresh(x.s.ID, seen.UsersAt) {
			continue
		}
		_, exact := x.proxies().Match(seen.Users)
		if !exact || !slices.Contains(seen.Users, credentials.ReplicationUser) || !slices.Contains(seen.Users, topology.Mark(x.c, x.s.ID, n.ID)) {
			list = append(list, found{node: n.ID, message: n.ID + " does not have exactly the users of this generation and of the proxies' seats"})
		}
	}
	return list
}

func misconfigured(x *situation) (list []found) {
	for i := range x.s.Nodes {
		n := &x.s.Nodes[i]
		seen := x.o.Nodes[n.ID]
		switch {
		case !x.o.Live(n.ID, x.now):
		case seen.DefaultUser.Problem() != "":
			list = append(list, found{node: n.ID, message: n.ID + " " + seen.DefaultUser.Problem()})
		case !isMisconfigured(&seen):
		default:
			list = append(list, found{node: n.ID, message: n.ID + " runs in " + seen.Info.Mode + " mode: put \"cluster-enabled no\" in its configuration and restart it"})
		}
	}
	return list
}

func refusesAdmin(x *situation) (list []found) {
	for i := range x.s.Nodes {
		n := &x.s.Nodes[i]
		switch seen := x.o.Nodes[n.ID]; {
		case seen.Sight == topology.SightFenced:
			list = append(list, found{node: n.ID, message: n.ID + " " + seen.Detail})
		case seen.NotOnFile && x.o.Live(n.ID, x.now):
			list = append(list, found{node: n.ID, message: fmt.Sprintf("%s refuses the admin password that is on file now, and is only reached by what was known before, "+
				"until it or this Configserver restarts: put the password that it has on line 1 or 2 of %s", n.ID, credentials.AdminFile)})
		}
	}
	return list
}

func firstNode(x *situation) []found {
	if x.c.Phase != topology.Forming || x.s.Master != "" || x.s.Operation != nil || len(x.s.Nodes) == 0 {
		return nil
	}
	n := &x.s.Nodes[0]
	seen := x.o.Nodes[n.ID]
	ready := x.o.Live(n.ID, x.now) && !seen.Info.Loading && seen.Busy == "" && !isMisconfigured(&seen) && x.o.Stranger(x.c, x.s, n) == ""
	return []found{{node: n.ID, message: n.ID + " becomes the master of " + x.s.ID, wait: !ready}}
}

func notAdmitted(x *situation) []found {
	return x.others(func(n *topology.Node, _ *health.Node) bool {
		return n.Incarnation == "" && x.o.Live(n.ID, x.now) && x.o.Stranger(x.c, x.s, n) == ""
	},
		func(n *topology.Node, _ *health.Node) string { return n.ID + " is registered and not admitted yet" })
}

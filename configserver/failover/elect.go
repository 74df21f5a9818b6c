package failover

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Election: who becomes the master of a shard that lost its own.
//
// Goal: nothing acknowledged is lost that a living node still has; and when that
// cannot be known, the shard waits and says for whom, unless its policy or an admin
// says otherwise.
//
//  1. Members of the in-sync set that never stopped (intact) and answer are
//     candidates. Members that live and are silent may have more: they are waited for,
//     at most policy.ElectionWait. Then the highest offset is taken, also of a node
//     that is not in the set and has more on the same history than every member that
//     answers; among equals not the master that is being replaced, then the lowest
//     priority number, then one from which most others can copy, then the lowest id.
//  2. No member is intact and answers, but one that lives is silent: it is waited for.
//  3. Every member that is back restarted. What decides is what they found on their
//     disks, the old master's first, as it had every write. An append-only file, or a
//     snapshot from no earlier than the last known offset, has everything: it is taken
//     at once when no member is missing, and after policy.RestartGrace else.
//  4. Nothing that is back has everything. While anybody who may have more is
//     missing, the shard waits. When every node is back, the most is taken that is
//     left: the highest known offset, then a snapshot of unknown age, then nothing. A
//     member's snapshot of unknown age may have more than a node that is known to lack
//     something, or less: an admin decides.
//
// policy.Prefer "availability" takes what 4 would take from those that answer, after
// policy.ElectionWait (policy.RestartGrace when only empty nodes answer). An admin who
// accepts the loss gets it at once, or the node that was asked for.

// Election says what is to be decided.
type Election struct {
	// Old is the master that is being replaced.
	Old string
	// Requested is the admin's choice, or empty.
	Requested string
	// Asked: an admin wants the master replaced, though it may be well: it is taken
	// only when nobody else can be.
	Asked bool
	// AcceptLoss: a node that was not in sync may be taken.
	AcceptLoss bool
	// Switchover: nobody has written anything since the shard was frozen, so a node
	// that is not in sync is no worse than it was judged then.
	Switchover bool
	// Promoted are nodes that an earlier attempt may have made master; Restarted those
	// of them that it chose by what they had found on their disks; Failed those that
	// could not be promoted a moment ago, which come last among equals.
	Promoted, Restarted, Failed []string
	// Since is when the master went away, Begun when its nodes were first asked who
	// has what; zero while they are not.
	Since, Begun time.Time
	// Offset is the last that is known of the old master's, in bytes; -1 unknown.
	Offset int64
}

// Outcome is what an election comes to.
type Outcome struct {
	// Candidates are all nodes; the one to take, if any, is marked Chosen, and every
	// other one says why not.
	Candidates []topology.Candidate
	// Restarted: the chosen one is to be admitted as the incarnation that it is now.
	Restarted bool
	// Waiting are nodes that are waited for, though somebody could be taken: until
	// then. Without Until, for as long as it takes.
	Waiting []string
	Until   time.Time
	// Remedy is the node with the most that an admin can have promoted, when nobody is
	// chosen; "" when none answers.
	Remedy string
	// Undecided is a member that may have more than Remedy, or less; "" for none.
	Undecided string
	// Free: it was in sync, so that it costs nothing.
	Free bool
	// Lost says what is lost by the choice, as far as is known, in words that follow
	// "which lost"; empty when nothing is known to be.
	Lost string
}

// Chosen is the node to take, "" when there is none.
func (o *Outcome) Chosen() string { return Chosen(o.Candidates) }

// ElectionOf is the election that a persisted operation holds.
func ElectionOf(op *topology.Operation) Election {
	e := Election{Old: op.OldMaster, Requested: op.Requested, Asked: op.Asked, AcceptLoss: op.AcceptLoss,
		Switchover: op.Kind == topology.Switchover, Since: op.StartedAt, Offset: op.OldMasterOffset}
	for _, c := range op.Candidates {
		if c.Chosen {
			e.Promoted = append(e.Promoted, c.Node)
		}
		if c.Chosen && c.Restarted {
			e.Restarted = append(e.Restarted, c.Node)
		}
	}
	return e
}

// election is an Election at work.
type election struct {
	Election
	c    *topology.Cluster
	s    *topology.Shard
	now  time.Time
	list []standing
	Outcome
}

// Elect chooses the next master of a shard.
func Elect(c *topology.Cluster, s *topology.Shard, e Election, o *health.Observations, now time.Time) Outcome {
	x := &election{Election: e, c: c, s: s, now: now}
	for i := range s.Nodes {
		x.list = append(x.list, stand(c, s, &s.Nodes[i], &e, o, now))
	}
	for i := range x.list {
		x.list[i].strands = strands(s, x.list[i].Node, o)
	}
	if s.History().ReplID == "" && o.Histories[s.ID].ReplID == "" {
		refuseOlderHistories(x.list)
	}
	if best := x.choose(); best != nil {
		x.take(best)
	} else {
		x.explain()
	}
	for i := range x.list {
		x.Candidates = append(x.Candidates, x.list[i].Candidate)
	}
	return x.Outcome
}

func (x *election) choose() *standing {
	if v := x.requested(); v != nil || x.wait() {
		return v
	}
	if v := x.intact(); v != nil || x.wait() {
		return v
	}
	if v := x.complete(); v != nil || x.wait() {
		return v
	}
	return x.most()
}

func (x *election) wait() bool { return len(x.Waiting) > 0 }

// requested is the admin's choice, if it can be had.
func (x *election) requested() *standing {
	i := slices.IndexFunc(x.list, func(v standing) bool { return x.Requested != "" && v.Node == x.Requested })
	if i < 0 {
		return nil
	}
	v := &x.list[i]
	may := v.is == intact && (v.Refused == "" || v.soft)
	if x.AcceptLoss {
		if may || v.is == restarted || v.is == unfit && v.soft {
			return v
		}
		return nil
	}
	best := x.best(func(v *standing) bool { return v.ok() && v.member && v.Node != x.Old })
	switch {
	case !may || !v.member:
		return nil
	case best != nil && v.Offset < best.Offset:
		v.Refused = fmt.Sprintf("%d bytes behind %s", best.Offset-v.Offset, best.Node)
		return nil
	case x.silence() || x.catchUp(v):
		return nil
	}
	return v
}

// catchUp waits, when an admin wants a master replaced that is well, until a node has
// what that has: nobody writes to it any more.
func (x *election) catchUp(v *standing) bool {
	i := slices.IndexFunc(x.list, func(v standing) bool { return v.Node == x.Old })
	if !x.Asked || x.AcceptLoss || i < 0 {
		return false
	}
	old, until := &x.list[i], x.Begun.Add(x.c.Policy.ElectionWait)
	if old.ok() && v.Node != x.Old && v.history == old.history && v.Offset < old.Offset && x.now.Before(until) {
		x.Waiting, x.Until = []string{v.Node}, until
	}
	return x.wait()
}

// silence waits for members that live and are silent, or were members a moment ago,
// for they may have more than those that answer.
func (x *election) silence() bool {
	silentOnes := x.nodes(func(v *standing) bool {
		recent := v.n.Out != nil && x.Since.Sub(v.n.Out.Since) < x.c.Policy.MaxReplicaAge && v.n.Incarnation != ""
		return (v.member || recent) && v.is == silent && v.Node != x.Old
	})
	if until := x.Begun.Add(x.c.Policy.ElectionWait); len(silentOnes) > 0 && x.now.Before(until) {
		x.Waiting, x.Until = silentOnes, until
	}
	return x.wait()
}

// intact is step 1.
func (x *election) intact() *standing {
	may := func(v *standing) bool { return v.ok() && v.member }
	best := x.best(func(v *standing) bool { return may(v) && !(x.Asked && v.Node == x.Old) })
	if best == nil {
		best = x.best(may)
	}
	if best != nil {
		if best = x.more(best); x.silence() || x.catchUp(best) {
			return nil
		}
		return best
	}
	if !x.lossAllowed() {
		x.Waiting = x.nodes(func(v *standing) bool { return v.member && (v.is == silent || v.withheld) })
	}
	return nil
}

// more is who has all that a member has, and more: a node that left the set a moment
// ago and has caught up, for example. The same process on the same history with a
// greater offset lacks nothing of it.
func (x *election) more(member *standing) *standing {
	better := x.best(func(v *standing) bool {
		return v.ok() && !v.member && v.history == member.history && v.Offset > member.Offset && !(x.Asked && v.Node == x.Old)
	})
	if better == nil {
		return member
	}
	better.member = true // as good as one
	return better
}

// complete is step 3.
func (x *election) complete() *standing {
	best := x.best(x.hasEverything)
	missing := x.nodes(func(v *standing) bool { return v.member && v.missing() })
	until := x.Since.Add(x.c.Policy.RestartGrace)
	switch {
	case len(missing) == 0:
	case best != nil && x.now.Before(until):
		x.Waiting, x.Until = missing, until
		return nil
	case best == nil && !x.lossAllowed():
		x.Waiting = missing
	}
	return best
}

// hasEverything tells if a member that restarted found all on its disk.
func (x *election) hasEverything(v *standing) bool {
	return v.member && v.is == restarted && (v.holds == journal || v.holds == placed && x.Offset >= 0 && v.Offset >= x.Offset)
}

// most is step 4: nobody has everything.
func (x *election) most() *standing {
	best := x.best(mayServe)
	missing := x.nodes(func(v *standing) bool { return v.n.Incarnation != "" && v.missing() })
	if best == nil || len(missing) > 0 && !x.lossAllowed() {
		x.Waiting = missing
		return nil
	}
	if x.Undecided = x.mayHaveMore(best); x.Undecided != "" {
		return nil
	}
	if len(missing) > 0 && !x.AcceptLoss {
		until := x.Since.Add(x.c.Policy.ElectionWait)
		if best.is == restarted && best.holds == nothing {
			until = x.Since.Add(x.c.Policy.RestartGrace)
		}
		if x.now.Before(until) {
			x.Waiting, x.Until = missing, until
			return nil
		}
	}
	return best
}

// mayHaveMore is a member whose snapshot of unknown age may have more than a node that
// is known to lack something; "" when there is none, or a loss is allowed.
func (x *election) mayHaveMore(best *standing) string {
	known := best.is == intact || best.holds == placed
	if !known || x.lossAllowed() || x.Offset >= 0 && best.Offset >= x.Offset {
		return ""
	}
	if v := x.best(func(v *standing) bool { return v.member && v.is == restarted && v.holds == someData }); v != nil {
		return v.Node
	}
	return ""
}

// missing tells if a node may have more than can be seen or taken now.
func (v *standing) missing() bool {
	return v.is == away || v.is == silent || v.is == loading || v.withheld
}

// mayServe tells if a node could be a master with the data that it has.
func mayServe(v *standing) bool {
	return v.n.Incarnation != "" && (v.ok() || v.is == restarted || v.is == unfit && v.soft)
}

// mayBeAskedFor tells if an admin who accepts the loss can have a node.
func mayBeAskedFor(v *standing) bool {
	return v.is == restarted || v.is >= unfit && (v.Refused == "" || v.soft)
}

// lossAllowed: somebody who lacks something may be taken although others are missing
// who have it.
func (x *election) lossAllowed() bool {
	return x.AcceptLoss || x.c.Policy.Prefer == topology.PreferAvailability
}

// best is the best of the nodes that match; nil when none does.
func (x *election) best(match func(v *standing) bool) *standing {
	var best *standing
	for i := range x.list {
		if v := &x.list[i]; match(v) && (best == nil || x.before(v, best)) {
			best = v
		}
	}
	return best
}

// before puts what holds more first: rank, then offset, then preference. Of members
// that restarted with everything the old master comes first.
func (x *election) before(a, b *standing) bool {
	old := func(v *standing) int {
		if x.hasEverything(v) && v.Node == x.Old || v.is == restarted && v.holds < placed && v.Node == x.Old {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(x.rank(a), x.rank(b)), cmp.Compare(old(a), old(b)), compare(a, b, &x.Election)) < 0
}

// rank orders what nodes hold, the most first.
func (x *election) rank(v *standing) int {
	switch {
	case v.is == intact && v.member:
		return 0
	case x.hasEverything(v):
		return 1
	case v.is == intact || v.holds == placed:
		return 2 // how far it goes is known
	case v.holds == journal:
		return 3
	case v.is == restarted && v.holds == someData && v.member:
		return 4
	case v.is == restarted && v.holds == someData:
		return 5
	case v.is == unfit && v.holds != nothing:
		return 6 // of an older history
	case v.member:
		return 7
	}
	return 8
}

func (x *election) nodes(match func(v *standing) bool) (ids []string) {
	for i := range x.list {
		if match(&x.list[i]) {
			ids = append(ids, x.list[i].Node)
		}
	}
	return ids
}

// take marks the chosen one, and says of the others why not and of the choice what it
// costs.
func (x *election) take(best *standing) {
	x.Waiting, x.Until = nil, time.Time{}
	x.Outcome.Restarted = best.is == restarted
	x.Lost = x.lost(best)
	best.Chosen, best.Refused, best.Candidate.Restarted = true, "", best.is == restarted
	for i := range x.list {
		v := &x.list[i]
		switch {
		case v == best:
		case v.is == intact && !v.member && v.Refused == "":
			v.Refused = x.outside(v)
		case v.Refused != "" && v.is != restarted:
		case x.Requested == best.Node:
			v.Refused = "another node was asked for"
		case v.Refused == "" && v.Node == x.Old && x.Asked:
			v.Refused = "it is the master that is being replaced"
		default:
			v.Refused = passedOver(v, best)
		}
	}
}

// troubleSince is when a master went away: when it was seen to be well for the last
// time, as far as is known here.
func troubleSince(s *topology.Shard, o *health.Observations) time.Time {
	since := o.Histories[s.ID].Seen
	if since.Before(o.Started) {
		since = o.Started
	}
	if s.Operation != nil && s.Operation.Kind != topology.Rotation && s.Operation.StartedAt.Before(since) {
		since = s.Operation.StartedAt
	}
	return since
}

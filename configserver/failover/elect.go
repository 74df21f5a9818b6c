package failover

import (
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Elect chooses the next master of a shard. What an admin asked for goes
// first; when it cannot serve, any admitted node is better than none. When no
// node is eligible, incarnations that were never admitted are considered:
// because every holder of the data restarted, or because an admin insists on
// one. The second result tells that it came to that.
func Elect(c *topology.Cluster, s *topology.Shard, e Election, o *health.Observations, now time.Time) ([]topology.Candidate, bool) {
	candidates := Candidates(c, s, e, o, now)
	if Chosen(candidates) != "" {
		return candidates, false
	}
	if e.Requested != "" {
		open := e
		open.Requested = ""
		if others := Candidates(c, s, open, o, now); Chosen(others) != "" {
			return others, false
		}
	}
	if e.Requested == "" && !allRestarted(c, s, e.Old, o, now) {
		return candidates, false
	}
	e.Restarted = true
	return Candidates(c, s, e, o, now), true
}

// ElectionOf is the election that a persisted operation holds.
func ElectionOf(op *topology.Operation) Election {
	e := Election{Old: op.OldMaster, Requested: op.Requested}
	if op.Kind == topology.Switchover {
		// Nothing was written to anybody but the old master, which is alive.
		e.AllowOld = true
	}
	for _, c := range op.Candidates {
		if c.Chosen {
			e.Promoted = append(e.Promoted, c.Node)
		}
	}
	return e
}

// allRestarted tells if nobody can be waited for any more who holds the data
// since before the trouble: the old master restarted or is dead, and every
// other node restarted, never had the data, or has been away for
// policy.RestartGrace.
func allRestarted(c *topology.Cluster, s *topology.Shard, old string, o *health.Observations, now time.Time) bool {
	waiting := false
	for i := range s.Nodes {
		n := &s.Nodes[i]
		seen := o.Nodes[n.ID]
		live := o.Live(n.ID, now)
		switch {
		case n.ID == old && live && seen.Info.RunID == n.Incarnation:
			return false // alive as it was
		case n.ID == old && !live && seen.Refused < c.Policy.RefusedProbes:
			return false // hung or being asked; it may still have everything
		case n.ID == old && !live:
			waiting = true
		case n.Incarnation == "":
		case live && (seen.Info.Loading || seen.Busy == "LOADING"):
			waiting = true // what it has is not known yet
		case n.ID == old:
		case !live:
			waiting = true // away: a restart is not known
		case seen.Info.RunID != n.Incarnation:
		case seen.Info.Master || seen.Info.Keys > 0 || !neverInSync(seen.Info, o.Histories[s.ID].ReplID):
			return false // alive and may hold data; Candidates refused it for a reason
		}
	}
	if !waiting {
		return true
	}
	return now.Sub(troubleSince(s, old, o)) >= c.Policy.RestartGrace
}

// troubleSince is when the old master went away, as far as is known here.
func troubleSince(s *topology.Shard, old string, o *health.Observations) time.Time {
	since := o.Nodes[old].RefusedSince
	if s.Operation != nil && s.Operation.StartedAt.Before(since) {
		since = s.Operation.StartedAt
	}
	if since.Before(o.Started) {
		return o.Started
	}
	return since
}

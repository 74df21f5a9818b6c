package failover

import (
	"fmt"
	"math"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// The in-sync set: who may be promoted without an admin's word.
//
// Goal: a node that is promoted has every write that was acknowledged and reached any
// node that answers, and it is known what an acknowledged write can be lost by.
//
// Each shard's record names the members. The master always is one. What changes the
// set is a commit, decided by what this Configserver saw itself:
//
//  1. A replica enters when it follows the admitted master with its link up, the
//     master sends it the stream, and it stands where the master stood a moment ago,
//     as both were seen from here.
//  2. It leaves when it restarts or is admitted anew (its admission says so); and,
//     while the master is seen to be well: when its link is down or it makes a full
//     copy; when it has been more than policy.MaxReplicaLag bytes behind for a second;
//     and when the newest instant of which it is known to have everything is
//     policy.MaxReplicaAge past. A replica that is silent is not seen to catch up, and
//     what it says of itself when it wakes changes nothing.
//  3. Nothing leaves while the master is not seen to be well. A master that dies takes
//     the links of its replicas down; that says nothing about what they have.
//  4. When the master changes, those stay that had no more than the new master when it
//     was promoted and were made to follow it (finish); health.LinkGrace later 2 holds.
//  5. The last member stays, whatever becomes of it: it is who had everything last.
//     There always is one, so there always is somebody to wait for.
//
// What can be lost: replication is asynchronous, so a master acknowledges before any
// replica has a write. A member may lack what was written since it was last seen to
// have everything: that is the interval of probes when its link broke (the commit
// comes one probe of the master later), health.LinkGrace right after a change of masters,
// and at most policy.MaxReplicaAge or MaxReplicaLag when it is slow or silent. A master
// that is well goes on acknowledging until then, unless min-replicas-to-write stops
// it. While no Configserver watches, nobody leaves: a replica that says that its own
// link broke well before the master was last known to live is not taken all the same
// (linkAge).

const (
	// behindFor is how long a replica must be too far behind to leave.
	behindFor = time.Second
	// abreast is how fresh the instant must be, against the newest look at the
	// master, of which a replica that enters has everything.
	abreast = 500 * time.Millisecond
)

// Tend returns a shard with its in-sync set, history and diverged data as they should
// be by what is seen, and says why; no reasons when the record is right.
func Tend(c *topology.Cluster, s *topology.Shard, o *health.Observations, now time.Time) (topology.Shard, []string) {
	m := s.MasterNode()
	if m == nil || s.Operation != nil && s.Operation.Kind != topology.Rotation || !o.Admitted(m, now) {
		return *s, nil
	}
	seen := o.Nodes[m.ID]
	h := o.Histories[s.ID]
	if !seen.Info.Master || h.ReplID == "" || !o.Fresh(s.ID, seen.InfoAt) {
		return *s, nil
	}
	var why []string
	if s.History().ReplID != h.ReplID {
		// A master that had no replica for long, or gets its first, begins another
		// history. Nobody else wrote meanwhile, so nobody has more than it has.
		why = append(why, m.ID+" writes another history")
	}
	for i := range s.Nodes {
		if reason := tendNode(c, s, &s.Nodes[i], o, now, nil); reason != "" {
			why = append(why, reason)
		}
	}
	if len(why) == 0 {
		return *s, nil // looked at many times a second: nothing is copied for that
	}
	next := s.Clone()
	next.Continue(topology.History{ReplID: h.ReplID, Start: h.Offset})
	next.MasterNode().History = h.ReplID
	for i := range next.Nodes {
		tendNode(c, s, &s.Nodes[i], o, now, &next.Nodes[i])
	}
	return next, why
}

// tendNode says what has to change about one node, and does so in next, if given.
func tendNode(c *topology.Cluster, s *topology.Shard, n *topology.Node, o *health.Observations, now time.Time, next *topology.Node) string {
	if next == nil {
		next = &topology.Node{}
	}
	h := o.Histories[s.ID]
	protect := func() { // what it had alone, from now on for that long
		if d := next.Diverged; d != nil {
			d.Until = now.Add(c.Policy.KeepDiverged).UTC().Round(time.Microsecond)
		}
	}
	switch {
	case n.ID == s.Master:
	case !n.InSync && mayEnter(c, s, n, o, now):
		next.InSync, next.Out, next.History = true, nil, h.ReplID
		protect()
		return n.ID + " is in sync"
	case !n.InSync:
		return ""
	default:
		if reason := outOfSync(c, s, n, o, now); reason != "" {
			next.InSync = false
			next.Out = &topology.OutOfSync{Since: now.UTC().Round(time.Microsecond), Why: reason, Offset: knownOffset(s, n, o), MasterOffset: h.Offset}
			return n.ID + " is not in sync: " + reason
		}
	}
	switch d := n.Diverged; {
	case d == nil:
	case d.Until.IsZero():
		protect()
		return n.ID + " is in sync, and keeps what it had alone for a while"
	case now.After(d.Until):
		next.Diverged = nil
		return n.ID + ": diverged data need not be kept any more"
	}
	return ""
}

// knownOffset is how much a replica is known to have of its master's stream, in
// bytes; -1 when nothing is.
func knownOffset(s *topology.Shard, n *topology.Node, o *health.Observations) int64 {
	info := o.Nodes[n.ID].Info
	if info.RunID != n.Incarnation || info.Master || info.ReplID != o.Histories[s.ID].ReplID {
		return -1
	}
	return info.Offset
}

// outOfSync says why a replica is not in sync, while the master is well; "" when
// nothing speaks against it.
func outOfSync(c *topology.Cluster, s *topology.Shard, n *topology.Node, o *health.Observations, now time.Time) string {
	seen, h := o.Nodes[n.ID], o.Histories[s.ID]
	if n.Incarnation == "" {
		return "not admitted"
	}
	if why := o.Apart(c, s, n); why != "" {
		return why
	}
	if behind, is := o.Behind[n.ID]; is && now.Sub(behind) > behindFor {
		return fmt.Sprintf("it is %d bytes behind", h.Offset-seen.Info.Offset)
	}
	last := o.CaughtUp[n.ID]
	for _, t := range []time.Time{h.Since, o.Started} {
		if t.After(last) {
			last = t
		}
	}
	// Counted to the last but one look at the master: after a stall, of the master or
	// of this process, the replica gets a chance to be seen first.
	silent := !seen.InfoAt.After(h.Before())
	if silent && o.Silence(&seen.Probe, now) <= c.Policy.MaxReplicaAge {
		return ""
	}
	if age := h.Before().Sub(last); age > c.Policy.MaxReplicaAge {
		return fmt.Sprintf("it was not seen to have everything for %v", age.Round(100*time.Millisecond))
	}
	return ""
}

// mayEnter tells if a replica has what its master has.
func mayEnter(c *topology.Cluster, s *topology.Shard, n *topology.Node, o *health.Observations, now time.Time) bool {
	follows, lag := o.InSync(s, n, now)
	if !follows || lag > c.Policy.MaxReplicaLag || !o.Nodes[n.ID].InfoAt.After(o.Since[s.ID]) {
		return false
	}
	m, h := s.MasterNode(), o.Histories[s.ID]
	return online(o.Nodes[m.ID].Info, n) && h.Seen.Sub(o.CaughtUp[n.ID]) <= abreast
}

// succeed makes the record of a shard right that has a new master: its history, and
// who is in sync. info is what the master says of itself; joined, what those said that
// follow it, right before they were told to.
func succeed(s *topology.Shard, op *topology.Operation, info redisadmin.Info, joined map[string]redisadmin.Info, now time.Time) {
	before := s.History().ReplID
	fork, start := info.Offset, int64(-1)
	switch {
	case info.SecondOffset > 0:
		// A promoted replica, and a master that restarted from a snapshot, go on from a
		// place in the history before.
		fork, start = info.SecondOffset-1, info.SecondOffset-1
		if info.ReplID != before {
			s.Continue(topology.History{ReplID: info.ReplID2, Start: -1})
		}
	case s.Master == op.OldMaster && op.Lost == "":
		// The master itself is back, with all that it found on its disk: nobody has
		// more of what it wrote. Of anybody else's append-only file it is not known how
		// it continues the shard's history.
		start = math.MaxInt64
	}
	s.Continue(topology.History{ReplID: info.ReplID, Start: start})
	for i := range s.Nodes {
		n := &s.Nodes[i]
		is, follows := joined[n.ID]
		switch {
		case n.ID == s.Master:
			n.InSync, n.Out, n.History = true, nil, info.ReplID
		case n.InSync && follows && (is.ReplID == info.ReplID || start >= 0 && is.ReplID == info.ReplID2 && is.Offset <= fork):
			n.History = info.ReplID
		case n.InSync:
			n.InSync = false
			n.Out = &topology.OutOfSync{Since: now.UTC().Round(time.Microsecond), Offset: -1, MasterOffset: op.OldMasterOffset,
				Why: "it was not there when " + s.Master + " became master"}
			if is.ReplID == before && before != "" {
				n.Out.Offset = is.Offset
			}
		}
	}
}

// Package failover decides what is wrong with a shard and what to do about it,
// and does it: failover, switchover, rotation of credentials, admission of
// nodes. Deciding (Detect, Candidates, Decide) is pure; doing (Executor) is a
// set of persisted state machines.
package failover

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Election says how candidates are judged.
type Election struct {
	// Old is the master that is being replaced; it is no candidate unless
	// AllowOld, or when nobody else can serve and it still is the admitted
	// incarnation.
	Old      string
	AllowOld bool
	// Requested is the admin's choice, or empty. It is taken although its link
	// was down for long or its priority is 0, never although it restarted.
	Requested string
	// Promoted are nodes that an earlier attempt may have made master.
	Promoted []string
	// Restarted: every node that held the data restarted, so an incarnation
	// that was not admitted may be chosen when it holds data.
	Restarted bool
}

// verdict on one candidate. A soft refusal yields to an admin's choice.
type verdict struct {
	topology.Candidate
	soft    bool
	history string // replication id
	before  string // the history it continues
}

// Candidates judges every node of a shard as its next master. The one to take,
// if any, is marked Chosen; every other one says why not. The best has the
// lowest priority number, then the highest offset, then the lowest id: a
// candidate with a higher offset has every write the others have.
func Candidates(c *topology.Cluster, s *topology.Shard, e Election, o *health.Observations, now time.Time) []topology.Candidate {
	if e.Restarted {
		return restartedCandidates(s, e, o, now)
	}
	verdicts := make([]verdict, 0, len(s.Nodes))
	for i := range s.Nodes {
		verdicts = append(verdicts, judge(c, s, &s.Nodes[i], e, o, now))
	}
	refuseOlderHistories(verdicts)
	refuseBehindOld(verdicts, e)
	best := choose(verdicts, e)
	if best < 0 && !e.AllowOld && e.Old != "" && (e.Requested == "" || e.Requested == e.Old) {
		// Nobody else can serve. The old master itself, if it is back and never
		// restarted, has every write.
		e.AllowOld = true
		for i := range s.Nodes {
			if s.Nodes[i].ID == e.Old {
				verdicts[i] = judge(c, s, &s.Nodes[i], e, o, now)
			}
		}
		best = choose(verdicts, e)
	}
	out := make([]topology.Candidate, 0, len(verdicts))
	for i, v := range verdicts {
		switch {
		case i == best:
			v.Chosen, v.Refused = true, ""
		case v.Refused != "" || best < 0:
		case e.Requested != "":
			v.Refused = "another node was asked for"
		default:
			v.Refused = passedOver(v.Candidate, verdicts[best].Candidate)
		}
		out = append(out, v.Candidate)
	}
	return out
}

// Chosen returns the id of the node to take, "" when there is none.
func Chosen(candidates []topology.Candidate) string {
	for _, c := range candidates {
		if c.Chosen {
			return c.Node
		}
	}
	return ""
}

func judge(c *topology.Cluster, s *topology.Shard, n *topology.Node, e Election, o *health.Observations, now time.Time) verdict {
	seen := o.Nodes[n.ID]
	info := seen.Info
	v := verdict{Candidate: topology.Candidate{Node: n.ID, Offset: -1, Priority: n.Priority}, history: info.ReplID, before: info.ReplID2}
	refuse := func(soft bool, format string, args ...any) verdict {
		v.Refused, v.soft = fmt.Sprintf(format, args...), soft
		return v
	}
	old := n.ID == e.Old
	switch {
	case old && !e.AllowOld:
		return refuse(false, "it is the master that is being replaced")
	case n.Incarnation == "":
		return refuse(false, "not admitted yet")
	case !o.Live(n.ID, now):
		return refuse(false, "does not answer: %s", cmp.Or(seen.Detail, "never seen"))
	case info.RunID != n.Incarnation:
		return refuse(false, "restarted: incarnation %.8s was not admitted", info.RunID)
	}
	v.Offset = info.Offset
	wasPromoted := slices.Contains(e.Promoted, n.ID)
	history := o.Histories[s.ID].ReplID
	switch {
	case info.Loading || seen.Busy == "LOADING":
		return refuse(false, "is loading its data")
	case info.Syncing:
		return refuse(false, "its first copy of the data is unfinished (%d %%)", info.SyncPercent)
	case info.Master && !old && !wasPromoted:
		return refuse(false, "is a master of its own and not a replica of this shard's")
	case !info.Master && neverInSync(info, history):
		return refuse(false, "was never in sync with a master")
	case history != "" && info.ReplID != history && info.ReplID2 != history:
		return refuse(true, "its data is of an older history than the master's")
	case n.Priority == 0 && !old:
		return refuse(true, "priority 0: never master")
	}
	if age := linkAge(s, n, o); !info.Master && age > c.Policy.MaxReplicaAge {
		return refuse(true, "its link to the master had been down for %v, more than %v", age.Round(time.Second), c.Policy.MaxReplicaAge)
	}
	return v
}

// neverInSync tells if a replica has never had a copy of its master's data. It
// takes over the name of the master's history with the copy.
func neverInSync(info redisadmin.Info, history string) bool {
	return !info.LinkUp && info.Offset <= 1 && (history == "" || info.ReplID != history)
}

// linkAge is for how long a replica's link had been down when the master was
// last known to live: either this Configserver saw the master after that, or a
// sibling's link was still up. Time that passed since the master died does not
// count, however long nobody was there to replace it.
func linkAge(s *topology.Shard, n *topology.Node, o *health.Observations) time.Duration {
	lost := func(id string) (time.Time, bool) {
		p := o.Nodes[id].Probe
		if p.Info.LinkUp || p.Info.LinkDownFor < 0 {
			return time.Time{}, false
		}
		return p.InfoAt.Add(-p.Info.LinkDownFor), true
	}
	since, down := lost(n.ID)
	if !down {
		return 0
	}
	alive := o.Histories[s.ID].Seen
	for _, sibling := range s.Nodes {
		p := o.Nodes[sibling.ID].Probe
		if sibling.Incarnation == "" || p.Info.RunID != sibling.Incarnation || p.Info.Master {
			continue
		}
		at, siblingDown := lost(sibling.ID)
		if !siblingDown && p.Info.LinkUp {
			at = p.InfoAt
		}
		if at.After(alive) {
			alive = at
		}
	}
	return max(0, alive.Sub(since))
}

// refuseOlderHistories drops candidates whose history another candidate's
// continues: they missed a promotion, so their offsets count something else.
func refuseOlderHistories(verdicts []verdict) {
	for i := range verdicts {
		for j := range verdicts {
			a, b := &verdicts[i], &verdicts[j]
			if i != j && a.Refused == "" && b.Refused == "" && a.history != b.history && a.history == b.before {
				a.Refused, a.soft = "its data is of an older history than that of "+b.Node, true
			}
		}
	}
}

// refuseBehindOld drops candidates that miss something which the old master
// has, when it may be chosen itself: no preference is worth a lost write then.
func refuseBehindOld(verdicts []verdict, e Election) {
	if !e.AllowOld {
		return
	}
	i := slices.IndexFunc(verdicts, func(v verdict) bool { return v.Node == e.Old && v.Refused == "" })
	if i < 0 {
		return
	}
	for j := range verdicts {
		v := &verdicts[j]
		if v.Refused == "" && v.Offset < verdicts[i].Offset && !slices.Contains(e.Promoted, v.Node) {
			v.Refused, v.soft = fmt.Sprintf("%d bytes behind %s", verdicts[i].Offset-v.Offset, e.Old), true
		}
	}
}

// choose returns the index of the best candidate, -1 when there is none.
func choose(verdicts []verdict, e Election) int {
	best := -1
	for i := range verdicts {
		v := &verdicts[i]
		if e.Requested != "" {
			if v.Node == e.Requested && (v.Refused == "" || v.soft) {
				return i
			}
			continue
		}
		if v.Refused == "" && (best < 0 || compare(v.Candidate, verdicts[best].Candidate) < 0) {
			best = i
		}
	}
	return best
}

func compare(a, b topology.Candidate) int {
	return cmp.Or(
		cmp.Compare(a.Priority, b.Priority),
		cmp.Compare(b.Offset, a.Offset),
		topology.CompareIDs(a.Node, b.Node))
}

func passedOver(v, best topology.Candidate) string {
	switch {
	case v.Priority != best.Priority:
		return fmt.Sprintf("%s has the better priority, %d", best.Node, best.Priority)
	case v.Offset != best.Offset:
		return fmt.Sprintf("%d bytes behind %s", best.Offset-v.Offset, best.Node)
	}
	return "as good as " + best.Node + ", which has the lower id"
}

// restartedCandidates judges a shard of which every data holder restarted.
// Offsets mean nothing then. A node that holds data is taken, the recorded
// master before others, then the one with most keys. Without any data the
// recorded master is taken, once it is certain that nobody who may hold data
// is only away.
func restartedCandidates(s *topology.Shard, e Election, o *health.Observations, now time.Time) []topology.Candidate {
	out := make([]topology.Candidate, 0, len(s.Nodes))
	best, keys := -1, int64(0)
	away, empty := "", -1
	for i := range s.Nodes {
		n := &s.Nodes[i]
		seen := o.Nodes[n.ID]
		v := topology.Candidate{Node: n.ID, Offset: -1, Priority: n.Priority}
		requested := e.Requested == n.ID
		switch {
		case !o.Live(n.ID, now):
			v.Refused = "does not answer: " + cmp.Or(seen.Detail, "never seen")
			if n.Incarnation != "" {
				away = n.ID
			}
		case seen.Info.Loading || seen.Busy == "LOADING":
			v.Refused = "is loading its data"
			away = n.ID
		case e.Requested != "" && !requested:
			v.Refused = "another node was asked for"
		case n.Incarnation == "" && !requested:
			v.Refused = "was never admitted"
		case seen.DefaultUser.On || seen.Info.Mode == "cluster":
			v.Refused = "is misconfigured"
		case seen.Info.Keys <= 0:
			v.Refused = "holds no data"
			if n.ID == e.Old || empty < 0 && e.Old == "" || requested {
				empty = i
			}
		case best < 0 || n.ID == e.Old || out[best].Node != e.Old && seen.Info.Keys > keys:
			if best >= 0 {
				out[best].Refused = "another node is preferred"
			}
			best, keys = i, seen.Info.Keys
		default:
			v.Refused = "another node is preferred"
		}
		out = append(out, v)
	}
	if best < 0 && empty >= 0 {
		if away != "" && e.Requested == "" {
			out[empty].Refused = "holds no data, and " + away + ", which may hold some, does not answer: bring it back, " +
				"or ask for a failover to this node to start empty"
		} else {
			best = empty
		}
	}
	if best >= 0 {
		out[best].Chosen, out[best].Refused = true, ""
	}
	return out
}

// Package failover decides what is wrong with a shard and what to do about it,
// and does it: failover, switchover, rotation of credentials, admission of
// nodes. Deciding (Detect, Elect, Tend) is pure; doing (Executor) is a set of
// persisted state machines.
package failover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// condition is what an election finds a node in.
type condition int

const (
	// away: it does not answer, and nothing says that it lives; or another server
	// answers in its place.
	away condition = iota
	// silent: it lives and does not answer.
	silent
	// loading: it restarted and reads what it has on disk.
	loading
	// unfit: it answers and cannot be a master, or has no data of the shard.
	unfit
	// restarted: what it has is what it found on its disk.
	restarted
	// intact: it is the process that was admitted, with data of the shard's history.
	intact
)

// holding is what is known of the data of a node that restarted, or is unfit.
type holding int

const (
	// nothing: it has no keys.
	nothing holding = iota
	// someData: a snapshot of unknown age.
	someData
	// placed: a snapshot that says at which offset of the shard's history it was
	// written.
	placed
	// journal: an append-only file, which has everything up to its last fsync.
	journal
)

// standing is a node as an election sees it. A soft refusal yields to an admin's
// choice.
type standing struct {
	topology.Candidate
	n      *topology.Node
	is     condition
	holds  holding
	member bool
	lag    string // why it is no member although the record says so
	// withheld: it answers, may have everything, and must not be promoted by itself.
	withheld bool
	soft     bool
	history  string // replication id
	before   string // the history it continues
	// strands are nodes of the shard that run an older version, and could not load a full
	// copy of it.
	strands []string
}

func (v *standing) refuse(is condition, soft bool, format string, args ...any) {
	v.is, v.soft, v.Refused = is, soft, fmt.Sprintf(format, args...)
}

// fallBack makes a node that is unfit count with no more than the shard's history
// has of what it has.
func (v *standing) fallBack(s *topology.Shard, info *redisadmin.Info) {
	if v.is == unfit && v.Offset >= 0 {
		v.Offset = s.Place(info.ReplID, info.Offset)
	}
}

// ok tells if a node may be taken, as far as the node itself goes.
func (v *standing) ok() bool { return v.is == intact && v.Refused == "" }

// stand judges one node by itself.
func stand(c *topology.Cluster, s *topology.Shard, n *topology.Node, e *Election, o *health.Observations, now time.Time) standing {
	seen := o.Nodes[n.ID]
	info := seen.Info
	v := standing{Candidate: topology.Candidate{Node: n.ID, Offset: -1, Priority: n.Priority}, n: n, member: n.InSync,
		history: info.ReplID, before: info.ReplID2}
	admitted := info.RunID == n.Incarnation && !slices.Contains(e.Restarted, n.ID)
	switch stranger := o.Stranger(c, s, n); {
	case !o.Live(n.ID, now):
		is, why := silent, cmp.Or(seen.Detail, "never seen")
		switch seen.Sight {
		case topology.SightRefused:
			is = away // whatever else it may be, a process that has the data is not there
		case topology.SightOK:
			why = "silent"
		}
		v.refuse(is, false, "does not answer: %s", why)
	case stranger != "":
		v.refuse(away, false, "%s", stranger)
	case n.Incarnation == "" && n.ID != e.Requested:
		v.refuse(unfit, true, "not admitted yet")
	case n.Discard != "" && n.Discard == info.RunID:
		v.refuse(unfit, false, "its data is to be discarded")
	case info.Loading || seen.Busy == "LOADING":
		v.refuse(loading, false, "is loading its data")
	case isMisconfigured(&seen):
		v.refuse(unfit, false, "is misconfigured")
		v.withheld = admitted || info.Keys > 0
	case !admitted:
		v.restart(s, &seen)
	default:
		v.judge(c, s, e, o)
	}
	return v
}

// restart judges a node whose incarnation was not admitted, or only by an election
// that came to nothing.
func (v *standing) restart(s *topology.Shard, seen *health.Node) {
	info := &seen.Info
	v.refuse(restarted, false, "restarted: incarnation %.8s was not admitted", info.RunID)
	switch {
	case info.Keys <= 0:
		v.holds = nothing
	case info.AppendOnly:
		v.holds = journal
	case s.Place(info.ReplID, info.Offset) >= 0:
		v.holds, v.Offset = placed, s.Place(info.ReplID, info.Offset)
	case s.Place(info.ReplID2, info.SecondOffset-1) >= 0:
		// It counts on from where the snapshot was written, by a history of its own.
		v.holds, v.Offset = placed, s.Place(info.ReplID2, info.SecondOffset-1)
	default:
		v.holds = someData
	}
}

// judge judges a node that is the process that was admitted.
func (v *standing) judge(c *topology.Cluster, s *topology.Shard, e *Election, o *health.Observations) {
	n, info := v.n, o.Nodes[v.Node].Info
	v.is, v.Offset = intact, info.Offset
	switch {
	case s.Place(info.ReplID, info.Offset) >= 0:
		v.holds = placed
	case info.Keys > 0:
		v.holds = someData
	}
	ours := s.History().ReplID
	known := func(id string) bool { return id != "" && (id == ours || id == o.Histories[s.ID].ReplID) }
	switch {
	case info.Syncing:
		v.refuse(unfit, false, "its copy of the data is unfinished (%d %%)", info.SyncPercent)
		v.withheld = true // it goes on with what it had when the copy is cut short
	case info.Master && n.ID != e.Old && !slices.Contains(e.Promoted, n.ID) && !known(info.ReplID2):
		// It may be an old master that nobody has made a replica yet, and the only one
		// that still has data. (One that somebody made a master by hand goes on from
		// the shard's history.)
		v.refuse(unfit, v.holds == placed, "is a master of its own and not a replica of this shard's")
	case !info.Master && !info.LinkUp && info.Offset <= 1 && !known(info.ReplID):
		v.refuse(unfit, true, "was never in sync with a master")
	case (ours != "" || o.Histories[s.ID].ReplID != "") && !known(info.ReplID) && !known(info.ReplID2):
		v.refuse(unfit, true, "its data is of an older history than the master's")
	case n.Priority == 0 && n.ID != e.Old:
		v.refuse(intact, true, "priority 0: never master")
		v.withheld = true
	}
	if v.is == intact && !known(info.ReplID) && known(info.ReplID2) && info.SecondOffset > 0 {
		// It was promoted, and nobody was told: what counts is the shard's own stream.
		v.Offset = min(v.Offset, info.SecondOffset-1)
	}
	v.fallBack(s, &info)
	if why := v.evidence(c, s, e, o); why != "" {
		v.member, v.lag = false, why
	}
	if e.Switchover && v.is == intact {
		// Nothing was written since the shard was frozen; before, catching up decides.
		v.member = v.member || e.Offset >= 0 && v.Offset >= e.Offset || e.Offset < 0 && info.LinkUp && n.ID == e.Requested
	}
}

// evidence is what was seen to speak against a replica that the record says to be in
// sync; "" when nothing was.
func (v *standing) evidence(c *topology.Cluster, s *topology.Shard, e *Election, o *health.Observations) string {
	if v.Node == e.Old || slices.Contains(e.Promoted, v.Node) {
		return ""
	}
	if why := o.Apart(c, s, v.n); why != "" {
		return "when the master was well, " + why
	}
	if e.Offset >= 0 && v.Offset >= 0 && e.Offset-v.Offset > c.Policy.MaxReplicaLag {
		return "more behind than max_replica_lag"
	}
	if linkAge(s, v.n, e.Old, o) > c.Policy.MaxReplicaAge {
		return fmt.Sprintf("its link to the master had been down for longer than %v", c.Policy.MaxReplicaAge)
	}
	return ""
}

// linkAge is for how long a replica's link had been down when the master was
// last known to live: either this Configserver saw the master after that, or a proxy
// got a reply from it, or a sibling's link was still up, which has more of the stream
// to show for it. (One that was stopped says when it wakes that its link just broke.)
// Time that passed since the master died does not count, however long nobody was
// there to replace it. It is the replica's own word: good enough against it, never
// for it.
func linkAge(s *topology.Shard, n *topology.Node, old string, o *health.Observations) time.Duration {
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
	for _, p := range o.Nodes[old].Proxies {
		if p.ReplyAt.After(alive) {
			alive = p.ReplyAt
		}
	}
	for _, sibling := range s.Nodes {
		p := o.Nodes[sibling.ID].Probe
		has := p.Info.ReplID == o.Nodes[n.ID].Info.ReplID && p.Info.Offset > o.Nodes[n.ID].Info.Offset
		if sibling.Incarnation == "" || p.Info.RunID != sibling.Incarnation || p.Info.Master || !has {
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

// refuseOlderHistories drops candidates whose history another candidate's continues,
// when it is not known which is the shard's: they missed a promotion, so their
// offsets count something else.
func refuseOlderHistories(list []standing) {
	for i := range list {
		for j := range list {
			a, b := &list[i], &list[j]
			if i != j && a.ok() && b.ok() && a.history != b.history && a.history == b.before {
				a.refuse(unfit, true, "its data is of an older history than that of %s", b.Node)
			}
		}
	}
}

// compare puts the better of two nodes that may be taken first: what was written
// goes before every preference.
func compare(a, b *standing, e *Election) int {
	old := func(v *standing) int {
		if v.Node == e.Old {
			return 1 // it is being replaced
		}
		return 0
	}
	failed := func(v *standing) int {
		switch {
		case slices.Contains(e.Failed, v.Node):
			return 2
		case slices.Contains(e.Promoted, v.Node):
			return 0 // others may follow it already
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(b.Offset, a.Offset),
		cmp.Compare(failed(a), failed(b)),
		cmp.Compare(old(a), old(b)),
		cmp.Compare(a.Priority, b.Priority),
		cmp.Compare(len(a.strands), len(b.strands)),
		topology.CompareIDs(a.Node, b.Node))
}

func passedOver(v, best *standing) string {
	switch {
	case v.is == restarted:
		return "restarted, and another node is preferred"
	case v.Offset != best.Offset:
		return fmt.Sprintf("%d bytes behind %s", best.Offset-v.Offset, best.Node)
	case v.Priority != best.Priority:
		return fmt.Sprintf("%s has the better priority, %d", best.Node, best.Priority)
	case len(v.strands) > len(best.strands):
		return fmt.Sprintf("%s could not load a full copy of it", strings.Join(v.strands, ", "))
	}
	return "as good as " + best.Node + ", which is preferred"
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

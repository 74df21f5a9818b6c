package failover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// What an election came to, in words.

// explain says of every node why it is not taken, when nobody is.
func (x *election) explain() {
	if v := x.best(mayBeAskedFor); v != nil {
		x.Remedy, x.Free = v.Node, v.is == intact && v.member
	}
	for i := range x.list {
		v := &x.list[i]
		switch {
		case v.is == intact && !v.member:
			v.Refused = strings.TrimPrefix(v.Refused+"; "+x.outside(v), "; ")
		case v.is == restarted:
			v.Refused = "restarted " + v.with()
		case v.Refused == "":
			v.Refused = "others are waited for"
		}
	}
}

// with says what a node that restarted found on its disk.
func (v *standing) with() string {
	switch v.holds {
	case journal:
		return "with its append-only file"
	case placed:
		return fmt.Sprintf("with a snapshot from offset %d", v.Offset)
	case someData:
		return "with a snapshot of unknown age"
	}
	return "empty"
}

// lost is Outcome.Lost of a choice.
func (x *election) lost(v *standing) string {
	switch {
	case v.is == intact && v.member, x.hasEverything(v):
		return ""
	case v.is == restarted && v.holds == nothing:
		return "everything: it restarted empty"
	case v.Offset >= 0 && x.Offset >= 0:
		if v.Offset < x.Offset {
			return fmt.Sprintf("the last %d bytes that its master wrote", x.Offset-v.Offset)
		}
		return ""
	case v.is == restarted:
		return "what is newer than " + strings.TrimPrefix(v.with(), "with ")
	}
	return "what its master wrote since it was in sync" + x.behind(v)
}

// outside says that a node is not in sync.
func (x *election) outside(v *standing) string {
	text := "is not in sync" + x.behind(v)
	if v.lag != "" {
		text += " (" + v.lag + ")"
	}
	return text
}

// behind says how far a node that is not in sync is behind, in words that follow;
// "" when nothing is known.
func (x *election) behind(v *standing) string {
	var parts []string
	out := v.n.Out
	switch {
	case v.Offset >= 0 && x.Offset >= 0:
		parts = append(parts, fmt.Sprintf("%d bytes behind", max(0, x.Offset-v.Offset)))
	case out != nil && out.MasterOffset >= 0 && out.Offset >= 0:
		parts = append(parts, fmt.Sprintf("at least %d bytes behind", max(0, out.MasterOffset-out.Offset)))
	}
	if out != nil && x.Since.After(out.Since) {
		parts = append(parts, "out of sync for "+x.Since.Sub(out.Since).Round(time.Second).String())
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// Blocked says why nobody is taken and what can be done, as sentences.
func (o *Outcome) Blocked(c *topology.Cluster, s *topology.Shard) string {
	var others, who []string
	old := s.Master
	if s.Operation != nil {
		old = s.Operation.OldMaster
	}
	for _, v := range o.Candidates {
		switch {
		case slices.Contains(o.Waiting, v.Node):
			word := ""
			switch n := s.Node(v.Node); {
			case n.InSync && (n.ID == old || len(s.Members()) == 1):
				word = ", which has everything"
			case n.InSync:
				word = ", which was in sync"
			}
			who = append(who, v.Node+word+" ("+v.Refused+")")
		case v.Refused != "":
			others = append(others, v.Node+": "+v.Refused)
		}
	}
	text := "no node can be promoted"
	if len(who) > 0 {
		text = "waiting for " + strings.Join(who, " and ")
	}
	if len(others) > 0 {
		text += "; " + strings.Join(others, "; ")
	}
	switch {
	case o.Undecided != "" && o.Remedy != "":
		return text + fmt.Sprintf("; nobody knows which of the two has more: `basaltctl failover %s %s --to %s --accept-loss` promotes %s, "+
			"`basaltctl failover %s %s --to %s --accept-loss` promotes %s, and what the other one has is lost or kept as diverged data",
			c.Name, s.ID, o.Undecided, o.Undecided, c.Name, s.ID, o.Remedy, o.Remedy)
	case o.Remedy != "" && o.Free:
		return text + fmt.Sprintf("; start what is missing, or `basaltctl failover %s %s --to %s` promotes %s, which was in sync", c.Name, s.ID, o.Remedy, o.Remedy)
	case o.Remedy != "":
		return text + fmt.Sprintf("; start what is missing, or `basaltctl failover %s %s --to %s --accept-loss` promotes %s and loses what it lacks",
			c.Name, s.ID, o.Remedy, o.Remedy)
	}
	return text + "; start what is missing"
}

// stage tells apart what a blocked election waits for and what would end it.
func (o *Outcome) stage() string {
	return strings.Join(o.Waiting, " ") + "; " + o.Remedy + "; " + o.Undecided
}

// Reasons lists why nobody was chosen.
func Reasons(candidates []topology.Candidate) string {
	return cmp.Or(strings.TrimPrefix(refusals(candidates), "; "), "it has no nodes")
}

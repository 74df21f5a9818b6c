package failover

import (
	"fmt"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// NotServing is the code of a shard that serves nobody.
const NotServing = "ShardNotServing"

// frozenFor is how long a shard may be frozen before it counts as not serving: a
// switchover takes some milliseconds.
const frozenFor = time.Second

// shardNotServing: nobody answers requests for the shard's slots, whatever is being
// done about it. Why is that of the row which says what to do.
func shardNotServing(x *situation) []found {
	why, since := x.outage()
	if why == "" {
		return nil
	}
	return []found{{message: outageMessage(x.s, why), why: why, since: since}}
}

func outageMessage(s *topology.Shard, why string) string {
	return fmt.Sprintf("NOT SERVING: %s (slots %s): %s", s.ID, s.Slots, why)
}

// Failed adds what went wrong with the remedy.
func (p *Problem) Failed(how string) {
	p.Message += "; " + how
	p.Why += "; " + how
}

// NobodyAnswers is the problem of a shard none of whose nodes answers: it serves
// nobody whatever the record says, also one that is older than the servers.
func NobodyAnswers(c *topology.Cluster, s *topology.Shard, o *health.Observations, now time.Time) []Problem {
	if c.Phase != topology.Serving || len(s.Nodes) == 0 {
		return nil
	}
	var since time.Time
	for i := range s.Nodes {
		switch health.AssessNode(c, &s.Nodes[i], o, now).Verdict {
		case health.Dead, health.Hung:
			if heard := o.Nodes[s.Nodes[i].ID].Heard; heard.After(since) {
				since = heard
			}
		default:
			return nil
		}
	}
	why := "none of its nodes answers: start them"
	return []Problem{{Code: NotServing, Priority: slices.IndexFunc(Table, func(r Row) bool { return r.Code == NotServing }), Severity: topology.Critical, Shard: s.ID,
		Message: outageMessage(s, why), Why: why, Since: since}}
}

// outage says why a shard serves nobody and since when; "" while it serves. A master
// that anybody reaches serves.
func (x *situation) outage() (why string, since time.Time) {
	op := x.s.Operation
	switch {
	case x.c.Phase != topology.Serving:
		return "", since
	case x.master == nil && op == nil:
		return "it has no master", x.o.Started
	case x.master == nil:
		if blocked := failoverBlocked(x); len(blocked) > 0 {
			return blocked[0].message, op.StartedAt
		}
		return fmt.Sprintf("it has no master: %s, phase %s, since %s because of %s", op.Kind, op.Phase, clock(op.StartedAt), op.Cause), op.StartedAt
	case x.s.Frozen && op != nil && x.now.Sub(op.StartedAt) >= frozenFor:
		return fmt.Sprintf("it is frozen: %s, phase %s, since %s", op.Kind, op.Phase, clock(op.StartedAt)), op.StartedAt
	}
	switch x.about.Verdict {
	case health.Dead, health.Hung, health.Restarted:
	default:
		if x.operating() || !x.roleLost() {
			return "", since
		}
	}
	since = troubleSince(x.s, x.o)
	for _, match := range []func(*situation) []found{failoversExhausted, failoverBlocked, noReplicas(health.Dead), noReplicas(health.Hung), masterIsReplica} {
		if list := match(x); len(list) > 0 {
			return list[0].message, since
		}
	}
	return fmt.Sprintf("master %s is lost (%s); it is being replaced", x.master.ID, x.about.Detail), since
}

// clock is an instant for people.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

package health

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// Verdict is a judgement about a node.
type Verdict string

// Verdicts.
const (
	// Alive: it answers.
	Alive Verdict = "alive"
	// Slow: it has been silent for a noticeable time, not long enough for more.
	Slow Verdict = "slow"
	// Suspect: connections are refused; others are being asked.
	Suspect Verdict = "suspect"
	// Dead: connections are refused and nobody else reaches it.
	Dead Verdict = "dead"
	// Busy: it has answered nobody for policy.HungAfter and may be executing a command
	// that takes long.
	Busy Verdict = "busy"
	// Hung: it has answered nobody for policy.HungAfter, or policy.MaxBusy.
	Hung Verdict = "hung"
	// Unreachable: this Configserver cannot reach it, somebody else can.
	Unreachable Verdict = "unreachable"
	// Restarted: another incarnation than the admitted one answers.
	Restarted Verdict = "restarted"
)

// Assessment is a verdict and what it rests on.
type Assessment struct {
	Verdict  Verdict
	Detail   string
	Evidence []topology.Evidence
}

const (
	// slowAfter is the silence from which a node is called slow.
	slowAfter = time.Second
	// replyWithin is how long other vantage points get to answer when they are
	// asked about a refused master. One that does not answer is not counted.
	replyWithin = 500 * time.Millisecond
)

// AssessMaster judges a shard's committed master from all vantage points.
//
// A refused connection counts at once, but only this Configserver saw it. The
// replicas hold a connection to the master all the time; when the process dies
// their links go down with it. The proxies say at once when connections break.
// One witness who reaches the master outweighs any number who do not: then the
// network between the Configserver and the master is at fault, and replacing
// the master would make two of them.
func AssessMaster(c *topology.Cluster, s *topology.Shard, o *Observations, now time.Time) Assessment {
	m := s.MasterNode()
	if m == nil {
		return Assessment{Verdict: Alive}
	}
	a := AssessNode(c, m, o, now)
	if stranger := o.Stranger(c, s, m); a.Verdict == Restarted && stranger != "" {
		// The master is not there; that it is dead, only others can tell.
		a.Verdict, a.Detail = Dead, stranger
		a.Evidence[0].Sight, a.Evidence[0].Detail = topology.SightUnknown, stranger
	}
	// Another process in another place does not prove either that the master is gone.
	apart := a.Verdict == Restarted && m.Moved(o.Nodes[m.ID].Endpoint)
	switch {
	case a.Verdict == Dead || apart:
		since := o.Nodes[m.ID].RefusedSince
		if o.Nodes[m.ID].Refused == 0 {
			since = o.lastSeen(s)
		}
		return a.ask(c, s, m, o, now, func(r *Node) (seen, asked bool) {
			return r.Info.LinkUp && !silentFor(r.Info.LastIO, c.Policy.HungAfter), r.InfoAt.After(since)
		}, since)
	case a.Verdict == Hung:
		p := o.Nodes[m.ID].Probe
		since := p.Heard
		if since.Before(o.Started) {
			since = o.Started
		}
		a = a.ask(c, s, m, o, now, func(r *Node) (seen, asked bool) {
			return r.Info.LinkUp && !silentFor(r.Info.LastIO, c.Policy.HungAfter), now.Sub(r.InfoAt) < replyWithin
		}, since)
		if a.Verdict == Hung {
			a.excuse(c, s, m, o, now)
		}
	}
	return a
}

// lastSeen is when a shard's master itself was last known to answer here.
func (o *Observations) lastSeen(s *topology.Shard) time.Time {
	h := o.Histories[s.ID]
	return slices.MaxFunc([]time.Time{o.Started, h.Since, h.Seen}, time.Time.Compare)
}

// silentFor tells if a replica's last I/O, in whole seconds, is old enough to
// agree with a silence of d.
func silentFor(lastIO, d time.Duration) bool {
	return lastIO >= 0 && lastIO >= d-time.Second
}

// AssessNode judges a node by what this Configserver alone sees.
func AssessNode(c *topology.Cluster, n *topology.Node, o *Observations, now time.Time) Assessment {
	node := o.Nodes[n.ID]
	p := &node.Probe
	silence := o.Silence(p, now)
	mine := topology.Evidence{VantagePoint: "configserver " + o.ID, Sight: p.Sight, Detail: p.Detail}
	a := Assessment{Verdict: Alive, Detail: p.Detail}
	switch {
	case p.Refused >= c.Policy.RefusedProbes:
		a.Verdict = Dead
		mine.Sight = topology.SightRefused
		mine.Detail = fmt.Sprintf("%s, %d times in a row within %v", p.Detail, p.Refused, now.Sub(p.RefusedSince).Round(time.Millisecond))
	case silence >= c.Policy.HungAfter:
		a.Verdict = Hung
		mine.Sight = topology.SightTimeout
		mine.Detail = fmt.Sprintf("no answer for %v", silence.Round(time.Millisecond))
	case p.Refused > 0:
		a.Verdict = Suspect
	case n.Incarnation != "" && p.Info.RunID != "" && p.Info.RunID != n.Incarnation:
		a.Verdict = Restarted
		mine.Detail = fmt.Sprintf("incarnation %.8s answers instead of %.8s", p.Info.RunID, n.Incarnation)
	case silence >= slowAfter:
		a.Verdict = Slow
		mine.Detail = fmt.Sprintf("no answer for %v", silence.Round(time.Millisecond))
	}
	a.Evidence = []topology.Evidence{mine}
	if a.Verdict != Alive {
		a.Detail = mine.Detail
	}
	return a
}

// ask hears the replicas and the proxies about a master that this Configserver
// takes for dead or hung since an instant. about tells of a replica whether it
// sees the master, and whether its answer is fresh enough to count.
func (a Assessment) ask(c *topology.Cluster, s *topology.Shard, m *topology.Node, o *Observations, now time.Time,
	about func(r *Node) (seen, asked bool), since time.Time,
) Assessment {
	contradicted, pending := false, false
	lately := now.Add(-max(c.Policy.HungAfter, proxyWord))
	for i := range s.Nodes {
		n := &s.Nodes[i]
		r, known := o.Nodes[n.ID]
		if n.ID == m.ID || !known || n.Incarnation == "" || r.Info.RunID != n.Incarnation || r.Info.Master || r.Info.MasterAddress != m.Endpoint() {
			continue
		}
		who := topology.Evidence{VantagePoint: "replica " + n.ID, Sight: topology.SightUnknown}
		seen, asked := about(&r)
		switch {
		case r.Sight != topology.SightOK:
			who.Detail = "cannot be asked: " + r.Detail
		case !asked && now.Sub(since) < replyWithin:
			pending = true
			who.Detail = "has not answered yet"
		case !asked:
			who.Detail = "has not answered in time"
		case seen:
			contradicted = true
			who.Sight, who.Detail = topology.SightOK, fmt.Sprintf("link up, last heard %v ago", r.Info.LastIO)
		case r.Info.LinkUp:
			who.Sight, who.Detail = topology.SightTimeout, fmt.Sprintf("link up, nothing heard for %v", r.Info.LastIO)
		default:
			who.Sight, who.Detail = topology.SightRefused, "link down"
		}
		a.Evidence = append(a.Evidence, who)
	}
	proxies := o.Nodes[m.ID].Proxies
	ids := slices.Sorted(maps.Keys(proxies))
	said := make(map[string]topology.Evidence, len(ids))
	for _, id := range ids {
		p := proxies[id]
		who := topology.Evidence{Sight: p.Sight, Detail: p.Detail}
		if p.Sight == topology.SightOK {
			// A proxy that has nothing to say keeps silent, so an old "ok" is no
			// evidence; a reply that arrived since then is, for as long as the next
			// one may take. A server that hangs right after a reply to a proxy that
			// then has nothing to ask would count as alive for ever.
			if p.ReplyAt.After(since.Add(clockSlack)) && p.ReplyAt.After(lately) {
				contradicted = true
				who.Detail = cmp.Or(who.Detail, "replies arrive")
			} else {
				who.Sight, who.Detail = topology.SightUnknown, "nothing reported since"
			}
		}
		said[id] = who
	}
	a.Evidence = append(a.Evidence, testimony(ids, said)...)
	switch {
	case contradicted:
		a.Verdict = Unreachable
	case pending:
		a.Verdict = Suspect
	}
	return a
}

// proxyWord is how long a proxy that gets replies may be silent: it says so
// every second.
const proxyWord = 2 * time.Second

// clockSlack allows for the way of a report: a proxy's "since" is counted back
// from its arrival here, so a reply from before the end may look newer by that
// much.
const clockSlack = 50 * time.Millisecond

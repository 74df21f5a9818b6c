package health

import (
	"fmt"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// Busy or hung.
//
// Goal: a server that executes one long command answers nobody, as one that hangs
// does. The first is to be waited for, the second to be replaced soon.
//
// From outside the two differ in one thing only: in what the server was given before
// it fell silent. So a silent master is busy, and has policy.MaxBusy instead of
// policy.HungAfter, when all of this is so:
//
//  1. A proxy sent it a command that may take long (package command of the proxy) and
//     has no reply. The claim is newer than the last sign of life: what was answered
//     explains nothing.
//  2. The command was sent before the silence began, that is, no later than the oldest
//     probe that is unanswered, or the last sign of life. A server that could have
//     answered that probe, and did not, was not waiting for a command that came later.
//  3. The kernel of its host answers keep-alives: a host that is gone executes nothing.
//  4. No replica lost its link when the silence began: a server that is busy closes none.
//
// Scripts need none of it: while one runs, the server answers BUSY. What a proxy
// claims can delay a failover to MaxBusy and no further, for the silence is counted by
// the Configserver. Without a proxy that claims anything, HungAfter is the bound.
//
// What is not seen: a key with very many elements that expires, is evicted or is
// overwritten is freed behind no command that says so, a fork takes long with very much
// memory. Where either takes longer than HungAfter, raise that.

const (
	// sentSlack is by how much a command may seem to have been sent too late: for the
	// way of the report, and for a server that was about to read both.
	sentSlack = 250 * time.Millisecond
	// hostWithin is how long ago a host must have answered; it is asked every second.
	hostWithin = 2500 * time.Millisecond
	// longestCommand is how many bytes of a command's name are told; proxies send it.
	longestCommand = 40
)

// excuse makes a hung master a busy one when its silence is explained, and says in
// the evidence what speaks for which.
func (a *Assessment) excuse(c *topology.Cluster, s *topology.Shard, m *topology.Node, o *Observations, now time.Time) {
	node := o.Nodes[m.ID]
	mine := &a.Evidence[0]
	host := o.elapsed(node.HostAt, now) <= hostWithin
	if host {
		mine.Detail += ", its host answers"
	} else {
		mine.Detail += ", its host is silent, too"
	}
	proxy, claim := node.behind()
	if proxy == "" {
		a.Detail = mine.Detail + "; nothing that takes long was sent to it before"
		return
	}
	a.Evidence = append(a.Evidence, topology.Evidence{VantagePoint: "proxy " + proxy, Sight: topology.SightTimeout,
		Detail: fmt.Sprintf("waits for %s, sent %v ago", claim.name(), now.Sub(claim.Sent).Round(100*time.Millisecond))})
	limit := max(c.Policy.MaxBusy, c.Policy.HungAfter)
	a.Detail = mine.Detail + "; proxy " + proxy + " waits for " + claim.name()
	switch broken := o.brokenLink(c, s, m, node.fellSilent(o)); {
	case !host:
	case broken != "":
		a.Detail += ", but " + broken + " lost its link when the silence began"
	case o.Silence(&node.Probe, now) >= limit:
		a.Detail += fmt.Sprintf(", for longer than max_busy, %v", limit)
	default:
		a.Verdict = Busy
	}
}

// name of the command as people write it, cut to a bound.
func (b *Behind) name() string { return strings.ToUpper(cutTo(b.Command, longestCommand)) }

// fellSilent is when a node last gave a sign of life to this Configserver or a proxy.
func (n *Node) fellSilent(o *Observations) time.Time {
	last := later(n.Heard, o.Started)
	for _, p := range n.Proxies {
		last = later(last, p.ReplyAt)
	}
	return last
}

// behind is the command that explains a silence, of several the one that was sent
// first, and the proxy that waits for it; "" when there is none.
func (n *Node) behind() (proxy string, claim Behind) {
	alive := n.Heard
	for _, p := range n.Proxies {
		alive = later(alive, p.ReplyAt)
	}
	began := later(alive, n.Asked).Add(sentSlack)
	for id, b := range n.Behind {
		if b.Command == "" || !b.At.After(alive) || b.Sent.After(began) {
			continue
		}
		if proxy == "" || b.Sent.Before(claim.Sent) || b.Sent.Equal(claim.Sent) && id < proxy {
			proxy, claim = id, b
		}
	}
	return proxy, claim
}

// brokenLink is a replica whose link to its master broke within policy.HungAfter of an
// instant; later a replica gives up a silent master by itself. "" when there is none.
func (o *Observations) brokenLink(c *topology.Cluster, s *topology.Shard, m *topology.Node, since time.Time) string {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		r := o.Nodes[n.ID]
		if n.ID == m.ID || n.Incarnation == "" || r.Info.RunID != n.Incarnation || r.Info.MasterAddress != m.Endpoint() || r.Info.LinkUp || r.Info.LinkDownFor < 0 {
			continue
		}
		// It is told in whole seconds.
		if broke := r.InfoAt.Add(-r.Info.LinkDownFor); broke.After(since.Add(-time.Second)) && broke.Before(since.Add(c.Policy.HungAfter)) {
			return n.ID
		}
	}
	return ""
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Package health observes servers and judges what is seen.
//
// A Prober asks one server over one connection of its own, so that no control
// command waits behind a probe or the other way round. What all vantage points
// saw comes together in Observations, a value; judging it (AssessMaster,
// AssessNode, Candidates) is pure and reads no clock.
package health

import (
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Probe is one node as this Configserver sees it.
type Probe struct {
	// Sight is what the last probe met; Detail says it for people.
	Sight  topology.Sight
	Detail string
	// Heard is when the node last said anything at all; an error is an answer.
	Heard time.Time
	// Asked is when the oldest question was asked that is still unanswered;
	// zero when none is.
	Asked time.Time
	// Refused counts refused and reset connections in a row; RefusedSince is
	// when the first of them happened.
	Refused      int
	RefusedSince time.Time

	// Info is the newest that the node said of itself, InfoAt when it was asked
	// for. An Info from before RefusedSince is of the past.
	Info   redisadmin.Info
	InfoAt time.Time
	// Busy is the error the node answers instead of working: "BUSY", "LOADING",
	// "MASTERDOWN"; empty when it works.
	Busy string
	// Users are the ACL users; UsersAt is when they were asked for.
	Users   []string
	UsersAt time.Time
	// DefaultUser is what connections are that do not log in.
	DefaultUser redisadmin.DefaultUser
}

// ProxySight is one node as one proxy sees it.
type ProxySight struct {
	Sight topology.Sight
	// At is when the report arrived, ReplyAt when a reply last reached the proxy.
	At      time.Time
	ReplyAt time.Time
	Detail  string
}

// Node is one node as everybody sees it.
type Node struct {
	Probe
	// Proxies by proxy id; only of proxies whose stream is open.
	Proxies map[string]ProxySight
}

// History is what was last seen of the stream of writes of a shard's committed
// master, while it was alive.
type History struct {
	ReplID string
	// Offset in bytes (master_repl_offset).
	Offset int64
	// Seen is when.
	Seen time.Time
}

// Interval is a stretch of time.
type Interval struct{ From, To time.Time }

// Observations are everything that is known at one instant.
type Observations struct {
	// ID names this Configserver.
	ID string
	// Started is when this Configserver began to look at the cluster.
	Started time.Time
	// Since is when the newest record of the cluster was known here. Both are by
	// this machine's clock, like every time in here.
	Since time.Time
	// Nodes by node id.
	Nodes map[string]Node
	// Histories by shard id.
	Histories map[string]History
	// Leaving are seats of proxies in versions of before whose users may stay at the
	// nodes for the moment.
	Leaving []credentials.Seat
	// Held are the numbers of the seats that proxies have, never nil.
	Held []int
	// Pauses are times in which this Configserver itself did not run; silence
	// during them says nothing about a node. In order, without overlap.
	Pauses []Interval
}

// Silence is for how long, until now, a node could have answered and did not.
func (o *Observations) Silence(p *Probe, now time.Time) time.Duration {
	from := p.Heard
	if from.Before(o.Started) {
		from = o.Started
	}
	silence := now.Sub(from)
	for _, pause := range o.Pauses {
		begin, end := pause.From, pause.To
		if begin.Before(from) {
			begin = from
		}
		if end.After(now) {
			end = now
		}
		if d := end.Sub(begin); d > 0 {
			silence -= d
		}
	}
	return max(0, silence)
}

// Live tells if a node answered a probe in the recent past and works.
func (o *Observations) Live(node string, now time.Time) bool {
	n, ok := o.Nodes[node]
	return ok && n.Sight == topology.SightOK && n.Info.RunID != "" && o.Silence(&n.Probe, now) < liveFor
}

// Admitted tells if a node is live and the incarnation that was admitted.
func (o *Observations) Admitted(n *topology.Node, now time.Time) bool {
	return n.Incarnation != "" && o.Live(n.ID, now) && o.Nodes[n.ID].Info.RunID == n.Incarnation
}

// InSync tells if a replica follows the shard's admitted master with its link
// up, and how many bytes it is behind; -1 when that is not known.
func (o *Observations) InSync(s *topology.Shard, n *topology.Node, now time.Time) (bool, int64) {
	m := s.MasterNode()
	if m == nil || n.ID == m.ID || !o.Admitted(n, now) {
		return false, -1
	}
	r := o.Nodes[n.ID].Info
	if r.Master || !r.LinkUp || r.Syncing || r.MasterAddress != m.Address {
		return false, -1
	}
	h := o.Histories[s.ID]
	if h.ReplID == "" || h.ReplID != r.ReplID {
		return false, -1
	}
	return true, max(0, h.Offset-r.Offset)
}

// liveFor is how long a node counts as live after its last answer.
const liveFor = 2 * time.Second

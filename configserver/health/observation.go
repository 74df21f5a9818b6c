// Package health observes servers and judges what is seen.
//
// A Prober asks one server over one connection of its own, so that no control
// command waits behind a probe or the other way round. What all vantage points
// saw comes together in Observations, a value; judging it (AssessMaster,
// AssessNode, Candidates) is pure and reads no clock.
package health

import (
	"slices"
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
	// Endpoint is the "ip:port" of the newest connection: who says Info answers there.
	Endpoint string
	// Astray is what the node's host name means now, when that is another place and the
	// admitted process answers where it was; "" otherwise.
	Astray string
	// Heard is when the node last said anything at all; an error is an answer.
	Heard time.Time
	// Asked is when the oldest question was asked that is still unanswered;
	// zero when none is.
	Asked time.Time
	// HostAt is when the kernel of the node's host last answered on the connection; kept
	// up to date while a question stays unanswered. That of a process that is busy, or
	// stopped, goes on answering.
	HostAt time.Time
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
	// NotOnFile: the node refuses every admin password on file, whatever connection to it
	// is still open.
	NotOnFile bool
}

// Like tells if a probe found nothing else than the one before it: the node works and
// says the same, but for offsets and times.
func (p *Probe) Like(before *Probe) bool {
	return p.Sight == topology.SightOK && before.Sight == topology.SightOK && p.Busy == "" && before.Busy == "" && p.Detail == before.Detail &&
		p.Endpoint == before.Endpoint && p.Astray == before.Astray && p.NotOnFile == before.NotOnFile && p.UsersAt.IsZero() == before.UsersAt.IsZero() &&
		p.DefaultUser == before.DefaultUser && slices.Equal(p.Users, before.Users) && p.Info.Like(before.Info)
}

// ProxySight is one node as one proxy sees it.
type ProxySight struct {
	Sight topology.Sight
	// At is when the report arrived, ReplyAt when a reply last reached the proxy.
	At      time.Time
	ReplyAt time.Time
	Detail  string
}

// Behind is a command that may take long, which a proxy sent and which was unanswered.
type Behind struct {
	// Command is its name.
	Command string
	// Sent is when the proxy sent it, At when it last told of it.
	Sent, At time.Time
}

// Node is one node as everybody sees it.
type Node struct {
	Probe
	// Proxies by proxy id; only of proxies whose stream is open.
	Proxies map[string]ProxySight
	// Behind is by proxy id what they wait for; also of proxies whose stream is not
	// open any more, for what they sent may be executed all the same.
	Behind map[string]Behind
}

// History is what was seen of the stream of writes of a shard's committed master,
// while it was alive.
type History struct {
	ReplID string
	// Offset in bytes (master_repl_offset).
	Offset int64
	// Seen is when.
	Seen time.Time
	// Since is when the master was known here first.
	Since time.Time
	// Past are earlier offsets, oldest first, the older ones further apart: a replica
	// that stands at one of them has everything that was written until then.
	Past []Point
}

// Point is an offset of a stream, and when the master stood there.
type Point struct {
	Offset int64
	Seen   time.Time
}

// maxPast is how many points are kept.
const maxPast = 64

// Interval is a stretch of time.
type Interval struct{ From, To time.Time }

// Observations are everything that is known at one instant.
type Observations struct {
	// ID names this Configserver.
	ID string
	// Started is when this Configserver began to look at the cluster.
	Started time.Time
	// Since is, by shard id, when the newest record that changed the shard, the phase
	// or the policy was known here (Recorded). Both are by this machine's clock, like
	// every time in here.
	Since map[string]time.Time
	// Nodes by node id.
	Nodes map[string]Node
	// Histories by shard id.
	Histories map[string]History
	// CaughtUp is by node id the newest instant of which a replica is known to have
	// everything that its master had written by then, as both were seen from here.
	CaughtUp map[string]time.Time
	// Behind is by node id since when a replica has been more than
	// policy.MaxReplicaLag behind, without a break.
	Behind map[string]time.Time
	// Unlinked is by node id since when a replica, by its own word, has had no link to
	// its master, or has been making a full copy.
	Unlinked map[string]time.Time
	// Leaving are seats of proxies in versions of before whose users may stay at the
	// nodes for the moment.
	Leaving []credentials.Seat
	// Held are the numbers of the seats that proxies have, never nil.
	Held []int
	// Pauses are times in which this Configserver itself did not run; silence
	// during them says nothing about a node. In order, without overlap.
	Pauses []Interval
}

// Take moves what a probe of a node saw into what is known. What proxies see is
// left to the caller.
func (o *Observations) Take(c *topology.Cluster, s *topology.Shard, n *topology.Node, p Probe) {
	known := o.Nodes[n.ID]
	o.Nodes[n.ID] = Node{Probe: p, Proxies: known.Proxies, Behind: known.Behind}
	if p.Sight != topology.SightOK {
		return // what is known of the past stays
	}
	if p.Info.RunID != n.Incarnation {
		o.forget(n.ID)
		return
	}
	h := o.Histories[s.ID]
	if s.Master == n.ID {
		if p.Info.Master && p.InfoAt.After(h.Seen) {
			o.Histories[s.ID] = h.moved(&p)
		}
		return
	}
	m := s.MasterNode()
	if m == nil {
		return // while there is none, nobody has a link
	}
	if p.Info.Master || !p.Info.LinkUp || p.Info.Syncing || p.Info.MasterAddress != m.Endpoint() && p.Info.ReplID != h.ReplID {
		if o.Unlinked[n.ID].IsZero() {
			o.Unlinked[n.ID] = p.InfoAt
		}
		delete(o.Behind, n.ID)
		return
	}
	delete(o.Unlinked, n.ID)
	if h.ReplID == "" || p.Info.ReplID != h.ReplID {
		return
	}
	if at := h.had(p.Info.Offset); at.After(o.CaughtUp[n.ID]) {
		o.CaughtUp[n.ID] = at
	}
	if h.Offset-p.Info.Offset <= c.Policy.MaxReplicaLag {
		delete(o.Behind, n.ID)
	} else if o.Behind[n.ID].IsZero() {
		o.Behind[n.ID] = p.InfoAt
	}
}

// LinkGrace is how long the links of replicas may take to come up when their shard has
// a new master.
const LinkGrace = 2 * time.Second

// Apart says how a replica was seen to be cut off from its master while that was seen
// to be well after it; "" when it was not. A master that dies breaks all links, and
// is not seen after that.
func (o *Observations) Apart(c *topology.Cluster, s *topology.Shard, n *topology.Node) string {
	h := o.Histories[s.ID]
	p := o.Nodes[n.ID].Probe
	if h.Seen.Sub(h.Since) <= LinkGrace {
		return ""
	}
	if p.Refused >= c.Policy.RefusedProbes && h.Seen.After(p.RefusedSince) {
		return "it refuses connections"
	}
	if at, is := o.Unlinked[n.ID]; is && h.Seen.After(at) {
		switch {
		case p.Info.Master:
			return "it is no replica"
		case p.Info.Syncing:
			return "it makes a full copy"
		}
		return "its link to the master is down"
	}
	return ""
}

// forget forgets what is known of a process that is not the admitted one any more.
func (o *Observations) forget(node string) {
	delete(o.CaughtUp, node)
	delete(o.Behind, node)
	delete(o.Unlinked, node)
}

// Stale makes what a node said count as of the time before the newest record.
func (o *Observations) Stale(node string) {
	if n, known := o.Nodes[node]; known {
		n.InfoAt, n.UsersAt = time.Time{}, time.Time{}
		o.Nodes[node] = n
	}
}

// Forget forgets a node that left.
func (o *Observations) Forget(node string) {
	o.forget(node)
	delete(o.Nodes, node)
}

// moved adds what a probe of the master said.
func (h History) moved(p *Probe) History {
	next := History{ReplID: p.Info.ReplID, Offset: p.Info.Offset, Seen: p.InfoAt, Since: h.Since}
	if h.ReplID != next.ReplID {
		return next // offsets of another stream say nothing
	}
	next.Past = append(make([]Point, 0, maxPast+1), h.Past...)
	next.Past = append(next.Past, Point{h.Offset, h.Seen})
	if len(next.Past) > maxPast {
		thin := next.Past[:0]
		for i, point := range next.Past {
			if i%2 == 0 || i > maxPast/2 {
				thin = append(thin, point)
			}
		}
		next.Past = thin
	}
	return next
}

// Before is when the master was seen well for the last time but one.
func (h *History) Before() time.Time {
	if len(h.Past) == 0 {
		return time.Time{}
	}
	return h.Past[len(h.Past)-1].Seen
}

// had is the newest instant at which the master stood at an offset or before it;
// the zero time when none is known.
func (h *History) had(offset int64) time.Time {
	if offset >= h.Offset {
		return h.Seen
	}
	for i := len(h.Past) - 1; i >= 0; i-- {
		if offset >= h.Past[i].Offset {
			return h.Past[i].Seen
		}
	}
	return time.Time{}
}

// NewMaster forgets what was known of the stream of a shard, whose new master
// writes one of its own.
func (o *Observations) NewMaster(s *topology.Shard, now time.Time) {
	o.Histories[s.ID] = History{Since: now}
	for i := range s.Nodes {
		o.forget(s.Nodes[i].ID)
	}
}

// Silence is for how long, until now, a node could have answered and did not.
func (o *Observations) Silence(p *Probe, now time.Time) time.Duration {
	from := p.Heard
	if from.Before(o.Started) {
		from = o.Started
	}
	return o.elapsed(from, now)
}

// elapsed is how much of the time since an instant this Configserver ran.
func (o *Observations) elapsed(from, now time.Time) time.Duration {
	elapsed := now.Sub(from)
	for _, pause := range o.Pauses {
		begin, end := pause.From, pause.To
		if begin.Before(from) {
			begin = from
		}
		if end.After(now) {
			end = now
		}
		if d := end.Sub(begin); d > 0 {
			elapsed -= d
		}
	}
	return max(0, elapsed)
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
	if r.Master || !r.LinkUp || r.Syncing || r.MasterAddress != m.Endpoint() {
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

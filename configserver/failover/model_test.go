package failover

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// A model of the in-sync rule. Servers take, replicate, lag, hang, lose links, die and
// restart with what their disks hold, in any order; Configservers die, and nobody
// watches for a while. The decisions are the real ones (Tend, Detect, Elect, succeed,
// divergence); only servers and time are made up.
type model struct {
	*world
	t     *rapid.T
	disks map[string]*disk
	next  int
	// acked is when a write was, watched since when one Configserver watches without a
	// break, well when the master was well last.
	acked         map[int]time.Time
	watched, well time.Time
	// gone are writes that a new master did not have; that they were not kept by a
	// later one, too, is no fault of its election.
	gone map[int]bool
	// told are the nodes and writes of which it was told that only they have them.
	told map[string]bool
	// unwatched: no Configserver runs.
	unwatched bool
	log       []string
}

// disk is what a server keeps over a restart.
type disk struct {
	kind string // "journal", "snapshot", "old snapshot" (does not say its offset) or "none"
	// Of the last snapshot.
	saved   []int
	history string
	offset  int64
}

func newModel(t *rapid.T) *model {
	nodes := rapid.IntRange(1, 3).Draw(t, "nodes")
	m := &model{world: newWorld(nodes), t: t, disks: map[string]*disk{}, gone: map[int]bool{}, told: map[string]bool{},
		acked: map[int]time.Time{}}
	m.copying, m.pace, m.stagger = 100*time.Millisecond, 50*time.Millisecond, true
	m.watched, m.well = m.now, m.now
	m.c.Policy.MaxFailovers = 1000
	m.c.Policy.Prefer = topology.PreferData
	for _, n := range m.shard().Nodes {
		kind := rapid.SampledFrom([]string{"journal", "snapshot", "old snapshot", "none"}).Draw(t, "disk of "+n.ID)
		m.disks[n.ID] = &disk{kind: kind}
		m.servers[n.ID].appendOnly = kind == "journal"
	}
	return m
}

func (m *model) say(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%v ", m.now.Sub(epoch0))+fmt.Sprintf(format, args...))
}

// node draws a node of which ok holds; the action is left out when there is none.
func (m *model) node(ok func(s *server) bool) *server {
	var ids []string
	for _, n := range m.shard().Nodes {
		if ok(m.servers[n.ID]) {
			ids = append(ids, n.ID)
		}
	}
	if len(ids) == 0 {
		m.t.Skip("nobody")
	}
	return m.servers[rapid.SampledFrom(ids).Draw(m.t, "node")]
}

// write lets the master take a write and acknowledge it, as proxies would that obey
// the record.
func (m *model) write() {
	if m.shard().Master == "" || m.shard().Operation != nil {
		m.t.Skip("held")
	}
	n := *m.shard().MasterNode()
	s := m.servers[n.ID]
	if !s.up || s.hung || !s.master || s.runID != n.Incarnation {
		m.t.Skip("no answer")
	}
	m.next++
	m.acked[m.next] = m.now
	s.data = append(slices.Clone(s.data), m.next)
	s.offset += 100
	s.keys = int64(len(s.data))
}

// pass lets time pass, and the Configserver act, as long as there is one.
func (m *model) pass(d time.Duration) {
	for end := m.now.Add(d); m.now.Before(end); {
		if m.unwatched {
			m.now = m.now.Add(m.pace)
			m.replicate()
			continue
		}
		m.tick(m.pace)
		m.act()
		m.note()
	}
}

// note remembers when the master was well.
func (m *model) note() {
	n := m.shard().MasterNode()
	if n == nil {
		return
	}
	if s := m.servers[n.ID]; s.up && !s.hung && s.master && s.runID == n.Incarnation {
		m.well = m.now
	}
}

// act does what is due.
func (m *model) act() {
	if m.shard().Operation != nil {
		m.elect()
		return
	}
	for _, p := range m.detect() {
		switch p.Remedy {
		case Replace:
			if _, err := m.commit(Begin("s", fmt.Sprint(m.c.Epoch), p.Code, nil, RowOf(p.Code).Counts, p.Evidence, &m.o, m.now)); err != nil {
				m.t.Fatalf("begin: %v", err)
			}
			m.say("failover: %s", p.Message)
			m.elect()
			return
		case Admit, Regrant:
			m.reconcile(p)
		}
	}
}

func (m *model) reconcile(p Problem) {
	s := m.shard()
	n, live := s.Node(p.Node), m.servers[p.Node]
	master := m.servers[s.Master]
	if !live.up || live.hung || !master.up || master.hung || master.runID != s.MasterNode().Incarnation {
		return
	}
	info := live.info(m.world)
	if health.Stranger(&m.c, s, n, &info, live.users) != "" {
		m.t.Fatalf("%s is about to be changed: %s", p.Node, health.Stranger(&m.c, s, n, &info, live.users))
	}
	before := m.c.Clone()
	if p.Remedy == Admit {
		m.mustTell(s, n, live, &info)
		admit(n, &info, "", m.now)
		n.History, n.InReadSet = s.History().ReplID, false
		live.master, live.linkUp, live.follows = false, false, m.address(s.Master)
		m.say("admits %s", p.Node)
	}
	live.users = append(m.users(), m.mark(p.Node))
	m.c.Epoch++
	m.c.CommittedAt = m.now
	m.o.Recorded(&before, &m.c, m.now)
}

// mustTell checks that a node that is about to lose writes is found to have diverged.
func (m *model) mustTell(s *topology.Shard, n *topology.Node, live *server, info *redisadmin.Info) {
	_, diverged := divergence(s, n, info)
	for _, write := range live.data {
		told := fmt.Sprint(n.ID, " ", write)
		if !diverged && !m.told[told] && !slices.Contains(m.servers[s.Master].data, write) {
			m.fail("%s has write %d alone and loses it without a word: %+v", n.ID, write, info)
		}
		m.told[told] = m.told[told] || diverged
	}
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	for _, line := range m.log {
		m.t.Log(line)
	}
	m.t.Fatalf(format, args...)
}

// elect is the executor's: it asks now, waits, and checks the choice.
func (m *model) elect() {
	s := m.shard()
	e := ElectionOf(s.Operation)
	e.Begun, e.Since = s.Operation.StartedAt, troubleSince(s, &m.o)
	o := m.look()
	outcome := Elect(&m.c, s, e, &o, m.now)
	chosen := outcome.Chosen()
	if chosen == "" {
		return
	}
	m.check(&outcome, chosen)
	m.say("promotes %s (lost: %s); members %v", chosen, outcome.Lost, s.Members())
	if err := m.succeed(chosen); err != nil {
		m.fail("promote %s: %v", chosen, err)
	}
	for write := range m.next {
		m.gone[write+1] = m.gone[write+1] || !slices.Contains(m.servers[chosen].data, write+1)
	}
}

// look asks every node at this moment, as Executor.Look does.
func (m *model) look() health.Observations {
	o := m.o
	o.Nodes = maps.Clone(o.Nodes)
	for _, n := range m.shard().Nodes {
		s, seen := m.servers[n.ID], o.Nodes[n.ID]
		switch {
		case !s.up:
			seen.Sight, seen.Detail = topology.SightRefused, "connection refused"
		case s.hung:
			seen.Sight, seen.Detail = topology.SightTimeout, "no answer in time"
		default:
			seen.Sight, seen.Detail, seen.Heard, seen.Refused = topology.SightOK, "ok", m.now, 0
			seen.Info, seen.InfoAt, seen.Users, seen.UsersAt = s.info(m.world), m.now, slices.Clone(s.users), m.now
		}
		o.Nodes[n.ID] = seen
	}
	return o
}

// check is the property.
func (m *model) check(outcome *Outcome, chosen string) {
	s := m.shard()
	c := m.servers[chosen]
	answers := func(x *server) bool { return x.up && !x.hung && !m.cut[x.id] }
	allBack, missing := true, ""
	for _, n := range s.Nodes {
		if x := m.servers[n.ID]; !answers(x) && n.Incarnation != "" {
			allBack, missing = false, n.ID
		}
	}
	m.checkMember(outcome, c)
	everything := outcome.Restarted && s.Node(chosen).InSync && outcome.Lost == ""
	more := false // than a member that answers, on the same history
	for _, n := range s.Nodes {
		x := m.servers[n.ID]
		more = more || n.InSync && answers(x) && x.runID == n.Incarnation && x.history == c.history && x.offset <= c.offset
	}
	if !s.Node(chosen).InSync && !allBack && !more {
		m.fail("%s is promoted, which is not in sync, while %s is away", chosen, missing)
	}
	if outcome.Restarted && !everything && !allBack {
		m.fail("%s is promoted, which restarted without everything, while %s is away", chosen, missing)
	}
	for _, n := range s.Nodes {
		x := m.servers[n.ID]
		if !answers(x) || x.runID != n.Incarnation || x.syncing {
			continue // what a restarted node has is compared by what it says only
		}
		if !n.InSync && !outcome.Restarted && x.history != c.history {
			continue
		}
		for _, write := range x.data {
			if !slices.Contains(c.data, write) && !m.gone[write] {
				m.fail("%s is promoted without write %d, which %s has, which answers; members %v: %+v", chosen, write, n.ID, s.Members(), outcome.Candidates)
			}
		}
	}
}

// checkMember is the property of a member that is promoted: it lacks nothing that is
// older than the rule allows, and nothing that a member has which only needs a moment.
func (m *model) checkMember(outcome *Outcome, c *server) {
	s := m.shard()
	if outcome.Restarted || !s.Node(c.id).InSync || outcome.Lost != "" {
		return
	}
	const slack = time.Second
	for write, at := range m.acked {
		old := at.After(m.watched) && m.well.Sub(at) > m.c.Policy.MaxReplicaAge+slack
		if old && !m.gone[write] && !slices.Contains(c.data, write) {
			m.fail("%s is promoted without write %d of %v, though the master was well until %v; members %v",
				c.id, write, at.Sub(epoch0), m.well.Sub(epoch0), s.Members())
		}
	}
	if m.now.Sub(s.Operation.StartedAt) >= m.c.Policy.ElectionWait {
		return
	}
	for _, n := range s.Nodes {
		x := m.servers[n.ID]
		if !n.InSync || !x.up || !x.hung || x.runID != n.Incarnation || n.ID == s.Operation.OldMaster {
			continue
		}
		for _, write := range x.data {
			if !m.gone[write] && !slices.Contains(c.data, write) {
				m.fail("%s is promoted without write %d, which %s has, which is in sync and silent for a moment", c.id, write, n.ID)
			}
		}
	}
}

// bestHangs lets one replica alone get a write, and hang for a moment while its
// master dies.
func (m *model) bestHangs() {
	best := m.node(func(s *server) bool { return s.up && !s.hung && !s.master && s.linkUp && !s.slow })
	for _, s := range m.servers {
		s.slow = s != best && !s.master
	}
	m.say("%s alone follows closely, and hangs when its master dies", best.id)
	m.write()
	m.pass(m.pace)
	best.hung = true
	m.kill(m.shard().Master)
	m.pass(time.Second)
	best.hung = false
	for _, s := range m.servers {
		s.slow = false
	}
}

// mustFailOver kills a master that has a replica which is well and in sync.
func (m *model) mustFailOver() {
	s := m.shard()
	if m.unwatched || s.Master == "" || s.Operation != nil {
		m.t.Skip("not now")
	}
	n := *s.MasterNode()
	x := m.servers[n.ID]
	able := slices.ContainsFunc(s.Nodes, func(r topology.Node) bool {
		y := m.servers[r.ID]
		return r.ID != n.ID && r.InSync && y.up && !y.hung && !y.slow && !y.apart && y.linkUp && y.runID == r.Incarnation && len(y.data) == len(x.data)
	})
	if !able || !x.up || x.hung || x.apart || x.runID != n.Incarnation {
		m.t.Skip("nobody to take its place")
	}
	m.say("kill %s, which has a replica that is well", n.ID)
	m.kill(n.ID)
	m.pass(m.c.Policy.ElectionWait + 2*time.Second)
	if s := m.shard(); s.Master == "" || s.Master == n.ID {
		m.fail("nobody replaced %s: %+v, problems %v", n.ID, s, m.codes())
	}
}

func (m *model) kill(id string) {
	m.world.kill(id)
	m.servers[id].hung, m.servers[id].syncing = false, false
}

// start starts a dead server with what its disk holds.
func (m *model) start(id string) {
	d, old := m.disks[id], m.servers[id]
	s := m.restart(id, 0)
	s.apart = old.apart
	switch d.kind {
	case "journal":
		s.data, s.appendOnly = slices.Clone(old.data), true
	case "snapshot":
		if s.data = slices.Clone(d.saved); len(s.data) > 0 {
			s.older, s.secondOffset, s.offset = d.history, d.offset+1, d.offset
		}
	case "old snapshot":
		s.data = slices.Clone(d.saved)
	}
	s.keys = int64(len(s.data))
	m.say("starts %s as %s with %v", id, s.runID, s.data)
}

// newOwner is as if another Configserver began to watch.
func (m *model) newOwner() {
	m.unwatched, m.watched = false, m.now
	m.o = health.Observations{ID: "next", Started: m.now, Nodes: map[string]health.Node{}, Histories: map[string]health.History{},
		CaughtUp: map[string]time.Time{}, Behind: map[string]time.Time{}, Unlinked: map[string]time.Time{}}
	m.o.Recorded(&m.c, &m.c, m.now)
	m.say("another owner")
}

func (m *model) actions() map[string]func(*rapid.T) {
	up := func(s *server) bool { return s.up }
	runs := func(s *server) bool { return s.up && !s.hung }
	replica := func(s *server) bool { return s.up && !s.master }
	return map[string]func(*rapid.T){
		"write":  func(*rapid.T) { m.write() },
		"write2": func(*rapid.T) { m.write() },
		"moment": func(*rapid.T) { m.pass(m.pace) },
		"while": func(t *rapid.T) {
			m.pass(time.Duration(rapid.IntRange(1, 300).Draw(t, "10 ms")) * 10 * time.Millisecond)
		},
		"long":       func(*rapid.T) { m.pass(12 * time.Second) },
		"replace":    func(*rapid.T) { m.mustFailOver() },
		"best hangs": func(*rapid.T) { m.bestHangs() },
		"kill":       func(*rapid.T) { s := m.node(up); m.say("kill %s", s.id); m.kill(s.id) },
		"start":      func(*rapid.T) { m.start(m.node(func(s *server) bool { return !s.up }).id) },
		"hang":       func(*rapid.T) { s := m.node(runs); m.say("hang %s", s.id); s.hung = true },
		"wake": func(*rapid.T) {
			s := m.node(func(s *server) bool { return s.up && s.hung })
			m.say("wake %s", s.id)
			s.hung = false
		},
		"slow":  func(*rapid.T) { s := m.node(replica); s.slow = !s.slow; m.say("slow %s: %t", s.id, s.slow) },
		"apart": func(*rapid.T) { s := m.node(up); s.apart = !s.apart; m.say("apart %s: %t", s.id, s.apart) },
		"save": func(*rapid.T) {
			s := m.node(runs)
			d := m.disks[s.id]
			d.saved, d.history, d.offset = slices.Clone(s.data), s.history, s.offset
			m.say("save %s: %v", s.id, d.saved)
		},
		"wipe": func(*rapid.T) {
			s := m.node(func(s *server) bool { return !s.up })
			s.data, m.disks[s.id].saved = nil, nil
			m.say("wipe %s", s.id)
		},
		"owner dies": func(*rapid.T) { m.unwatched = true; m.say("nobody watches") },
		"owner": func(*rapid.T) {
			if !m.unwatched {
				m.t.Skip("one watches")
			}
			m.newOwner()
		},
		"": func(*rapid.T) {
			if err := m.c.Validate(); err != nil {
				m.fail("%v", err)
			}
		},
	}
}

// TestModel explores what can happen to a shard.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(m.actions())
		m.allBack()
	})
}

// allBack is claim 6: when all nodes are back and well, the shard serves.
func (m *model) allBack() {
	if m.unwatched {
		m.newOwner()
	}
	for _, n := range m.shard().Nodes {
		s := m.servers[n.ID]
		s.hung, s.slow, s.apart = false, false, false
		if !s.up {
			m.start(n.ID)
			m.servers[n.ID].apart = false
		}
	}
	m.say("all are back")
	m.pass(30 * time.Second)
	s := m.shard()
	n := s.MasterNode()
	if n == nil || s.Operation != nil || m.servers[s.Master].runID != n.Incarnation || !m.servers[s.Master].master {
		m.fail("all nodes are back and %s does not serve: %+v, problems %v", s.ID, s, m.codes())
	}
	for _, other := range s.Nodes {
		if x := m.servers[other.ID]; !other.InSync || !slices.Equal(x.data, m.servers[s.Master].data) {
			m.fail("%s is not in sync with %s in the end: %+v has %v, want %v", other.ID, s.Master, other, x.data, m.servers[s.Master].data)
		}
	}
}

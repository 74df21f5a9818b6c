package failover

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/slot"
)

// world is a model of one shard's servers, with a clock of its own, that makes
// the observations a loop would have.
type world struct {
	filesLack string
	now       time.Time
	c         topology.Cluster
	o         health.Observations
	servers   map[string]*server
	proxies   map[string]health.ProxySight // what proxies see of the master
	behind    map[string]health.Behind     // what they wait for there
	cut       map[string]bool              // nodes the Configserver cannot reach
	copying   time.Duration                // how long a full copy takes
	pace      time.Duration                // of the clock, and between two probes
	// stagger: every node is probed at every other step only, not all at the same.
	stagger bool
	steps   int
	runs    int
}

type server struct {
	id             string
	runID          string
	up, hung       bool
	master         bool
	follows        string
	linkUp         bool
	linkLost       time.Time
	heardMaster    time.Time
	syncing        bool
	loading        bool
	offset, keys   int64
	history, older string
	users          []string
	defaultUser    redisadmin.DefaultUser
	mode           string
	software       redisadmin.Software
	password       bool
	appendOnly     bool
	// slow: it applies nothing, though its link is up; apart: it cannot reach other
	// servers. copied is when a full copy that it makes will have arrived.
	slow, apart bool
	copied      time.Time
	// data are the writes that it has.
	data []int
	// at is the "ip:port" that the name of its node leads to, if that matters;
	// astray, where it leads while the process is somewhere else.
	at, astray string
	// secondOffset is where it went on from an older history.
	secondOffset int64
}

var epoch0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// step is how fast the model's clock runs, and the interval of its probes.
const step = 10 * time.Millisecond

// newWorld is a serving shard: n0 is the master, the others follow it.
func newWorld(nodes int) *world {
	w := &world{now: epoch0, pace: step, servers: map[string]*server{}, proxies: map[string]health.ProxySight{}, behind: map[string]health.Behind{}, cut: map[string]bool{}}
	p := topology.DefaultPolicy()
	w.c = topology.Cluster{Name: "c", Epoch: 1, CommittedAt: epoch0.Add(-time.Minute), CreatedAt: epoch0, Phase: topology.Serving,
		WantShards: 1, WantNodes: nodes, Policy: p, Seats: []uint32{1, 2}, Shards: []topology.Shard{{ID: "s", Slots: slot.Even(0, 1), Generation: 1, SecretID: "x", Master: "n0",
			Histories: []topology.History{{ReplID: "h0"}}}}}
	w.o = health.Observations{ID: "cs", Started: epoch0, Nodes: map[string]health.Node{}, Histories: map[string]health.History{},
		CaughtUp: map[string]time.Time{}, Behind: map[string]time.Time{}, Unlinked: map[string]time.Time{}}
	for i := range nodes {
		id := fmt.Sprintf("n%d", i)
		s := w.boot(id)
		s.history, s.offset, s.keys = "h0", 1000, 10
		s.users = append(w.users(), w.mark(id))
		if i > 0 {
			s.master, s.follows, s.linkUp = false, w.address("n0"), true
		}
		w.shard().Nodes = append(w.shard().Nodes, topology.Node{ID: id, Address: w.address(id), Incarnation: s.runID, Readable: true, InReadSet: true, InSync: true, History: "h0", Priority: 100})
	}
	w.tick(200 * time.Millisecond)
	return w
}

func (w *world) shard() *topology.Shard   { return &w.c.Shards[0] }
func (w *world) mark(id string) string    { return topology.Mark(&w.c, "s", id) }
func (w *world) address(id string) string { return id + ":6379" }

// place is where a server answers.
func (w *world) place(id string) string { return cmp.Or(w.servers[id].at, w.address(id)) }

// lookUp lets the nodes be admitted at what their names mean, as other addresses.
func (w *world) lookUp() {
	for i := range w.shard().Nodes {
		n := &w.shard().Nodes[i]
		n.Resolved = fmt.Sprintf("10.0.0.%d:6379", i)
		w.servers[n.ID].at = n.Resolved
	}
	for _, s := range w.servers {
		if s.follows != "" {
			s.follows = w.shard().MasterNode().Endpoint()
		}
	}
	w.tick(step)
}

// boot starts a server, fenced and empty.
func (w *world) boot(id string) *server {
	w.runs++
	s := &server{id: id, runID: fmt.Sprintf("run%d", w.runs), up: true, master: true, history: fmt.Sprintf("own%d", w.runs), password: true,
		users: []string{credentials.AdminUser}, mode: "standalone", software: redisadmin.Software{Version: "7.0.15"}, heardMaster: w.now}
	w.servers[id] = s
	return s
}

// tick lets time pass.
func (w *world) tick(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(w.pace)
		w.replicate()
		w.steps++
		for i, n := range w.shard().Nodes {
			if !w.stagger || (w.steps+i)%2 == 0 {
				w.probe(n.ID)
			}
		}
		w.tend()
	}
}

// tend commits the in-sync set.
func (w *world) tend() {
	if next, why := Tend(&w.c, w.shard(), &w.o, w.now); len(why) > 0 {
		before := w.c.Clone()
		w.c.Shards[0] = next
		w.c.Epoch++
		w.o.Recorded(&before, &w.c, w.now)
	}
}

// replicate moves the stream from the master to the replicas that follow it.
func (w *world) replicate() {
	for _, s := range w.servers {
		if s.master || !s.up || s.hung {
			continue
		}
		var m *server
		for _, other := range w.servers {
			if w.place(other.id) == s.follows {
				m = other
			}
		}
		serves := m != nil && m.up && !s.apart && !m.apart && slices.Contains(m.users, credentials.ReplicationUser)
		switch {
		case !serves:
			if s.linkUp {
				s.linkUp, s.linkLost = false, w.now
			}
			s.syncing = s.syncing && w.copying == 0
		case m.hung || !m.master:
		case w.copying > 0 && !s.continues(m) && !s.syncing:
			s.syncing, s.linkUp, s.linkLost, s.copied = true, false, w.now, w.now.Add(w.copying)
		case s.syncing && w.copying > 0 && w.now.Before(s.copied):
		default:
			s.syncing, s.linkUp, s.heardMaster = false, true, w.now
			if s.slow {
				continue
			}
			s.offset, s.history, s.older, s.secondOffset, s.keys = max(s.offset, m.offset), m.history, m.older, m.secondOffset, m.keys
			if w.copying > 0 {
				s.offset = m.offset
			}
			s.data = slices.Clone(m.data)
		}
	}
}

// continues tells if a replica can go on from where it stands.
func (s *server) continues(m *server) bool {
	return s.history == m.history && s.offset <= m.offset || s.history == m.older && s.offset < m.secondOffset
}

// probe is what the Configserver sees of a node now.
func (w *world) probe(id string) {
	s, node := w.servers[id], w.o.Nodes[id]
	p := &node.Probe
	switch {
	case w.cut[id]:
		p.Sight, p.Detail = topology.SightTimeout, "no answer in time"
	case !s.up:
		if p.Refused++; p.Refused == 1 {
			p.RefusedSince = w.now
		}
		p.Sight, p.Detail = topology.SightRefused, "connection refused"
	case s.hung:
		if p.Asked.IsZero() {
			p.Asked = w.now
		}
		p.HostAt = w.now
	case !s.password:
		p.Sight, p.Detail, p.Heard, p.Refused = topology.SightFenced, "refuses the admin password", w.now, 0
	default:
		p.Sight, p.Detail, p.Heard, p.Refused, p.Asked = topology.SightOK, "ok", w.now, 0, time.Time{}
		p.InfoAt, p.UsersAt, p.Users, p.DefaultUser = w.now, w.now, slices.Clone(s.users), s.defaultUser
		if id == w.shard().Master {
			p.InfoAt = w.now.Add(time.Millisecond) // it is asked after the others
		}
		p.Info, p.Endpoint, p.Astray = s.info(w), s.at, s.astray
	}
	if s.hung || w.cut[id] {
		w.o.Nodes[id] = health.Node{Probe: *p}
	} else {
		w.o.Take(&w.c, w.shard(), w.shard().Node(id), *p)
	}
	if id == w.shard().Master {
		seen := w.o.Nodes[id]
		seen.Proxies, seen.Behind = w.proxies, map[string]health.Behind{}
		for proxy, b := range w.behind {
			b.At = w.now
			seen.Behind[proxy] = b
		}
		w.o.Nodes[id] = seen
	}
}

// info is what a server says of itself.
func (s *server) info(w *world) redisadmin.Info {
	info := redisadmin.Info{RunID: s.runID, Mode: s.mode, Software: s.software, Loading: s.loading, Master: s.master, MasterAddress: s.follows,
		LinkUp: s.linkUp, LinkDownFor: -1, LastIO: -1, Syncing: s.syncing, Offset: s.offset, ReplID: s.history, ReplID2: s.older, SecondOffset: s.secondOffset,
		Keys: s.keys, AppendOnly: s.appendOnly}
	if !s.master && s.linkUp {
		info.LastIO = w.now.Sub(s.heardMaster).Truncate(time.Second)
	}
	if !s.master && !s.linkUp && !s.linkLost.IsZero() {
		info.LinkDownFor = w.now.Sub(s.linkLost).Truncate(time.Second)
	}
	for _, other := range w.servers {
		if s.master && other.linkUp && other.follows == w.place(s.id) {
			info.Online = append(info.Online, w.place(other.id))
		}
	}
	return info
}

// strangerAt is as if the next probe of a node reached a server of another shard.
func (w *world) strangerAt(id string) {
	p := w.o.Nodes[id].Probe
	p.Info.RunID, p.Info.Keys, p.Users = "another", 100, []string{topology.Mark(&w.c, "t", "t-0")}
	p.InfoAt, p.UsersAt, p.Heard = w.now, w.now, w.now
	w.o.Take(&w.c, w.shard(), w.shard().Node(id), p)
	for _, n := range w.shard().Nodes {
		if n.ID != id {
			w.now = w.now.Add(time.Millisecond)
			w.probe(n.ID)
		}
	}
}

// elsewhere is as if the name of a node led to an empty server, and the node could not
// be seen where it was, for a second in which the others are probed.
func (w *world) elsewhere(id string) {
	for end := w.now.Add(time.Second); w.now.Before(end); {
		w.now = w.now.Add(step)
		w.replicate()
		p := w.o.Nodes[id].Probe
		p.Info, p.Users, p.Endpoint = redisadmin.Info{RunID: "another", Mode: "standalone", Master: true}, nil, "10.0.0.9:6379"
		p.InfoAt, p.UsersAt, p.Heard = w.now, w.now, w.now
		w.o.Take(&w.c, w.shard(), w.shard().Node(id), p)
		for _, n := range w.shard().Nodes {
			if n.ID != id {
				w.probe(n.ID)
			}
		}
	}
}

func (w *world) kill(id string) { w.servers[id].up, w.servers[id].linkUp = false, false }

// restart starts a killed server anew; keys are what it has on disk, in a snapshot of
// unknown age. It says who it is, as its configuration has the mark.
func (w *world) restart(id string, keys int64) *server {
	s := w.boot(id)
	s.keys = keys
	s.users = append(s.users, w.mark(id))
	return s
}

// restartWithJournal is restart with an append-only file.
func (w *world) restartWithJournal(id string) *server {
	s := w.restart(id, 10)
	s.appendOnly = true
	return s
}

// write lets the master take n bytes of writes that reach its replicas.
func (w *world) write(n int64) { w.servers[w.shard().Master].offset += n }

func (w *world) detect() []Problem {
	older := RecordIsOlder(&w.c, Newer(&w.c, w.shard(), &w.o, w.now))
	return slices.Concat(older, CredentialsNotOnFile(&w.c, w.filesLack), InMaintenance(&w.c, w.now), Detect(&w.c, w.shard(), &w.o, w.now))
}

// codes lists what is detected, with remedies that are due.
func (w *world) codes() []string {
	var list []string
	for _, p := range w.detect() {
		list = append(list, p.Code)
	}
	return list
}

// commit lets a change become the next epoch.
func (w *world) commit(change Change) ([]topology.Event, error) {
	next := w.c.Clone()
	next.Epoch++
	next.CommittedAt = w.now
	events, err := change(&next)
	if err == nil {
		err = next.Validate()
	}
	if err == nil {
		err = w.c.ValidateNext(next)
	}
	if err == nil {
		w.o.Recorded(&w.c, &next, w.now)
		w.c = next
	}
	return events, err
}

package failover

import (
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
	now     time.Time
	c       topology.Cluster
	o       health.Observations
	servers map[string]*server
	proxies map[string]health.ProxySight // what proxies see of the master
	cut     map[string]bool              // nodes the Configserver cannot reach
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
	password       bool
}

var epoch0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// step is how fast the model's clock runs, and the interval of its probes.
const step = 10 * time.Millisecond

// newWorld is a serving shard: n0 is the master, the others follow it.
func newWorld(nodes int) *world {
	w := &world{now: epoch0, servers: map[string]*server{}, proxies: map[string]health.ProxySight{}, cut: map[string]bool{}}
	p := topology.DefaultPolicy()
	w.c = topology.Cluster{Name: "c", Epoch: 1, CommittedAt: epoch0.Add(-time.Minute), CreatedAt: epoch0, Phase: topology.Serving,
		WantShards: 1, WantNodes: nodes, Policy: p, Seats: []uint32{1, 2}, Shards: []topology.Shard{{ID: "s", Slots: slot.Even(0, 1), Generation: 1, SecretID: "x", Master: "n0"}}}
	w.o = health.Observations{ID: "cs", Started: epoch0, Nodes: map[string]health.Node{}, Histories: map[string]health.History{}}
	for i := range nodes {
		id := fmt.Sprintf("n%d", i)
		s := w.boot(id)
		s.history, s.offset, s.keys = "h0", 1000, 10
		s.users = w.users()
		if i > 0 {
			s.master, s.follows, s.linkUp = false, w.address("n0"), true
		}
		w.shard().Nodes = append(w.shard().Nodes, topology.Node{ID: id, Address: w.address(id), Incarnation: s.runID, Readable: true, InReadSet: true, Priority: 100})
	}
	w.tick(200 * time.Millisecond)
	return w
}

func (w *world) shard() *topology.Shard   { return &w.c.Shards[0] }
func (w *world) address(id string) string { return id + ":6379" }

// boot starts a server, fenced and empty.
func (w *world) boot(id string) *server {
	w.runs++
	s := &server{id: id, runID: fmt.Sprintf("run%d", w.runs), up: true, master: true, history: fmt.Sprintf("own%d", w.runs), password: true,
		users: []string{credentials.AdminUser}, mode: "standalone", heardMaster: w.now}
	w.servers[id] = s
	return s
}

// tick lets time pass.
func (w *world) tick(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(step)
		w.replicate()
		for _, n := range w.shard().Nodes {
			w.probe(n.ID)
		}
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
			if w.address(other.id) == s.follows {
				m = other
			}
		}
		serves := m != nil && m.up && slices.Contains(m.users, credentials.ReplicationUser)
		switch {
		case !serves && s.linkUp:
			s.linkUp, s.linkLost = false, w.now
		case serves && m.hung:
		case serves && m.master:
			s.linkUp, s.heardMaster = true, w.now
			s.offset, s.history, s.older, s.keys = max(s.offset, m.offset), m.history, m.older, m.keys
		}
	}
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
	case !s.password:
		p.Sight, p.Detail, p.Heard, p.Refused = topology.SightFenced, "refuses the admin password", w.now, 0
	default:
		p.Sight, p.Detail, p.Heard, p.Refused, p.Asked = topology.SightOK, "ok", w.now, 0, time.Time{}
		p.InfoAt, p.UsersAt, p.Users, p.DefaultUser = w.now, w.now, slices.Clone(s.users), s.defaultUser
		p.Info = redisadmin.Info{RunID: s.runID, Mode: s.mode, Version: "7.0.15", Loading: s.loading, Master: s.master, MasterAddress: s.follows,
			LinkUp: s.linkUp, LinkDownFor: -1, LastIO: -1, Syncing: s.syncing, Offset: s.offset, ReplID: s.history, ReplID2: s.older, Keys: s.keys}
		if !s.master && s.linkUp {
			p.Info.LastIO = w.now.Sub(s.heardMaster).Truncate(time.Second)
		}
		if !s.master && !s.linkUp && !s.linkLost.IsZero() {
			p.Info.LinkDownFor = w.now.Sub(s.linkLost).Truncate(time.Second)
		}
		for _, other := range w.servers {
			if s.master && other.linkUp && other.follows == w.address(id) {
				p.Info.Online = append(p.Info.Online, other.id)
			}
		}
	}
	node.Proxies = nil
	if id == w.shard().Master {
		node.Proxies = w.proxies
		if m := w.shard().MasterNode(); p.Sight == topology.SightOK && !s.hung && s.master && s.runID == m.Incarnation {
			w.o.Histories["s"] = health.History{ReplID: s.history, Offset: s.offset, Seen: w.now}
		}
	}
	w.o.Nodes[id] = node
}

func (w *world) kill(id string) { w.servers[id].up, w.servers[id].linkUp = false, false }

// restart starts a killed server anew; keys are what it has on disk.
func (w *world) restart(id string, keys int64) *server {
	s := w.boot(id)
	s.keys = keys
	return s
}

// write lets the master take n bytes of writes that reach its replicas.
func (w *world) write(n int64) { w.servers[w.shard().Master].offset += n }

func (w *world) detect() []Problem { return Detect(&w.c, w.shard(), &w.o, w.now) }

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
		w.c, w.o.Since = next, w.now
	}
	return events, err
}

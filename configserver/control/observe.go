package control

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// inbox takes what probers saw until the loop looks. Newer replaces older:
// each probe carries everything that is known.
type inbox struct {
	mu     sync.Mutex
	probes map[string]arrival
	// sights: a proxy said what it sees of nodes.
	sights bool
	wake   chan struct{}
}

// arrival is a probe that the loop has not seen yet.
type arrival struct {
	health.Probe
	// news: it, or one that it replaced, is not like the one before.
	news bool
}

// put leaves a probe. The loop is waken only for what may call for something: a
// thousand nodes that are well say so ten times a second.
func (b *inbox) put(node string, p health.Probe, news, wake bool) {
	b.mu.Lock()
	b.probes[node] = arrival{p, news || b.probes[node].news}
	b.mu.Unlock()
	if news || wake {
		b.poke()
	}
}

// poke makes the loop look.
func (b *inbox) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// seen says that a proxy has seen something.
func (b *inbox) seen() {
	b.mu.Lock()
	b.sights = true
	b.mu.Unlock()
	b.poke()
}

func (b *inbox) take() (probes map[string]arrival, sights bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	probes, sights = b.probes, b.sights
	b.probes, b.sights = make(map[string]arrival, len(probes)), false
	return probes, sights
}

// running is a prober at work.
type running struct {
	prober  *health.Prober
	address string
	cancel  context.CancelFunc
	// watched: its shard is not calm, and the loop wants each probe at once.
	watched atomic.Bool
	// well counts the probes that were answered.
	well prometheus.Counter
	// series are what the node says of itself, for its shard; saidAt is when it said
	// what they show.
	series *nodeSeries
	saidAt time.Time
}

// syncProbers runs one prober for each registered node.
func (l *Loop) syncProbers(newPolicy bool) {
	c := l.record.Load()
	wanted := map[string]string{}
	if c.Phase != topology.Deleting {
		for i := range c.Shards {
			for _, n := range c.Shards[i].Nodes {
				wanted[n.ID] = n.Address
			}
		}
	}
	for id, r := range l.probers {
		if wanted[id] != r.address {
			r.cancel()
			delete(l.probers, id)
			l.byNode.Delete(id)
			l.obs.Forget(id)
			l.m.forgetNode(l.cfg.Cluster, id)
		} else if newPolicy {
			r.prober.SetPolicy(c.Policy)
		}
	}
	for id, address := range wanted {
		if l.probers[id] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(l.life)
		r := &running{address: address, cancel: cancel, well: l.m.probes.WithLabelValues(l.cfg.Cluster, id, string(topology.SightOK))}
		r.watched.Store(true)
		took := l.m.probeSeconds.WithLabelValues(l.cfg.Cluster)
		var last health.Probe // of the prober's goroutine
		r.prober = health.NewProber(health.ProberConfig{
			Node: id, Address: address,
			Passwords: func() []string { return l.Credentials().AdminPasswords() },
			Resolve:   l.cfg.Resolve,
			Record: func() topology.Node {
				if _, n := l.record.Load().Node(id); n != nil && n.Address == address {
					return *n
				}
				return topology.Node{ID: id, Address: address}
			},
			Publish: func(node string, p health.Probe) {
				if ctx.Err() == nil {
					l.inbox.put(node, p, !p.Like(&last), r.watched.Load())
				}
				last = p
			},
			Measured: func(_ string, d time.Duration) { took.Observe(d.Seconds()) },
		}, c.Policy)
		l.probers[id] = r
		l.byNode.Store(id, r.prober)
		l.spawn(func() { r.prober.Run(ctx) })
	}
}

// kick asks every node of a shard that does not refuse to be probed now; those
// that do are looked at in their own time.
func (l *Loop) kick(s *topology.Shard) {
	for i := range s.Nodes {
		if r := l.probers[s.Nodes[i].ID]; r != nil && l.obs.Nodes[s.Nodes[i].ID].Sight != topology.SightRefused {
			r.prober.Kick()
		}
	}
}

// takeIn moves what was seen into the observations and returns the shards that are to be
// looked at for it. With every, what proxies say of any master is seen to.
func (l *Loop) takeIn(every bool) map[string]bool {
	c, now := l.record.Load(), time.Now()
	touched := map[string]bool{}
	probes, sights := l.inbox.take()
	for id, p := range probes {
		at, known := l.places[id]
		if !known {
			continue
		}
		s := &c.Shards[at.shard]
		n := &s.Nodes[at.node]
		if p.news || l.due(s.ID, now) || l.lags(c, s, n, &p.Probe) {
			touched[s.ID] = true
		}
		if r := l.probers[id]; p.Sight == topology.SightOK {
			r.well.Inc()
			r.show(l.m, l.cfg.Cluster, s, n, &p.Probe)
		} else {
			l.m.probes.WithLabelValues(l.cfg.Cluster, id, string(p.Sight)).Inc()
		}
		l.obs.Take(c, s, n, p.Probe)
	}
	if !every && !sights {
		for id := range touched {
			if s := l.shard(id); l.doubtful(s) {
				l.addSights(s)
			}
		}
		return touched
	}
	for i := range c.Shards {
		if s := &c.Shards[i]; (sights || !l.looks[s.ID].calm) && l.doubtful(s) {
			l.addSights(s)
			touched[s.ID] = true
		}
	}
	return touched
}

// doubtful tells if a shard's master is not plainly well, so that what the
// proxies see of it matters.
func (l *Loop) doubtful(s *topology.Shard) bool {
	m, known := l.obs.Nodes[s.Master]
	return known && (m.Sight != topology.SightOK || !m.Asked.IsZero() && time.Since(m.Asked) > time.Second)
}

// addSights puts what the proxies see of a shard's master into the
// observations.
func (l *Loop) addSights(s *topology.Shard) {
	node := l.obs.Nodes[s.Master]
	node.Proxies, node.Behind = nil, nil
	for id, m := range l.members {
		if b, ok := m.behind[s.Master]; ok {
			if node.Behind == nil {
				node.Behind = map[string]health.Behind{}
			}
			node.Behind[id] = b
		}
		sight, ok := m.sights[s.Master]
		if !ok || m.stream == nil {
			continue
		}
		if node.Proxies == nil {
			node.Proxies = map[string]health.ProxySight{}
		}
		node.Proxies[id] = sight
	}
	l.obs.Nodes[s.Master] = node
}

// Observe implements failover.Host.
func (l *Loop) Observe(shard string) health.Observations {
	var o health.Observations
	_ = l.do(l.life, func() { o = l.observe(shard) })
	return o
}

// observe copies what is known about one shard.
func (l *Loop) observe(shard string) health.Observations {
	o := l.obs
	o.Nodes = map[string]health.Node{}
	o.CaughtUp, o.Behind, o.Unlinked = map[string]time.Time{}, map[string]time.Time{}, map[string]time.Time{}
	if s := l.record.Load().Shard(shard); s != nil {
		for i := range s.Nodes {
			id := s.Nodes[i].ID
			copyEntry(o.Nodes, l.obs.Nodes, id)
			copyEntry(o.CaughtUp, l.obs.CaughtUp, id)
			copyEntry(o.Behind, l.obs.Behind, id)
			copyEntry(o.Unlinked, l.obs.Unlinked, id)
		}
	}
	o.Histories = map[string]health.History{}
	copyEntry(o.Histories, l.obs.Histories, shard)
	o.Since = map[string]time.Time{shard: l.obs.Since[shard]}
	o.Pauses = append([]health.Interval(nil), l.obs.Pauses...)
	return o
}

func copyEntry[V any](to, from map[string]V, key string) {
	if v, ok := from[key]; ok {
		to[key] = v
	}
}

// maxPauses is how many of its own pauses a loop remembers; silence is never
// counted over more.
const maxPauses = 64

// ranUntil notes that the loop runs now. When it did not for noticeably longer
// than a tick, this process did not run, and could not hear an answer either:
// the time is not held against any node, and nothing is decided until the
// probers had a chance to read what arrived meanwhile. It comes before every
// decision, since the first thing to be seen after a pause may be a probe and
// not the tick.
func (l *Loop) ranUntil(now time.Time) {
	late := now.Sub(l.lastTick) - l.every
	if late > max(l.record.Load().Policy.ProbeInterval, 2*tick) {
		l.obs.Pauses = append(l.obs.Pauses, health.Interval{From: l.lastTick.Add(l.every), To: now})
		if n := len(l.obs.Pauses); n > maxPauses {
			l.obs.Pauses = l.obs.Pauses[n-maxPauses:]
		}
		l.m.pauses.WithLabelValues(l.cfg.Cluster).Add(late.Seconds())
		l.quietUntil = now.Add(2 * tick)
	}
	l.lastTick = now
}

// ticked is called with time only.
func (l *Loop) ticked() {
	now := time.Now()
	l.ranUntil(now)
	shards := l.takeIn(true)
	c := l.record.Load()
	for i := range c.Shards {
		if id := c.Shards[i].ID; l.due(id, now) {
			shards[id] = true
		}
	}
	l.decide(shards)
	l.spare = min(spareShare*time.Since(now), calmEvery/4)
	l.everyTick(now)
	l.pace()
}

func (l *Loop) allShards() map[string]bool {
	c := l.record.Load()
	all := make(map[string]bool, len(c.Shards))
	for i := range c.Shards {
		all[c.Shards[i].ID] = true
	}
	return all
}

package reactor

import (
	"maps"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/pubsub"
	"github.com/basalt-redis/basalt/proxy/session"
)

// partial is what one loop adds to Stats.
type partial struct {
	counters counters
	load     LoopStats
	held     int
	blocked  int
	memory   int64
	bytesIn  uint64
	bytesOut uint64
	nodes    map[string]NodeStats
	pubsub   PubSubStats
	errors   map[string]uint64
	timed    int
	tracking int
	// crossings of the loop.
	crossings map[session.Crossing]uint64
}

// Stats asks every loop for its counters and adds them up. It must not be
// called by a loop. Loops that have ended add nothing.
func (e *Engine) Stats() Stats {
	parts := make([]partial, len(e.loops))
	for i, l := range e.loops {
		ready := make(chan struct{})
		l.post(func() {
			parts[i] = l.collect()
			close(ready)
		})
		select {
		case <-ready:
		case <-l.done:
		}
	}
	t := e.table.Load()
	s := Stats{
		Epoch: t.Epoch, AckedEpoch: e.ackedEpoch(),
		Pinned:          int(e.pinned.Load()),
		ClientsRejected: e.accepting.rejected.Load(), Commands: make([]CommandStats, commands()), Crossings: map[session.Crossing]uint64{}, OwnErrors: map[string]uint64{},
	}
	for i := range parts {
		s.add(&parts[i])
	}
	s.PubSub.Channels = e.directory.Count(pubsub.Channel)
	s.PubSub.Patterns = e.directory.Count(pubsub.Pattern)
	s.PubSub.ShardChannels = e.directory.Count(pubsub.Shard)
	for i := range t.Shards {
		shard := &t.Shards[i]
		for j := range shard.Nodes {
			n := NodeStats{Node: shard.Nodes[j].ID, Shard: shard.ID, Address: shard.Nodes[j].Address, Master: j == shard.MasterIndex}
			opened := uint64(0)
			for k := range parts {
				p := parts[k].nodes[n.Node]
				n.Connections += p.Connections
				n.InFlight += p.InFlight
				n.Requests += p.Requests
				opened += p.Reconnects
			}
			n.Reconnects = opened
			n.Sight = Sight(e.watchOf(n.Node).current.Load())
			s.Nodes = append(s.Nodes, n)
		}
	}
	return s
}

func (s *Stats) add(p *partial) {
	k := &p.counters
	for i := range k.commands {
		c := &s.Commands[i]
		c.Calls += k.commands[i].Calls
		c.Errors += k.commands[i].Errors
		c.Rejected += k.commands[i].Rejected
		c.TotalTime += k.commands[i].TotalTime
		for b, n := range k.commands[i].Latency {
			c.Latency[b] += n
		}
	}
	s.Clients += p.load.Clients
	s.ClientsAccepted += k.accepted
	s.ClientsTooSlow += k.tooSlow
	s.ClientsEvicted += k.evicted
	s.ClientBytesIn += p.bytesIn
	s.ClientBytesOut += p.bytesOut
	s.ProtocolErrors += k.malformed
	s.UnknownCommands += k.unknown
	for code, n := range p.errors {
		s.OwnErrors[code] += n
	}
	s.ClientsTimed += p.timed
	s.ClientsTracking += p.tracking
	for k, n := range p.crossings {
		s.Crossings[k] += n
	}
	s.Held += p.held
	s.ClientsBlocked += p.blocked
	s.HeldBytes += k.heldBytes
	s.HeldTotal += k.heldTotal
	s.HeldRefused += k.heldRefused
	s.MemoryBytes += p.memory
	s.PubSub.Subscribers += p.pubsub.Subscribers
	s.PubSub.Subscriptions += p.pubsub.Subscriptions
	s.PubSub.Links += p.pubsub.Links
	s.PubSub.Messages += p.pubsub.Messages
	s.PubSub.Deliveries += p.pubsub.Deliveries
	s.PubSub.TooSlow += k.subscribersTooSlow
	s.Loops = append(s.Loops, p.load)
}

// collect copies the loop's counters.
func (l *loop) collect() partial {
	k := &l.counters
	p := partial{
		counters: *k, bytesIn: l.sh.BytesIn, bytesOut: l.sh.BytesOut, memory: l.memoryNow(),
		blocked: l.sh.Postponed + l.sh.Blocked, held: l.orphan.heldNow(), pubsub: l.subs.stats(), crossings: maps.Clone(l.sh.Crossings),
		errors: maps.Clone(l.sh.Errors), timed: l.sh.TimedOut, tracking: l.sh.Invalidations.Clients(), nodes: map[string]NodeStats{},
	}
	p.counters.commands = append([]CommandStats(nil), k.commands...)
	busy := k.busy + l.sh.Now - k.awake
	p.load = LoopStats{Clients: int(l.clients.Load()), Busy: time.Duration(busy), Wakeups: k.wakeups, Commands: k.answered}
	for _, s := range l.shards {
		p.held += s.heldNow()
		for _, n := range s.nodes {
			p.nodes[n.target.Node] = n.stats()
		}
	}
	return p
}

// stats counts a node's traffic; Reconnects are logins beyond the first of each
// connection.
func (n *node) stats() NodeStats {
	s := NodeStats{Requests: n.sent, Reconnects: n.opened}
	for _, conn := range n.all() {
		s.InFlight += conn.InFlight()
		s.Requests += conn.Sent
		if conn.Opened > 1 {
			s.Reconnects += conn.Opened - 1
		}
		if conn.State() == backend.Ready {
			s.Connections++
		}
	}
	return s
}

package control

import (
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// How often the loop looks at what is well.
//
// A cluster may have a thousand shards, and in nearly all of them nothing happens at
// nearly all times. So a shard in which nothing is wrong and nothing is being done is
// *calm*. What happens there is seen at once all the same, for a probe that is not like
// the one before wakes the loop. But what only time can tell (silence, a lag that
// lasts) is looked for less often, the nodes of large clusters are asked less often, and
// when all shards are calm the loop's own clock goes slower.

const (
	// calmTick is how often time alone is a reason to decide when all shards are calm.
	calmTick = 100 * time.Millisecond
	// calmEvery is how often a calm shard is looked at, and silentFor how long beyond the
	// interval of probes one of its nodes may say nothing before it is.
	calmEvery = time.Second
	silentFor = 200 * time.Millisecond
	// spareShare: between two looks at a shard that is not calm passes this many times
	// what the last look at all shards took, so that the loop has time for calls when a
	// thousand shards are in trouble.
	spareShare = 3
	// calmProbes is how many probes a second the nodes of calm shards get together, for
	// that is most of what a large cluster costs; each node gets one in slowest at least.
	calmProbes = 2000
	slowest    = 500 * time.Millisecond
	// calmAfter is how long nothing must have changed.
	calmAfter = time.Second
)

// look is when a shard was looked at, and how it was found.
type look struct {
	at   time.Time
	calm bool
}

// place is where a node is in the record.
type place struct{ shard, node int }

// index notes the places of a record.
func (l *Loop) index(c *topology.Cluster) {
	clear(l.places)
	clear(l.shards)
	for i := range c.Shards {
		s := &c.Shards[i]
		l.shards[s.ID] = i
		for j := range s.Nodes {
			l.places[s.Nodes[j].ID] = place{i, j}
		}
	}
	for id, was := range l.looks {
		if _, known := l.shards[id]; !known {
			delete(l.looks, id)
			if !was.calm {
				l.excited--
			}
		}
	}
}

// shard is topology.Cluster.Shard of the newest record.
func (l *Loop) shard(id string) *topology.Shard {
	i, known := l.shards[id]
	if !known {
		return nil
	}
	return &l.record.Load().Shards[i]
}

// due tells if a shard is to be looked at for the time that passed.
func (l *Loop) due(shard string, now time.Time) bool {
	was := l.looks[shard]
	if !was.calm {
		return now.Sub(was.at) >= l.spare
	}
	return now.Sub(was.at) >= calmEvery || !l.heardFrom(l.shard(shard), now)
}

// heardFrom tells if all nodes of a shard answered their newest probes.
func (l *Loop) heardFrom(s *topology.Shard, now time.Time) bool {
	within := l.calmInterval() + silentFor
	for i := range s.Nodes {
		p := l.obs.Nodes[s.Nodes[i].ID].Probe
		if p.Sight != topology.SightOK || p.Busy != "" || now.Sub(p.Heard) > within {
			return false
		}
	}
	return true
}

// lags tells if a replica is so far behind that it may have to be seen to.
func (l *Loop) lags(c *topology.Cluster, s *topology.Shard, n *topology.Node, p *health.Probe) bool {
	return n.ID != s.Master && l.obs.Histories[s.ID].Offset-p.Info.Offset > min(c.Policy.MaxReadLag, c.Policy.MaxReplicaLag)/2
}

// looked notes that a shard was looked at.
func (l *Loop) looked(c *topology.Cluster, s *topology.Shard, now time.Time) {
	calm := l.isCalm(c, s, now)
	was, known := l.looks[s.ID]
	l.looks[s.ID] = look{now, calm}
	switch {
	case calm && known && !was.calm:
		l.excited--
	case !calm && (!known || was.calm):
		l.excited++
	case calm == was.calm:
		return
	}
	for i := range s.Nodes {
		if r := l.probers[s.Nodes[i].ID]; r != nil {
			r.watched.Store(!calm)
			r.prober.Slow(0)
			if calm {
				r.prober.Slow(l.calmInterval())
			}
		}
	}
}

// calmInterval is the distance of a node's probes in a calm shard.
func (l *Loop) calmInterval() time.Duration {
	return max(l.record.Load().Policy.ProbeInterval, min(slowest, time.Duration(len(l.places))*time.Second/calmProbes))
}

// isCalm tells if nothing is wrong in a shard, and nothing is being done there.
func (l *Loop) isCalm(c *topology.Cluster, s *topology.Shard, now time.Time) bool {
	if c.Phase != topology.Serving || s.Operation != nil || s.Master == "" || len(l.problems[s.ID]) > 0 || len(l.told[s.ID]) > 0 ||
		l.activities[s.ID] != nil || l.tending[s.ID] || l.reserved[s.ID] > 0 || now.Before(l.notBefore[s.ID]) ||
		now.Sub(l.obs.Since[s.ID]) < calmAfter || now.Sub(l.obs.Started) < calmAfter {
		return false
	}
	return l.heardFrom(s, now)
}

// excite makes shards be looked at again soon: nothing could be decided about them now.
func (l *Loop) excite(shards map[string]bool) {
	for id := range shards {
		if was, known := l.looks[id]; known && was.calm {
			l.looks[id] = look{was.at, false}
			l.excited++
		}
	}
}

// pace sets the loop's own clock.
func (l *Loop) pace() {
	c := l.record.Load()
	every := tick
	if l.excited == 0 && len(l.looks) == len(c.Shards) && c.Phase == topology.Serving && len(l.activities) == 0 && !l.committing &&
		len(l.pending) == 0 && len(l.waiters) == 0 && len(l.leaving) == 0 && len(l.out) == 0 && l.older.Load() == nil {
		every = calmTick
	}
	if every != l.every {
		l.every = every
		l.ticker.Reset(every)
	}
}

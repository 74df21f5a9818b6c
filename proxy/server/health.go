package server

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/configclient"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/session"
)

// tickWithin is how long the loops may take to answer; a loop that takes longer
// is stuck, for none of its work waits.
const tickWithin = 2 * time.Second

// alive says nil while every event loop ticks.
func (s *Server) alive() error {
	answered := make(chan struct{})
	go func() {
		s.engine.Stats()
		close(answered)
	}()
	select {
	case <-answered:
		return nil
	case <-time.After(tickWithin):
		return fmt.Errorf("an event loop did not answer within %v", tickWithin)
	}
}

// ready says nil while clients should be sent here: every slot has an owner and
// the listener accepts. A shard that is failing over does not make a proxy
// unready, since all proxies see the same, and their requests wait.
func (s *Server) ready() error {
	table := s.engine.Table()
	switch {
	case s.draining.Load():
		return errors.New("draining: the proxy is stopping")
	case table.Epoch == 0:
		st := s.client.Status()
		return fmt.Errorf("no topology yet: %s", orUnknown(st.Problem))
	case table.Phase == routing.Deleting:
		return fmt.Errorf("cluster %s is being deleted", s.cfg.Cluster)
	case table.Phase != routing.Serving:
		return fmt.Errorf("cluster %s is still forming", s.cfg.Cluster)
	case !s.accepting.Load():
		return errors.New("not accepting clients yet")
	}
	for slot, owner := range table.Owner {
		if owner == routing.NoShard {
			return fmt.Errorf("slot %d has no owner in epoch %d", slot, s.client.Status().Epoch)
		}
	}
	return nil
}

// notServing says which shards serve nobody, as far as this proxy sees.
func (s *Server) notServing() (lines []string) {
	table := s.engine.Table()
	sights := map[string]reactor.Sight{}
	for _, n := range s.engine.Stats().Nodes {
		if n.Master {
			sights[n.Shard] = n.Sight
		}
	}
	for i := range table.Shards {
		shard := &table.Shards[i]
		var why string
		switch sight := sights[shard.ID]; {
		case shard.MasterIndex < 0:
			why = "it has no master"
		case sight == reactor.SightRefused, sight == reactor.SightTimeout, sight == reactor.SightFenced:
			why = fmt.Sprintf("its master %s is seen as %s", shard.Master, sight)
		default:
			continue
		}
		lines = append(lines, fmt.Sprintf("NOT SERVING: %s (slots %s): %s; `basaltctl cluster status %s` says what to do", shard.ID, shard.Slots, why, s.cfg.Cluster))
	}
	return lines
}

func orUnknown(problem string) string {
	if problem == "" {
		return "no configserver has answered"
	}
	return problem
}

// loadMeter turns counters into the load of the interval since it was asked
// last. It is used by one goroutine.
type loadMeter struct {
	at   time.Time // when it was asked last, at first when the proxy started
	busy []time.Duration
	// crossings are the requests over several slots so far, and their rates.
	crossings map[session.Crossing]crossingRate
}

// crossingRate is how many there were, and how many a second lately: mean is that with
// weight, which is 1 for what has been counted for long.
type crossingRate struct {
	requests     uint64
	mean, weight float64
}

// lately is the time constant of rates: those of before count little.
const lately = time.Minute

// crossSlot brings the rates up to date; elapsed is the time since the last call.
func (m *loadMeter) crossSlot(now map[session.Crossing]uint64, elapsed time.Duration) (all []*configclient.CrossSlotRequests) {
	if m.crossings == nil {
		m.crossings = map[session.Crossing]crossingRate{}
	}
	share := 1 - math.Exp(-elapsed.Seconds()/lately.Seconds())
	for k, n := range now {
		r := m.crossings[k]
		if elapsed > 0 {
			r.mean += share * (float64(n-r.requests)/elapsed.Seconds() - r.mean)
			r.weight += share * (1 - r.weight)
		}
		r.requests = n
		m.crossings[k] = r
		told := &configclient.CrossSlotRequests{Command: command.ByID(k.Command).Name, ClientName: k.Client, Requests: n}
		if r.weight > 0 {
			told.PerSecond = r.mean / r.weight
		}
		all = append(all, told)
	}
	return all
}

func (m *loadMeter) measure(stats reactor.Stats) configclient.Load {
	now := time.Now()
	load := configclient.Load{Clients: uint64(stats.Clients)}
	busy := make([]time.Duration, len(stats.Loops))
	load.CrossSlot = m.crossSlot(stats.Crossings, now.Sub(m.at))
	for i, l := range stats.Loops {
		load.Commands += l.Commands
		busy[i] = l.Busy
		if elapsed := now.Sub(m.at); i < len(m.busy) && elapsed > 0 {
			load.Busy = max(load.Busy, min(1, float64(l.Busy-m.busy[i])/float64(elapsed)))
		}
	}
	m.at, m.busy = now, busy
	return load
}

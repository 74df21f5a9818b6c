package control

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Status implements API.
func (l *Loop) Status() Status {
	var status Status
	if err := l.do(context.Background(), func() { status = l.status(time.Now()) }); err != nil {
		return Status{Cluster: l.Topology(), Progress: err.Error()}
	}
	return status
}

func (l *Loop) status(now time.Time) Status {
	c := l.record.Load()
	status := Status{Cluster: *c}
	for i := range l.problems[clusterWide] {
		status.Problems = append(status.Problems, told(&l.problems[clusterWide][i]))
	}
	status.Outages = l.outages(c)
	for i := range c.Shards {
		s := &c.Shards[i]
		for j := range s.Nodes {
			status.Nodes = append(status.Nodes, l.nodeStatus(s, &s.Nodes[j], now))
		}
		for j := range l.problems[s.ID] {
			status.Problems = append(status.Problems, told(&l.problems[s.ID][j]))
		}
	}
	slices.SortStableFunc(status.Problems, func(a, b Problem) int { return cmp.Compare(priority(a.Code), priority(b.Code)) })
	status.Proxies = l.proxyStatus()
	status.CrossSlot = l.crossSlot()
	if c.Phase == topology.Forming {
		status.Progress = title(failover.Progress(c, &l.obs, now))
	}
	return status
}

// crossSlot adds up what the proxies that are connected tell of requests over several
// slots.
func (l *Loop) crossSlot() (all []CrossSlotRequests) {
	type kind struct{ command, client string }
	sums := map[kind]CrossSlotRequests{}
	for _, m := range l.members {
		if m.stream == nil {
			continue
		}
		for _, k := range m.load.CrossSlot {
			sum := sums[kind{k.Command, k.ClientName}]
			k.Requests, k.PerSecond = k.Requests+sum.Requests, k.PerSecond+sum.PerSecond
			sums[kind{k.Command, k.ClientName}] = k
		}
	}
	return slices.SortedFunc(maps.Values(sums), func(a, b CrossSlotRequests) int {
		return cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(b.Requests, a.Requests),
			cmp.Compare(a.Command, b.Command), cmp.Compare(a.ClientName, b.ClientName))
	})
}

func told(p *failover.Problem) Problem {
	return Problem{Code: p.Code, Shard: p.Shard, Node: p.Node, Message: p.Message, Since: p.Since}
}

// Outages implements API.
func (l *Loop) Outages(ctx context.Context) (outages []Outage, err error) {
	err = l.do(ctx, func() { outages = l.outages(l.record.Load()) })
	return outages, err
}

func (l *Loop) outages(c *topology.Cluster) (list []Outage) {
	for i := range c.Shards {
		s := &c.Shards[i]
		if p := outageOf(l.problems[s.ID]); p != nil {
			list = append(list, Outage{Shard: s.ID, Slots: s.Slots, Since: p.Since, Why: p.Why})
		}
	}
	return list
}

// outageOf is the problem that a shard serves nobody; nil while it serves.
func outageOf(problems []failover.Problem) *failover.Problem {
	if i := slices.IndexFunc(problems, func(p failover.Problem) bool { return p.Code == failover.NotServing }); i >= 0 {
		return &problems[i]
	}
	return nil
}

func priority(code string) int {
	return slices.IndexFunc(failover.Table, func(r failover.Row) bool { return r.Code == code })
}

func (l *Loop) nodeStatus(s *topology.Shard, n *topology.Node, now time.Time) NodeStatus {
	seen := l.obs.Nodes[n.ID]
	st := NodeStatus{Shard: s.ID, Node: *n, Role: "fenced", Incarnation: seen.Info.RunID, Offset: -1, Lag: -1,
		Sight: seen.Sight, Version: seen.Info.Software.Version, Keys: -1, UsedMemory: -1, LastOK: seen.Heard}
	switch {
	case n.ID == s.Master:
		st.Role = "master"
	case n.Incarnation != "" && (seen.Info.RunID == "" || seen.Info.RunID == n.Incarnation):
		st.Role = "replica"
	}
	if seen.Info.RunID != "" {
		st.Offset, st.Keys, st.UsedMemory, st.LinkUp = seen.Info.Offset, seen.Info.Keys, seen.Info.UsedMemory, seen.Info.LinkUp
	}
	if n.ID == s.Master {
		st.Lag = 0
	} else if inSync, lag := l.obs.InSync(s, n, now); inSync {
		st.Lag = lag
	}
	st.Health = l.healthOf(s, n, &seen, now)
	return st
}

// healthOf describes a node in a few words.
func (l *Loop) healthOf(s *topology.Shard, n *topology.Node, seen *health.Node, now time.Time) string {
	for _, p := range l.problems[s.ID] {
		if p.Node == n.ID && p.Code != "StaleUsers" {
			return p.Message
		}
	}
	switch silence := l.obs.Silence(&seen.Probe, now); {
	case seen.Sight == topology.SightUnknown:
		return "not reached yet"
	case seen.Sight != topology.SightOK:
		return string(seen.Sight) + ": " + seen.Detail
	case silence > time.Second:
		return fmt.Sprintf("silent for %v", silence.Round(100*time.Millisecond))
	case seen.Info.Syncing:
		return fmt.Sprintf("syncing %d%%", seen.Info.SyncPercent)
	case seen.Busy != "":
		return seen.Detail
	}
	return "ok"
}

// gauges brings the series up to date, about once a second.
func (l *Loop) gauges(c *topology.Cluster, now time.Time) {
	if now.Sub(l.gaugedAt) < time.Second {
		return
	}
	l.gaugedAt = now
	name := l.cfg.Cluster
	var connected, unacked float64
	for _, m := range l.members {
		if m.stream != nil {
			connected++
		}
		if m.acked < c.Epoch {
			unacked++
		}
	}
	l.m.members.WithLabelValues(name, "connected").Set(connected)
	l.m.members.WithLabelValues(name, "away").Set(float64(len(l.members)) - connected)
	l.m.unacked.WithLabelValues(name).Set(unacked)
	counts := map[string]int{}
	for _, problems := range l.problems {
		for _, p := range problems {
			counts[p.Code]++
		}
	}
	for i := range failover.Table {
		code := failover.Table[i].Code
		l.m.problems.WithLabelValues(name, code).Set(float64(counts[code]))
	}
	serving := c.Phase == topology.Serving
	for i := range c.Shards {
		s := &c.Shards[i]
		serves := c.Phase == topology.Serving && outageOf(l.problems[s.ID]) == nil
		serving = serving && serves
		l.m.shardServing.WithLabelValues(name, s.ID).Set(oneIf(serves))
		for j := range s.Nodes {
			n := &s.Nodes[j]
			l.m.nodeUp.WithLabelValues(name, n.ID).Set(oneIf(l.obs.Live(n.ID, now)))
			if n.ID != s.Master {
				lag := -1.0
				if inSync, bytes := l.obs.InSync(s, n, now); inSync {
					lag = float64(bytes)
				}
				l.m.lag.WithLabelValues(name, n.ID).Set(lag)
			} else {
				l.m.lag.DeleteLabelValues(name, n.ID)
			}
		}
	}
	l.m.serving.WithLabelValues(name).Set(oneIf(serving))
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// minSetting is the min-replicas-to-write a master was given.
type minSetting struct {
	incarnation string
	count       int
}

// decide looks at shards and begins what has to be done about them.
func (l *Loop) decide(shards map[string]bool) {
	now := time.Now()
	l.ranUntil(now)
	if now.Before(l.quietUntil) || l.deleted.Load() {
		l.excite(shards)
		return
	}
	l.judge(shards, now)
	if !l.listened(now) {
		l.excite(shards)
		return
	}
	c := l.record.Load()
	if l.older.Load() != nil {
		l.excite(shards)
		for id := range shards {
			if s := l.shard(id); s != nil {
				l.note(s.ID, failover.NobodyAnswers(c, s, &l.obs, now), now)
			}
		}
		return
	}
	if len(c.Seats) == 0 {
		return // a record of before: nodes would lose the proxies' users and get no others
	}
	for id := range shards {
		if s := l.shard(id); s != nil {
			l.decideShard(c, s, now)
			l.looked(c, s, now)
		}
	}
	l.pace()
}

func (l *Loop) decideShard(c *topology.Cluster, s *topology.Shard, now time.Time) {
	l.tend(c, s, now)
	problems := failover.Detect(c, s, &l.obs, now)
	if p := outageOf(problems); p != nil && l.failures[s.ID] != "" {
		p.Failed("tried and failed, " + l.failures[s.ID])
	}
	problems = l.note(s.ID, problems, now)
	if health.AssessMaster(c, s, &l.obs, now).Verdict == health.Suspect {
		l.kick(s) // the replicas know in a moment what became of their links
	}
	running := l.activities[s.ID]
	if len(problems) > 0 {
		if i := slices.IndexFunc(problems, func(p failover.Problem) bool { return p.Remedy == failover.Replace }); i >= 0 {
			if running == nil && now.Before(l.notBefore[s.ID]) {
				return
			}
			if running == nil || running.yields {
				l.beginFailover(s, problems[i])
			}
			return
		}
	}
	if running != nil || now.Before(l.notBefore[s.ID]) || l.reserved[s.ID] > 0 {
		return
	}
	if s.Operation != nil {
		l.resume(s)
		return
	}
	var nodes []failover.Problem
	for _, p := range problems {
		switch p.Remedy {
		case failover.Admit, failover.AdmitMaster, failover.Relocate, failover.Regrant:
			due := !now.Before(l.retries[p.Node].at)
			if due && !slices.ContainsFunc(nodes, func(q failover.Problem) bool { return q.Node == p.Node }) {
				nodes = append(nodes, p)
			}
		}
	}
	if len(nodes) > 0 {
		l.reconcile(s, nodes)
		return
	}
	_ = l.renewSeats(s, now) || l.trimReadSet(c, s, now) || l.trimMinReplicas(c, s, now) || l.renewSettings(c, s, now) || l.renewUsers(s, now)
}

// beginFailover replaces a lost master.
func (l *Loop) beginFailover(s *topology.Shard, p failover.Problem) {
	now := time.Now()
	o := l.observe(s.ID)
	cause := p.Code + ": " + p.Message
	begin := failover.Begin(s.ID, newID(), cause, nil, failover.RowOf(p.Code).Counts, p.Evidence, &o, now)
	change := func(c *topology.Cluster) ([]topology.Event, error) {
		events, err := begin(c)
		for i := range events {
			if p.Severity == topology.Info { // a restart that loses nothing
				events[i].Severity = p.Severity
			}
		}
		return events, err
	}
	level := slog.LevelWarn
	if p.Severity == topology.Info {
		level = slog.LevelInfo
	}
	l.log.Log(l.life, level, "begins a failover", "shard", s.ID, "cause", cause)
	l.start(s.ID, "failover", false, func(ctx context.Context, x *failover.Executor) error {
		if _, err := l.Commit(ctx, s.ID+": failover, no master", change); err != nil {
			return err
		}
		return x.Run(ctx)
	})
}

// resume continues a persisted operation, also one that another Configserver
// began.
func (l *Loop) resume(s *topology.Shard) {
	op := s.Operation
	l.log.Info("continues an operation", "shard", s.ID, "operation", op.Kind, "phase", op.Phase, "id", op.ID)
	l.start(s.ID, string(op.Kind), op.Kind == topology.Rotation, func(ctx context.Context, x *failover.Executor) error { return x.Run(ctx) })
}

// reconcileAtOnce is how many shards are reconciled at the same time.
const reconcileAtOnce = 32

// reconcile admits nodes and renews users, each node bounded in time.
func (l *Loop) reconcile(s *topology.Shard, nodes []failover.Problem) {
	l.start(s.ID, "reconcile", true, func(ctx context.Context, x *failover.Executor) error {
		// A thousand shards at once would time out together; those that wait are served
		// in the order in which they came.
		select {
		case l.reconciling <- struct{}{}:
			defer func() { <-l.reconciling }()
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, p := range nodes {
			bounded, cancel := context.WithTimeout(ctx, 3*time.Second)
			var err error
			switch p.Remedy {
			case failover.Admit:
				err = x.AdmitReplica(bounded, p.Node)
			case failover.AdmitMaster:
				err = x.AdmitMaster(bounded, p.Node)
			case failover.Relocate:
				err = x.Relocate(bounded, p.Node)
			default:
				err = x.Regrant(bounded, p.Node)
			}
			cancel()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			_ = l.do(ctx, func() {
				delete(l.minSet, p.Node)
				delete(l.settingsAt, p.Node) // given again, in case they changed meanwhile
				if r := l.probers[p.Node]; r != nil {
					r.prober.LookAgain() // it may have been admitted at another place
				}
				l.retry(s.ID, p, err)
				if err == nil {
					l.obs.Stale(p.Node) // what was seen in between is of a node half way
					l.kick(s)
				}
			})
			if errors.Is(err, store.ErrLeaseLost) {
				return err
			}
		}
		return nil
	})
}

// retry says when a remedy of a node may be tried again. One that fails again and
// again leaves its shard time for everything else.
type retry struct {
	at       time.Time
	failures int
}

// retryMost is the longest pause between two attempts at a node.
const retryMost = 5 * time.Second

// retry notes how a remedy went.
func (l *Loop) retry(shard string, p failover.Problem, err error) {
	switch {
	case err == nil:
		delete(l.retries, p.Node)
		return
	case errors.Is(err, failover.ErrSuperseded):
		return
	case errors.Is(err, failover.ErrSaving):
		l.retries[p.Node] = retry{at: time.Now().Add(retryAfter)}
		return
	}
	r := l.retries[p.Node]
	pause := min(retryMost, retryAfter<<min(r.failures, 8))
	if r.failures++; r.failures&(r.failures-1) == 0 { // the first, second, fourth …
		l.log.Warn("will be tried again", "shard", shard, "node", p.Node, "remedy", p.Remedy, "failures", r.failures, "error", err)
	}
	r.at = time.Now().Add(pause)
	l.retries[p.Node] = r
}

// trimReadSet commits the read set when it should be another one.
func (l *Loop) trimReadSet(c *topology.Cluster, s *topology.Shard, now time.Time) bool {
	want := failover.ReadSet(c, s, &l.obs, now)
	var in, out []string
	for i := range s.Nodes {
		switch n := &s.Nodes[i]; {
		case want[i] && !n.InReadSet:
			in = append(in, n.ID)
		case !want[i] && n.InReadSet:
			out = append(out, n.ID)
		}
	}
	if len(in)+len(out) == 0 {
		return false
	}
	var reasons []string
	if len(in) > 0 {
		reasons = append(reasons, strings.Join(in, ", ")+" into the read set")
	}
	if len(out) > 0 {
		reasons = append(reasons, strings.Join(out, ", ")+" out of the read set")
	}
	id := s.ID
	l.start(id, "read set", true, func(ctx context.Context, _ *failover.Executor) error {
		_, err := l.Commit(ctx, id+": "+strings.Join(reasons, ", "), func(c *topology.Cluster) ([]topology.Event, error) {
			// Decided again on what is known now, on the loop's goroutine.
			s := c.Shard(id)
			if s == nil {
				return nil, failover.ErrSuperseded
			}
			changed := false
			for i, in := range failover.ReadSet(c, s, &l.obs, time.Now()) {
				changed = changed || s.Nodes[i].InReadSet != in
				s.Nodes[i].InReadSet = in
			}
			if !changed {
				return nil, failover.ErrSuperseded
			}
			return nil, nil
		})
		return err
	})
	return true
}

// trimMinReplicas keeps min-replicas-to-write of the master at the policy's
// value, as far as there are replicas in sync, when that is more than the
// cluster's settings say. An admitted master has what they say.
func (l *Loop) trimMinReplicas(c *topology.Cluster, s *topology.Shard, now time.Time) bool {
	m := s.MasterNode()
	if m == nil || !l.obs.Admitted(m, now) {
		return false
	}
	want, is := failover.MinReplicas(c, s, &l.obs, now), l.minSet[m.ID]
	if is.incarnation == m.Incarnation && is.count == want {
		return false
	}
	if c.Policy.MinReplicasToWrite == 0 && is.count == 0 {
		return false
	}
	node := *m
	l.start(s.ID, "min replicas", true, func(ctx context.Context, x *failover.Executor) error {
		if err := x.SetMinReplicas(ctx, &node, want); err != nil {
			return err
		}
		return l.do(ctx, func() { l.minSet[node.ID] = minSetting{node.Incarnation, want} })
	})
	return true
}

// everyTick sees to the cluster as a whole.
func (l *Loop) everyTick(now time.Time) {
	c := l.record.Load()
	l.gauges(c, now)
	l.readFiles(now)
	if !l.listened(now) || l.older.Load() != nil {
		return
	}
	l.seatsTick(now)
	if c.Phase == topology.Deleting && l.activities[clusterWide] == nil && !now.Before(l.notBefore[clusterWide]) {
		l.start(clusterWide, "delete", false, func(ctx context.Context, _ *failover.Executor) error { return l.remove(ctx) })
		return
	}
	if c.Phase != topology.Forming || l.activities[clusterWide] != nil || now.Before(l.notBefore[clusterWide]) || now.Before(l.quietUntil) ||
		len(failover.Progress(c, &l.obs, now)) > 0 {
		return
	}
	l.start(clusterWide, "serve", false, func(ctx context.Context, _ *failover.Executor) error {
		_, err := l.Commit(ctx, "every shard is in sync: serves", func(c *topology.Cluster) ([]topology.Event, error) {
			now := time.Now()
			if c.Phase != topology.Forming || len(failover.Progress(c, &l.obs, now)) > 0 {
				return nil, failover.ErrSuperseded
			}
			c.Phase = topology.Serving
			c.EvenSlots()
			if len(c.ClientSecretIDs) == 0 {
				c.ClientSecretIDs = l.Credentials().ClientSecretIDs()
			}
			for i := range c.Shards {
				s := &c.Shards[i]
				for j, in := range failover.ReadSet(c, s, &l.obs, now) {
					s.Nodes[j].InReadSet = in
				}
			}
			return []topology.Event{{Time: now, Kind: "ClusterServing", Severity: topology.Info, Epoch: c.Epoch,
				Message: fmt.Sprintf("all slots are served by %d shards", len(c.Shards))}}, nil
		})
		return err
	})
}

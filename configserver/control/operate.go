package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/lifecycle"
)

// byAdmin is the cause of operations that somebody asked for.
const byAdmin = "an admin asked for it"

// Switchover implements API.
func (l *Loop) Switchover(ctx context.Context, shard, candidate string) (topology.Report, error) {
	id := newID()
	reports, err := l.expect(ctx, id)
	if err != nil {
		return topology.Report{}, err
	}
	err = l.exclusive(ctx, shard, "switchover", false, func(ctx context.Context, x *failover.Executor) error {
		c := l.Topology()
		s := c.Shard(shard)
		switch {
		case s == nil:
			return fmt.Errorf("shard %s: %w", shard, store.ErrNotFound)
		case s.Operation != nil:
			return s.Busy()
		case s.Master == "":
			return topology.Preconditionf("%s has no master yet", shard)
		}
		o := x.Look(ctx, s) // what probes saw may be from before another switchover
		now := time.Now()
		candidates, err := failover.SwitchoverCandidates(&c, s, candidate, &o, now)
		if err != nil {
			return err
		}
		chosen := failover.Chosen(candidates)
		if err := x.Prepare(ctx, s, chosen); err != nil {
			return err
		}
		evidence := health.AssessMaster(&c, s, &o, now).Evidence
		change := failover.BeginSwitchover(shard, id, byAdmin, chosen, candidates, evidence, time.Now())
		if _, err := l.Commit(ctx, shard+": switchover to "+chosen+", frozen", change); err != nil {
			return err
		}
		return x.Run(ctx)
	})
	if isRefusal(err) {
		l.unexpect(id)
		return topology.Report{}, err
	}
	// The operation may have met an error and go on by itself: its end counts.
	return l.await(ctx, id, reports, err)
}

// Failover implements API.
func (l *Loop) Failover(ctx context.Context, shard string, wish failover.Wish) (topology.Report, error) {
	candidate := wish.Node
	id := newID()
	reports, err := l.expect(ctx, id)
	if err != nil {
		return topology.Report{}, err
	}
	waitFor := id
	var refusal error
	err = l.do(ctx, func() {
		c := l.record.Load()
		s := c.Shard(shard)
		if s == nil {
			refusal = fmt.Errorf("shard %s: %w", shard, store.ErrNotFound)
			return
		}
		if candidate != "" && s.Node(candidate) == nil {
			refusal = fmt.Errorf("node %s in %s: %w", candidate, shard, store.ErrNotFound)
			return
		}
		if op := s.Operation; op != nil && op.Kind == topology.Failover && s.Master == "" {
			// One is at work, perhaps without anybody to promote: an admin's word
			// decides it.
			waitFor = op.ID
			delete(l.reports, id)
			reports = make(chan topology.Report, 1)
			l.reports[op.ID] = reports
			if refusal = l.mayInsist(c, s, &wish); refusal == nil {
				l.insist(Asker(ctx), shard, op.ID, wish)
			}
			return
		}
		if running := l.activities[shard]; running != nil && !running.yields {
			refusal = topology.Preconditionf("%s is busy (%s); try again when that has ended", shard, running.name)
			return
		}
		refusal = l.beginAsked(Asker(ctx), c, s, id, &wish)
	})
	if err == nil {
		err = refusal
	}
	if err != nil {
		l.unexpect(id)
		return topology.Report{}, err
	}
	return l.await(ctx, waitFor, reports, nil)
}

// PlanFailover implements API.
func (l *Loop) PlanFailover(ctx context.Context, shard string, wish failover.Wish) (FailoverPlan, error) {
	var plan FailoverPlan
	var refusal error
	err := l.do(ctx, func() {
		c := l.record.Load()
		s := c.Shard(shard)
		if s == nil {
			refusal = fmt.Errorf("shard %s: %w", shard, store.ErrNotFound)
			return
		}
		if wish.Node != "" && s.Node(wish.Node) == nil {
			refusal = fmt.Errorf("node %s in %s: %w", wish.Node, shard, store.ErrNotFound)
			return
		}
		now, o := time.Now(), l.observe(shard)
		var outcome failover.Outcome
		plan.Master, plan.Bytes = s.Master, -1
		if op := s.Operation; op != nil && op.Kind == topology.Failover && s.Master == "" {
			plan.Master = op.OldMaster
			refusal = l.mayInsist(c, s, &wish)
			outcome = l.wished(c, s, &wish, &o, now)
		} else {
			outcome, refusal = l.mayBegin(c, s, &wish, &o, now)
		}
		plan.Candidate, plan.Lost = outcome.Chosen(), outcome.Lost
		if m := s.Node(plan.Master); m != nil {
			plan.MasterLives = o.Admitted(m, now)
		}
		for _, v := range outcome.Candidates {
			if h := o.Histories[shard]; v.Node == plan.Candidate && v.Chosen && v.Offset >= 0 && h.ReplID != "" {
				plan.Bytes = max(0, h.Offset-v.Offset)
			}
		}
	})
	return plan, errors.Join(err, refusal)
}

// mayBegin is what an admin's failover would come to, or why it is not begun.
func (l *Loop) mayBegin(c *topology.Cluster, s *topology.Shard, wish *failover.Wish, o *health.Observations, now time.Time) (outcome failover.Outcome, err error) {
	if s.Master == "" {
		return outcome, topology.Preconditionf("%s has no master yet", s.ID)
	}
	if wish.Node == s.Master && !wish.AcceptLoss {
		return outcome, topology.Preconditionf("%s is the master of %s already", wish.Node, s.ID)
	}
	outcome = l.wished(c, s, wish, o, now)
	chosen := outcome.Chosen()
	waits := chosen == "" && !outcome.Until.IsZero() // somebody is taken when the wait is over
	if !waits && (chosen == "" || wish.Node != "" && chosen != wish.Node || chosen == s.Master && !outcome.Restarted) {
		return outcome, refusedWish(c, s, wish, &outcome)
	}
	return outcome, nil
}

// beginAsked begins a failover that an admin asked for, by is who.
func (l *Loop) beginAsked(by string, c *topology.Cluster, s *topology.Shard, id string, wish *failover.Wish) error {
	now := time.Now()
	o := l.observe(s.ID)
	if _, err := l.mayBegin(c, s, wish, &o, now); err != nil {
		return err
	}
	evidence := health.AssessMaster(c, s, &o, now).Evidence
	change := failover.Begin(s.ID, id, byAdmin, wish, false, evidence, &o, now)
	shard := s.ID
	l.start(shard, "failover", false, func(ctx context.Context, x *failover.Executor) error {
		ctx = AskedBy(ctx, by)
		if _, err := l.Commit(ctx, shard+": failover, no master", change); err != nil {
			return err
		}
		return x.Run(ctx)
	})
	return nil
}

// wished is what an admin's failover would come to.
func (l *Loop) wished(c *topology.Cluster, s *topology.Shard, wish *failover.Wish, o *health.Observations, now time.Time) failover.Outcome {
	e := failover.Election{Old: s.Master, Offset: -1}
	if s.Operation != nil && s.Master == "" {
		e = failover.ElectionOf(s.Operation)
	} else if h := o.Histories[s.ID]; h.ReplID != "" {
		e.Offset = h.Offset
	}
	e.Asked, e.Requested, e.AcceptLoss, e.Since, e.Begun = true, wish.Node, wish.AcceptLoss, now, now
	return failover.Elect(c, s, e, o, now)
}

// refusedWish says why an admin's failover is not done, and what it would cost.
func refusedWish(c *topology.Cluster, s *topology.Shard, wish *failover.Wish, outcome *failover.Outcome) error {
	for _, v := range outcome.Candidates {
		if v.Node == wish.Node && v.Refused != "" {
			if wish.AcceptLoss {
				return topology.Preconditionf("%s cannot become master of %s: %s", wish.Node, s.ID, v.Refused)
			}
			return topology.Preconditionf("%s cannot become master of %s without loss: %s; --accept-loss promotes it and loses what it lacks", wish.Node, s.ID, v.Refused)
		}
	}
	return topology.Preconditionf("no node of %s can take its master's place: %s", s.ID, outcome.Blocked(c, s))
}

// mayInsist tells why a failover that waits cannot go on as an admin wishes.
func (l *Loop) mayInsist(c *topology.Cluster, s *topology.Shard, wish *failover.Wish) error {
	if wish.Node == "" && !wish.AcceptLoss {
		return nil // it goes on as it does
	}
	o := l.observe(s.ID)
	outcome := l.wished(c, s, wish, &o, time.Now())
	if chosen := outcome.Chosen(); outcome.Until.IsZero() && (chosen == "" || wish.Node != "" && chosen != wish.Node) {
		return refusedWish(c, s, wish, &outcome)
	}
	return nil
}

// insist makes a running failover go on as an admin wishes.
func (l *Loop) insist(by, shard, id string, wish failover.Wish) {
	if wish.Node == "" && !wish.AcceptLoss {
		return
	}
	l.spawn(func() {
		_, err := l.Commit(AskedBy(l.life, by), shard+": failover as an admin asked", func(c *topology.Cluster) ([]topology.Event, error) {
			s := c.Shard(shard)
			if s == nil || s.Operation == nil || s.Operation.ID != id || s.Operation.Candidate != "" {
				return nil, failover.ErrSuperseded
			}
			s.Operation.Requested, s.Operation.AcceptLoss = wish.Node, wish.AcceptLoss
			return nil, nil
		})
		if err != nil && !errors.Is(err, failover.ErrSuperseded) {
			l.log.Warn("could not make the failover go on as an admin asked", "shard", shard, "node", wish.Node, "error", err)
		}
	})
}

// expect registers for the report of an operation.
func (l *Loop) expect(ctx context.Context, id string) (chan topology.Report, error) {
	reports := make(chan topology.Report, 1)
	return reports, l.do(ctx, func() { l.reports[id] = reports })
}

func (l *Loop) unexpect(id string) {
	_ = l.do(context.Background(), func() { delete(l.reports, id) })
}

// await waits for the report of an operation that was begun; failed is the
// error its first run ended with.
func (l *Loop) await(ctx context.Context, id string, reports chan topology.Report, failed error) (topology.Report, error) {
	ended := time.NewTicker(50 * time.Millisecond)
	defer ended.Stop()
	for {
		select {
		case r := <-reports:
			return r, nil
		case <-ctx.Done():
			l.unexpect(id)
			return topology.Report{}, ctx.Err()
		case <-l.stopped:
			return topology.Report{}, l.why()
		case <-ended.C:
		}
		// An operation that is not in the record, and that nobody is about to put
		// there, has no report to come.
		over := false
		err := l.do(ctx, func() {
			c := l.record.Load()
			over = len(l.reports) == 0 || l.reports[id] == nil
			if !over && !slices.ContainsFunc(c.Shards, func(s topology.Shard) bool { return s.Operation != nil && s.Operation.ID == id }) {
				over = failed != nil || !l.busy()
			}
		})
		if err != nil || over {
			select {
			case r := <-reports:
				return r, nil
			default:
			}
			l.unexpect(id)
			return topology.Report{}, errors.Join(err, failed, topology.Preconditionf("the operation did not begin or was replaced by another one; look at the cluster's events"))
		}
	}
}

// busy tells if anything is being done or committed.
func (l *Loop) busy() bool {
	return len(l.activities) > 0 || l.committing || len(l.pending) > 0
}

// rotateAtOnce is how many shards are rotated at the same time.
const rotateAtOnce = 8

// Rotate implements API.
func (l *Loop) Rotate(ctx context.Context) (map[string]uint64, error) {
	c := l.Topology()
	if c.Phase == topology.Deleting {
		return nil, topology.Preconditionf("cluster %s is being deleted", c.Name)
	}
	set, err := l.cfg.Credentials()
	if err == nil {
		err = l.refused(ctx, set)
	}
	if err == nil {
		err = l.do(ctx, func() { l.keep(set) })
	}
	if err != nil {
		return nil, err
	}
	if !slices.Equal(c.ClientSecretIDs, set.ClientSecretIDs()) {
		_, err := l.Commit(ctx, "client passwords changed", func(c *topology.Cluster) ([]topology.Event, error) {
			c.ClientSecretIDs = set.ClientSecretIDs()
			return nil, nil
		})
		if err != nil {
			return nil, err
		}
	}
	if Asker(ctx) != "" {
		l.Tell(ctx, topology.Event{Time: time.Now(), Kind: "OperationAsked", Severity: topology.Info, Epoch: l.Topology().Epoch,
			Message: "rotation of the credentials of all shards"})
	}
	var (
		mu   sync.Mutex
		errs []error
	)
	lifecycle.Parallel(len(c.Shards), rotateAtOnce, func(i int) {
		s := &c.Shards[i]
		if s.SecretID == "" {
			return // no node was admitted yet: it begins with the new secret
		}
		if err := l.rotateShard(ctx, s.ID, byAdmin); err != nil {
			mu.Lock()
			errs = append(errs, fmt.Errorf("%s: %w", s.ID, err))
			mu.Unlock()
		}
	})
	generations := map[string]uint64{}
	for _, s := range l.Topology().Shards {
		generations[s.ID] = s.Generation
	}
	return generations, errors.Join(errs...)
}

// rotateShard rotates one shard, and begins again when a failover came between.
func (l *Loop) rotateShard(ctx context.Context, shard, cause string) error {
	for {
		err := l.exclusive(ctx, shard, "rotation", true, func(ctx context.Context, x *failover.Executor) error {
			if _, err := l.Commit(ctx, shard+": rotates credentials", failover.BeginRotation(shard, newID(), cause, time.Now())); err != nil {
				return err
			}
			for {
				// A node that hangs for a moment must not end it half way.
				err := x.Run(ctx)
				if err == nil || ctx.Err() != nil || errors.Is(err, store.ErrLeaseLost) {
					return err
				}
				l.log.Warn("rotation goes on", "shard", shard, "error", err)
				select {
				case <-time.After(retryAfter):
				case <-ctx.Done():
				}
			}
		})
		if !errors.Is(err, context.Canceled) || ctx.Err() != nil || l.life.Err() != nil {
			return err
		}
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Delete implements API.
func (l *Loop) Delete(ctx context.Context) error {
	_, err := l.Commit(ctx, "deleted", func(c *topology.Cluster) ([]topology.Event, error) {
		c.Phase = topology.Deleting
		for i := range c.Shards {
			s := &c.Shards[i]
			s.Operation, s.Frozen = nil, false
			for j := range s.Nodes {
				s.Nodes[j].InReadSet = false
			}
		}
		return nil, nil
	})
	if err != nil {
		return err
	}
	select {
	case <-l.stopped:
		if !l.deleted.Load() {
			return l.why()
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endActivities tells the activities of all shards to end, and waits for them.
// The cluster is being deleted, so none begins that changes a server.
func (l *Loop) endActivities(ctx context.Context) error {
	var running []*activity
	err := l.do(ctx, func() {
		for shard, a := range l.activities {
			if shard != clusterWide {
				a.cancel()
				running = append(running, a)
			}
		}
	})
	for _, a := range running {
		select {
		case <-a.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// remove fences what is left of a cluster that is being deleted, and then
// forgets it. It is tried again until it worked.
func (l *Loop) remove(ctx context.Context) error {
	// What is being done to a shard ends first, lest it let proxies in again
	// after they were shut out.
	if err := l.endActivities(ctx); err != nil {
		return err
	}
	c := l.Topology()
	l.AwaitAcks(ctx, "", c.Epoch, c.Policy.AckTimeout, c.Policy.AckTimeout)
	lifecycle.Parallel(len(c.Shards), rotateAtOnce, func(i int) {
		s := &c.Shards[i]
		lifecycle.Parallel(len(s.Nodes), 0, func(i int) {
			x := failover.NewExecutor(ctx, l, s.ID, l.log)
			defer x.Close()
			bounded, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			if err := x.Dismiss(bounded, &s.Nodes[i]); err != nil {
				l.log.Warn("node of a deleted cluster was not fenced; a restart fences it", "node", s.Nodes[i].ID, "error", err)
			}
		})
	})
	if err := l.Owned(); err != nil {
		return err
	}
	// The ownership ends with the cluster, and with it ctx.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := l.cfg.Ownership.Delete(bounded, c.Epoch); err != nil {
		return err
	}
	l.deleted.Store(true)
	l.end(nil)
	return nil
}

package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Switchover: move the master role to a replica while everybody is alive.
//
// Goal: no write is lost, no client sees an error, and requests are held for
// milliseconds.
//
//  0. Prepare checks that the candidate is close behind and opens a connection
//     to every node, because dialing takes longer than everything below.
//  1. BeginSwitchover commits the freeze with the candidate in it. Proxies hold
//     new requests, wait for the answers to those they sent, and ack.
//  2. A proxy that does not ack in time loses its seat, by a commit, and the servers
//     switch its user off and close its connections. Then nobody can write whom the
//     freeze did not reach. The other proxies notice nothing. (fencing.go)
//  3. The master's stream is stopped altogether (CLIENT PAUSE WRITE holds
//     expiry and eviction too, and its pings are turned off), so its offset is
//     final. The candidate's offset is polled until it is the same.
//  4. The promotion is committed, then done: candidate first, then the old
//     master and the others are made to follow it, at the same time. Equal
//     offsets mean that nobody needs a full copy.
//  5. The last commit names the new master and ends the freeze.
//
// Until 4 is committed everything can be undone by a commit that ends the
// freeze: the candidate does not catch up within catchUp, or dies, or the master
// does. After it the new master is elected among what is there, the old one
// included: nobody has written anything since.

const (
	// catchUp bounds step 3; requests are held meanwhile.
	catchUp = 2 * time.Second
	// pollEvery is the distance of two looks at the candidate's offset.
	pollEvery = time.Millisecond
	// pauseFor ends the pause of writes should nobody be left to end it.
	pauseFor = 5 * time.Second
	// A freeze that is older than takenOver was begun by a Configserver that died.
	// Its proxies get reconnect to find this one: one that is shut out because it
	// was still looking would fail what it has in flight.
	takenOver = time.Second
	reconnect = 2 * time.Second
	// closeBehind is how long the candidate gets to come close before anything
	// is frozen, and closeBytes is what counts as close.
	closeBehind = 5 * time.Second
	closeBytes  = 1 << 20
)

// Prepare is step 0; its errors say why the switchover is not begun.
func (x *Executor) Prepare(ctx context.Context, s *topology.Shard, candidate string) error {
	master, next := s.MasterNode(), s.Node(candidate)
	m, err := x.conn(ctx, master, redisadmin.CallTimeout)
	if err != nil {
		return topology.Preconditionf("master %s does not answer (%v): a failover replaces it", master.ID, err)
	}
	n, err := x.conn(ctx, next, redisadmin.CallTimeout)
	if err != nil {
		return topology.Preconditionf("%s does not answer: %v", next.ID, err)
	}
	x.eachQuiet(ctx, without(s, master.ID, next.ID), func(ctx context.Context, n *topology.Node) { _, _ = x.conn(ctx, n, glimpse) })
	for deadline := time.Now().Add(closeBehind); ; {
		of, err := m.Replication(ctx)
		if err != nil {
			return err
		}
		at, err := n.Replication(ctx)
		if err != nil {
			return err
		}
		inSync := !at.Master && at.LinkUp && at.ReplID == of.ReplID && of.Offset-at.Offset <= closeBytes
		switch {
		case inSync && online(of, next):
			return nil
		case inSync && time.Now().After(deadline):
			return nil // the master may not know it by its name yet; catching up tells
		case time.Now().After(deadline):
			return topology.Preconditionf("%s is not in sync with %s (%d bytes behind, link up: %t); wait until it is, or choose another node",
				next.ID, master.ID, of.Offset-at.Offset, at.LinkUp)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// BeginSwitchover is the change that freezes a shard.
func BeginSwitchover(shard, id, cause, candidate string, candidates []topology.Candidate, evidence []topology.Evidence, now time.Time) Change {
	return func(c *topology.Cluster) ([]topology.Event, error) {
		s, err := beginOn(c, shard)
		if err != nil {
			return nil, err
		}
		switch {
		case s.Operation != nil:
			return nil, s.Busy()
		case s.Master == "" || s.Node(candidate) == nil:
			return nil, topology.Preconditionf("%s changed meanwhile; look at its status and try again", shard)
		case s.Master == candidate:
			return nil, topology.Preconditionf("%s is the master of %s already", candidate, shard)
		}
		s.Frozen = true
		s.Operation = &topology.Operation{
			ID: id, Kind: topology.Switchover, Phase: Freezing, Cause: cause, StartedAt: now, StartEpoch: c.Epoch,
			OldMaster: s.Master, Candidate: candidate, Requested: candidate, Candidates: candidates, Evidence: evidence, OldMasterOffset: -1,
		}
		return nil, nil
	}
}

// freeze is steps 1 to 3 and the commit of step 4, or the way back.
func (x *Executor) freeze(ctx context.Context, c *topology.Cluster, s *topology.Shard) error {
	op := s.Operation
	x.enter(Freezing)
	if err := x.hit("began"); err != nil {
		return err
	}
	// After the fence nobody can write whom the freeze did not reach: waiting for
	// them again would only hold everybody else's requests.
	var unacked []string
	if !x.fenced {
		timeout := c.Policy.AckTimeout
		if time.Since(op.StartedAt) > takenOver {
			timeout = max(timeout, reconnect)
		}
		unacked = x.host.AwaitAcks(ctx, x.shard, op.StartEpoch, timeout, timeout)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(unacked) > 0 {
		x.enter(Fencing)
		if err := x.host.ShutOut(ctx, unacked, true); err != nil {
			return err
		}
		if err := x.fenceShard(ctx, s, unacked); err != nil {
			return x.rollBack(ctx, s, err)
		}
		return nil // the record may have another generation now: read it again
	}
	if err := x.hit("fenced"); err != nil {
		return err
	}
	x.enter(CatchingUp)
	offset, err := x.catchUp(ctx, s.MasterNode(), s.Node(op.Candidate))
	if err != nil {
		return x.rollBack(ctx, s, err)
	}
	if err := x.hit("elected"); err != nil {
		return err
	}
	return x.commit(ctx, "switchover promotes "+op.Candidate, func(_ *topology.Cluster, _ *topology.Shard, op *topology.Operation) ([]topology.Event, error) {
		op.Phase, op.OldMasterOffset = Promoting, offset
		for i := range op.Candidates {
			if op.Candidates[i].Node == op.Candidate {
				op.Candidates[i].Offset = offset
			}
		}
		return nil, nil
	})
}

// catchUp is step 3; it returns the offset at which both stand.
func (x *Executor) catchUp(ctx context.Context, master, candidate *topology.Node) (int64, error) {
	if err := x.host.Owned(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	m, err := x.conn(ctx, master, redisadmin.CallTimeout)
	if err != nil {
		return 0, err
	}
	n, err := x.conn(ctx, candidate, redisadmin.CallTimeout)
	if err != nil {
		return 0, err
	}
	if err := m.PauseWrites(ctx, pauseFor); err != nil {
		return 0, err
	}
	// As good as never, until afterPause.
	if err := m.Config(ctx, "repl-ping-replica-period", "86400"); err != nil {
		return 0, err
	}
	want, err := m.Replication(ctx)
	if err != nil {
		return 0, err
	}
	if !want.Master {
		return 0, fmt.Errorf("%s is a replica of %s", master.ID, want.MasterAddress)
	}
	for {
		at, err := n.Replication(ctx)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return 0, fmt.Errorf("%s did not catch up within %v: it is %d bytes behind", candidate.ID, catchUp, want.Offset-n.Info.Offset)
		case err != nil:
			return 0, err
		case at.Master || at.ReplID != want.ReplID || !at.LinkUp:
			return 0, fmt.Errorf("%s lost its link to the master", candidate.ID)
		case at.Offset == want.Offset:
			return want.Offset, nil
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return 0, fmt.Errorf("%s did not catch up within %v: it is %d bytes behind", candidate.ID, catchUp, want.Offset-at.Offset)
		}
	}
}

// afterPause undoes what catchUp did to a node that was the master.
func (x *Executor) afterPause(ctx context.Context, c *redisadmin.Conn, was bool) error {
	if !was || x.kind != topology.Switchover {
		return nil
	}
	if err := c.Config(ctx, "repl-ping-replica-period", "1"); err != nil {
		return err
	}
	return c.Unpause(ctx)
}

// rollBack ends the freeze; the master stays what it is.
func (x *Executor) rollBack(ctx context.Context, s *topology.Shard, cause error) error {
	if err := x.host.Owned(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // stopping: whoever goes on decides
	}
	x.enter("rolling-back")
	master := s.MasterNode()
	x.eachQuiet(ctx, []topology.Node{*master}, func(ctx context.Context, n *topology.Node) {
		if c, err := x.conn(ctx, n, glimpse); err == nil {
			_ = x.afterPause(ctx, c, true) // the pause ends by itself otherwise
		}
	})
	x.log.Warn("switchover is rolled back", "error", cause)
	return x.commit(ctx, "switchover rolled back", func(c *topology.Cluster, s *topology.Shard, op *topology.Operation) ([]topology.Event, error) {
		s.Frozen = false
		report := x.report(s, op, c.Epoch)
		report.Phases = ended(report.Phases, time.Now())
		report.Error = cause.Error()
		s.Operation = nil
		return []topology.Event{finishedEvent(report)}, nil
	})
}

// SwitchoverCandidates judges the replicas of a shard for a switchover. An
// admin's choice is taken if it is in sync; otherwise the error says why not.
func SwitchoverCandidates(c *topology.Cluster, s *topology.Shard, requested string, o *health.Observations, now time.Time) ([]topology.Candidate, error) {
	if requested != "" && s.Node(requested) == nil {
		return nil, fmt.Errorf("node %s in %s: %w", requested, s.ID, store.ErrNotFound)
	}
	if requested != "" && requested == s.Master {
		return nil, topology.Preconditionf("%s is the master of %s already", requested, s.ID)
	}
	outcome := Elect(c, s, Election{Old: s.Master, Requested: requested, Asked: true, Switchover: true, Offset: -1}, o, now)
	chosen := outcome.Chosen()
	if chosen == "" || chosen == s.Master || requested != "" && chosen != requested {
		return nil, topology.Preconditionf("no node of %s can take the role now: %s", s.ID, Reasons(outcome.Candidates))
	}
	return outcome.Candidates, nil
}

package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/lifecycle"
	"github.com/basalt-redis/basalt/internal/settings"
)

// Failover: replace a master that is lost.
//
// Goal: one node acknowledges writes again, soon, and it has every write that
// any reachable node has; no other node acknowledges any.
//
//  1. Begin commits "this shard has no master". Proxies hold new requests, end
//     what is in flight to the old master, and ack.
//  2. Fencing waits for the acks, at most policy.AckTimeout, and meanwhile tries
//     to shut the proxies out of the old master, in case it is alive after all.
//     A proxy that does not ack loses its seat: no server that can be reached lets
//     it in, and nobody waits for it again. It may still write to the old master if
//     both are alive and cut off from here, and those writes are lost.
//  3. Electing reads the offsets from the nodes themselves, anew, and chooses.
//     Nobody is eligible: say why, try again.
//  4. The choice is committed (promoting) before the chosen node hears of it,
//     so that whoever goes on after a crash promotes the same one. What cannot
//     be promoted any more leads back to 3, where the nodes that were promoted
//     before count with what they have.
//  5. Promoting makes it a master, gives it, and every other node that can be
//     reached, the users of generation+1 only, and makes the others follow it.
//  6. One last commit names the new master and generation+1, and proxies release
//     what they held. From here on there is no way back: the proxies' next
//     writes go to the new master.
//
// Lost are writes that the old master acknowledged and had not sent to any
// replica; the report says how many bytes, as far as is known.
//
// Why acks first and not only fencing: a dead master cannot be asked to refuse
// anybody. Why a new generation every time: an old master that was only cut off
// has the users of the old one, and is fenced for every proxy that has moved on.
// Why the old master is not waited for: it may never come back; when it does, it
// is fenced and admitted as a replica like any newcomer.

const (
	// glimpse bounds what is asked of one node while clients are waiting. A
	// node that needs longer is left for later.
	glimpse = 300 * time.Millisecond
	// electAgain is the pause after an election without a result.
	electAgain = 200 * time.Millisecond
)

// Wish is what an admin asked for of a failover; nothing for an automatic one.
type Wish struct {
	// Node that is to become master; the best when empty.
	Node string
	// AcceptLoss: it need not be in sync.
	AcceptLoss bool
}

// Begin is the change that begins a failover. One that counts is for the limit per
// period (Row.Counts).
func Begin(shard, id, cause string, wish *Wish, counts bool, evidence []topology.Evidence, o *health.Observations, now time.Time) Change {
	return func(c *topology.Cluster) ([]topology.Event, error) {
		s, err := beginOn(c, shard)
		if err != nil {
			return nil, err
		}
		switch {
		case s.Master == "":
			return nil, topology.Preconditionf("%s has no master now; wait until it has one", shard)
		case s.Operation != nil && s.Operation.Kind != topology.Rotation:
			return nil, s.Busy()
		}
		offset := int64(-1)
		if h := o.Histories[shard]; h.ReplID != "" {
			offset = h.Offset
		}
		// What a rotation granted for the next generation may be of another secret.
		rotating := s.Operation != nil
		s.Operation = &topology.Operation{
			ID: id, Kind: topology.Failover, Phase: Fencing, Cause: cause, StartedAt: now, StartEpoch: c.Epoch,
			OldMaster: s.Master, Evidence: evidence, OldMasterOffset: offset,
		}
		if wish != nil {
			s.Operation.Asked, s.Operation.Requested, s.Operation.AcceptLoss = true, wish.Node, wish.AcceptLoss
		}
		s.Operation.Skip = rotating
		if old := s.MasterNode(); old != nil {
			old.InReadSet = false
		}
		s.Master, s.Frozen = "", false
		s.Failovers = recent(s.Failovers, now, c.Policy.FailoverPeriod)
		if counts {
			s.Failovers = append(s.Failovers, now)
		}
		return []topology.Event{{Time: now, Kind: "FailoverBegan", Severity: topology.Warning, Shard: shard, Node: s.Operation.OldMaster,
			Message: "failover of " + shard + ": " + cause, Epoch: c.Epoch}}, nil
	}
}

// beginOn finds the shard that an operation is to begin on.
func beginOn(c *topology.Cluster, shard string) (*topology.Shard, error) {
	s := c.Shard(shard)
	switch {
	case s == nil:
		return nil, fmt.Errorf("shard %s: %w", shard, store.ErrNotFound)
	case c.Phase == topology.Deleting:
		return nil, topology.Preconditionf("cluster %s is being deleted", c.Name)
	}
	return s, nil
}

// fence is step 2, and goes on to 3 without a commit between: whoever has to
// begin again fences again.
func (x *Executor) fence(ctx context.Context, s *topology.Shard) error {
	op := s.Operation
	x.enter(Fencing)
	if err := x.hit("began"); err != nil {
		return err
	}
	attempt, cancel := context.WithCancel(ctx)
	defer cancel()
	shut := make(chan bool, 1)
	go func() { shut <- x.shutOut(attempt, s.Node(op.OldMaster)) }()
	timeout := x.policy().AckTimeout
	x.missed(x.host.AwaitAcks(ctx, x.shard, op.StartEpoch, timeout, timeout))
	if len(x.unacked) > 0 {
		x.fenced = <-shut // at most a glimpse
	}
	cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(x.unacked) > 0 {
		// Before the new master lets anybody in: they get in nowhere any more.
		if err := x.host.ShutOut(ctx, x.unacked, true); err != nil {
			return err
		}
	}
	if err := x.hit("fenced"); err != nil {
		return err
	}
	return x.elect(ctx)
}

// shutOut takes the proxies' users from the old master, if the incarnation
// that was master still answers. One that restarted has none.
func (x *Executor) shutOut(ctx context.Context, old *topology.Node) bool {
	if old == nil || old.Incarnation == "" || x.host.Owned() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, glimpse)
	defer cancel()
	c, err := x.dialAdmitted(ctx, old)
	if err != nil {
		return false
	}
	defer c.Close()
	_, err = c.RevokeProxies(ctx, nil)
	return err == nil
}

// elect is step 3 and the commit of step 4.
func (x *Executor) elect(ctx context.Context) error {
	x.enter(Electing)
	begun := time.Now() // waiting counts anew for whoever goes on
	for {
		c := x.host.Record()
		s := c.Shard(x.shard)
		if s == nil || s.Operation == nil || s.Operation.ID != x.op {
			return ErrSuperseded
		}
		o := x.Look(ctx, s)
		if err := ctx.Err(); err != nil {
			return err
		}
		e := ElectionOf(s.Operation)
		e.Begun, e.Since, e.Failed = begun, troubleSince(s, &o), x.failed
		outcome := Elect(&c, s, e, &o, time.Now())
		if chosen := outcome.Chosen(); chosen != "" {
			if err := x.hit("elected"); err != nil {
				return err
			}
			if err := x.isOurs(ctx, &outcome, o.Nodes[chosen].Info.RunID); err != nil {
				return err
			}
			return x.commit(ctx, fmt.Sprintf("%s promotes %s", x.kind, chosen),
				func(_ *topology.Cluster, s *topology.Shard, op *topology.Operation) ([]topology.Event, error) {
					op.Phase, op.Candidate, op.Lost = Promoting, chosen, outcome.Lost
					op.Candidates = remember(op.Candidates, outcome.Candidates)
					// The incarnation is admitted here, before any user is switched on.
					s.Node(chosen).Incarnation, s.Node(chosen).Discard = o.Nodes[chosen].Info.RunID, ""
					s.Node(chosen).ReachedAt(o.Nodes[chosen].Endpoint)
					return nil, nil
				})
		}
		if outcome.Until.IsZero() {
			if err := x.blocked(ctx, &outcome); err != nil {
				return err
			}
		}
		select {
		case <-time.After(electAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// isOurs fails when an incarnation that was never admitted is one of another cluster.
func (x *Executor) isOurs(ctx context.Context, outcome *Outcome, runID string) error {
	if !outcome.Restarted {
		return nil
	}
	elsewhere, err := x.host.Elsewhere(ctx, runID)
	if err == nil && elsewhere != "" {
		err = fmt.Errorf("%s: %w: %s", outcome.Chosen(), ErrStranger, elsewhere)
	}
	return err
}

// blocked commits, once for each thing that is waited for, that nobody can be
// promoted. The probes' view of the same is told as an event (failoverBlocked).
func (x *Executor) blocked(ctx context.Context, outcome *Outcome) error {
	if x.told == outcome.stage() {
		return nil
	}
	x.told = outcome.stage()
	return x.commit(ctx, "nobody is promoted yet", func(_ *topology.Cluster, _ *topology.Shard, op *topology.Operation) ([]topology.Event, error) {
		op.Phase, op.Candidate = Electing, ""
		op.Candidates = remember(op.Candidates, outcome.Candidates)
		return nil, nil
	})
}

// remember replaces the verdicts on candidates, but does not forget whom an
// earlier attempt chose and may have promoted.
func remember(before, now []topology.Candidate) []topology.Candidate {
	out := slices.Clone(now)
	for _, b := range before {
		if b.Chosen && !slices.ContainsFunc(now, func(n topology.Candidate) bool { return n.Node == b.Node && n.Chosen }) {
			b.Refused = cmp.Or(b.Refused, "was chosen first and could not be promoted")
			out = append(out, b)
		}
	}
	return out
}

// Look asks every node of the shard at this moment, and returns what is known
// with their answers in it. The connections are kept for what follows.
func (x *Executor) Look(ctx context.Context, s *topology.Shard) health.Observations {
	o := x.host.Observe(s.ID)
	o.Nodes = maps.Clone(o.Nodes)
	if o.Nodes == nil {
		o.Nodes = map[string]health.Node{} // the loop has ended
	}
	var mu sync.Mutex
	x.eachQuiet(ctx, s.Nodes, func(ctx context.Context, n *topology.Node) {
		asked := time.Now()
		answer, err := x.ask(ctx, n)
		mu.Lock()
		defer mu.Unlock()
		seen := o.Nodes[n.ID]
		seen.Sight, seen.Detail = redisadmin.SightOf(err)
		if err == nil {
			seen.Info, seen.InfoAt, seen.Heard, seen.Refused, seen.Busy = answer.Info, asked, time.Now(), 0, ""
			seen.Users, seen.UsersAt, seen.Endpoint = answer.Users, asked, answer.Endpoint
		}
		o.Nodes[n.ID] = seen
	})
	return o
}

// answer is who is at a node's address.
type answer struct {
	Info     redisadmin.Info
	Users    []string
	Endpoint string
}

// ask looks at whatever incarnation is at a node's address now.
func (x *Executor) ask(ctx context.Context, n *topology.Node) (answer, error) {
	x.mu.Lock()
	c := x.conns[n.ID]
	x.mu.Unlock()
	if c != nil {
		a, err := look(ctx, c)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return answer{}, err
		}
		x.drop(n.ID)
	}
	c, err := x.dial(ctx, n)
	if err != nil {
		return answer{}, err
	}
	return look(ctx, x.keep(n.ID, c))
}

func look(ctx context.Context, c *redisadmin.Conn) (a answer, err error) {
	a.Endpoint = c.Remote()
	if a.Info, err = c.Read(ctx); err == nil {
		a.Users, err = c.Users(ctx)
	}
	return a, err
}

func (x *Executor) eachQuiet(ctx context.Context, nodes []topology.Node, f func(ctx context.Context, n *topology.Node)) {
	lifecycle.Parallel(len(nodes), 0, func(i int) {
		bounded, cancel := context.WithTimeout(ctx, glimpse)
		defer cancel()
		f(bounded, &nodes[i])
	})
}

// promote is steps 5 and 6, for a failover and for the last part of a
// switchover. A switchover keeps the credentials unless it fenced somebody.
func (x *Executor) promote(ctx context.Context, s *topology.Shard) error {
	op := s.Operation
	x.enter(Promoting)
	if err := x.hit("promoting-committed"); err != nil {
		return err
	}
	generation := s.Generation
	if x.kind == topology.Failover {
		generation = op.Next(s.Generation)
	}
	sec, err := x.secretsOf(s.ID, s.SecretID, generation)
	if err != nil {
		return err
	}
	sec = sec.urgent()
	x.seats = sec.proxies.Seats
	candidate := s.Node(op.Candidate)
	master, err := x.makeMaster(ctx, candidate, sec)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, store.ErrLeaseLost) {
			return err
		}
		return x.promotionFailed(ctx, candidate, err)
	}
	if err := x.hit("promoted"); err != nil {
		return err
	}
	x.enter("repointing")
	if err := x.host.Owned(); err != nil {
		return err
	}
	var mu sync.Mutex
	joined := map[string]redisadmin.Info{}
	x.each(ctx, x.reachable(s, candidate.ID), glimpse, func(ctx context.Context, n *topology.Node, c *redisadmin.Conn) error {
		before, err := join(ctx, c, x.host.Record(), candidate.Endpoint(), &master, sec)
		if err == nil {
			err = x.afterPause(ctx, c, n.ID == op.OldMaster)
		}
		if err == nil {
			mu.Lock()
			joined[n.ID] = before
			mu.Unlock()
		}
		return err
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := x.hit("repointed"); err != nil {
		return err
	}
	return x.finish(ctx, generation, master, joined)
}

const (
	// failedFirst and failedMost are the least and the longest pause after a promotion
	// that failed.
	failedFirst = 100 * time.Millisecond
	failedMost  = 5 * time.Second
)

// promotionFailed leads back to an election, in which an equal of the candidate goes
// first. What an admin asked for is for one attempt.
func (x *Executor) promotionFailed(ctx context.Context, candidate *topology.Node, cause error) error {
	x.drop(candidate.ID)
	x.log.Warn("candidate could not be promoted", "node", candidate.ID, "error", cause)
	first := !slices.Contains(x.failed, candidate.ID)
	x.failed = append(slices.DeleteFunc(x.failed, func(id string) bool { return id == candidate.ID }), candidate.ID)
	x.failures++
	err := x.commit(ctx, candidate.ID+" could not be promoted", func(c *topology.Cluster, s *topology.Shard, op *topology.Operation) ([]topology.Event, error) {
		op.Phase, op.Candidate, op.Requested, op.AcceptLoss = Electing, "", "", false
		if !first {
			return nil, nil
		}
		return []topology.Event{{Time: time.Now(), Kind: "PromotionFailed", Severity: topology.Critical, Shard: s.ID, Node: candidate.ID, Epoch: c.Epoch,
			Message: fmt.Sprintf("%s was chosen as master of %s and could not be made one (%v): another node is tried if one has as much, and it again", candidate.ID, s.ID, cause)}}, nil
	})
	if err != nil {
		return err
	}
	return x.rest(ctx, min(failedMost, failedFirst<<min(x.failures-1, 10)))
}

// rest waits between two attempts, or until an admin says who is to be promoted.
func (x *Executor) rest(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case <-time.After(min(electAgain, time.Until(end))):
		case <-ctx.Done():
			return ctx.Err()
		}
		r := x.host.Record()
		if s := r.Shard(x.shard); s == nil || s.Operation == nil || s.Operation.ID != x.op || s.Operation.Requested != "" || s.Operation.AcceptLoss {
			return nil
		}
	}
	return nil
}

// makeMaster promotes a node, idempotently, and returns what it says of itself then.
// Before REPLICAOF NO ONE nothing has happened that anybody could notice; after it
// the node would take writes, and no proxy has been told of it yet.
func (x *Executor) makeMaster(ctx context.Context, n *topology.Node, sec secrets) (redisadmin.Info, error) {
	if err := x.host.Owned(); err != nil {
		return redisadmin.Info{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, redisadmin.CallTimeout)
	defer cancel()
	c, err := x.conn(bounded, n, redisadmin.CallTimeout)
	if err != nil {
		return redisadmin.Info{}, err
	}
	if x.kind == topology.Failover {
		// Settings may be missing on an incarnation that is admitted only now.
		err = configure(bounded, c, x.host.Record(), n.ID, sec.replication)
	}
	if err == nil {
		err = c.Promote(bounded)
	}
	if err == nil {
		err = x.afterPause(bounded, c, true)
	}
	if err == nil {
		err = grantOnly(bounded, c, sec)
	}
	if err != nil {
		return redisadmin.Info{}, err
	}
	info, err := c.Replication(bounded)
	if err == nil && !info.Master {
		err = fmt.Errorf("%s: is a replica of %s after it was promoted", c.Address, info.MasterAddress)
	}
	return info, err
}

// reachable are the admitted nodes that answer, or that nobody has looked at
// yet, except one. Nobody waits for the rest; they are put right when they are
// back.
func (x *Executor) reachable(s *topology.Shard, except string) []topology.Node {
	o := x.host.Observe(s.ID)
	now := time.Now()
	return slices.DeleteFunc(without(s, except), func(n topology.Node) bool {
		return o.Nodes[n.ID].Sight != topology.SightUnknown && !o.Admitted(&n, now)
	})
}

// finish is step 6, the point of no return. master is what the new master says of
// itself; joined, what the nodes that follow it said before they were told to.
func (x *Executor) finish(ctx context.Context, generation uint64, master redisadmin.Info, joined map[string]redisadmin.Info) error {
	x.enter("committing")
	var report *topology.Report
	o := x.host.Observe(x.shard)
	err := x.commit(ctx, fmt.Sprintf("%s finished", x.kind), func(c *topology.Cluster, s *topology.Shard, op *topology.Operation) ([]topology.Event, error) {
		if op.Candidate == "" {
			return nil, ErrSuperseded
		}
		now := time.Now()
		s.Master, s.Generation, s.Frozen = op.Candidate, generation, false
		succeed(s, op, master, joined, now)
		for i := range s.Nodes {
			n := &s.Nodes[i]
			_, follows := joined[n.ID]
			switch {
			case n.ID == s.Master:
				n.InReadSet = n.Readable
			case !follows || !o.Admitted(n, now):
				n.InReadSet = false
			}
		}
		report = x.report(s, op, c.Epoch)
		report.Phases = ended(report.Phases, now)
		same := s.Master == op.OldMaster
		report.Succeeded = !same || op.Requested == s.Master
		if same { // nobody was failed over to
			s.Failovers = slices.DeleteFunc(s.Failovers, func(t time.Time) bool { return t.Equal(op.StartedAt) })
		}
		if !report.Succeeded {
			report.Error = "the role came back to " + s.Master + ": nobody else could take it"
		}
		s.Operation = nil
		return []topology.Event{finishedEvent(report)}, nil
	})
	if err != nil {
		return err
	}
	x.enter("")
	x.log.Info("finished", "operation", x.kind, "master", report.NewMaster, "was", report.OldMaster, "cause", report.Cause,
		"took", report.Phases[len(report.Phases)-1].StartedAt.Sub(report.StartedAt).Round(time.Millisecond).String())
	if len(x.unacked) > 0 {
		// Their users are off wherever a server can be reached.
		x.host.Fenced(ctx, x.shard, x.seats, x.unacked)
	}
	return x.hit("finished")
}

// ended gives the last phase its duration.
func ended(phases []topology.PhaseTime, now time.Time) []topology.PhaseTime {
	if n := len(phases); n > 0 && phases[n-1].Duration == 0 {
		phases[n-1].Duration = max(1, now.Sub(phases[n-1].StartedAt))
	}
	return phases
}

func finishedEvent(r *topology.Report) topology.Event {
	e := topology.Event{Time: time.Now(), Shard: r.Shard, Node: r.NewMaster, Epoch: r.EndEpoch, Report: r, Severity: topology.Info}
	switch {
	case r.Kind == topology.Switchover && r.Succeeded:
		e.Kind, e.Message = "SwitchoverFinished", fmt.Sprintf("%s: %s took over from %s", r.Shard, r.NewMaster, r.OldMaster)
	case r.Kind == topology.Switchover:
		e.Kind, e.Severity = "SwitchoverRolledBack", topology.Warning
		e.Message = fmt.Sprintf("%s: %s stays master: %s", r.Shard, r.NewMaster, r.Error)
	default:
		e.Kind, e.Severity = "FailoverFinished", topology.Warning
		e.Message = fmt.Sprintf("%s: %s replaces %s (%s)", r.Shard, r.NewMaster, r.OldMaster, r.Cause)
		again := r.NewMaster == r.OldMaster && slices.ContainsFunc(r.Candidates, func(c topology.Candidate) bool { return c.Restarted && c.Node == r.NewMaster })
		if again {
			e.Message = fmt.Sprintf("%s: %s restarted and is the master again", r.Shard, r.NewMaster)
		}
		switch {
		case r.Lost != "":
			e.Severity = topology.Critical
			e.Message += "; lost is " + r.Lost
		case r.OffsetGap > 0:
			e.Message += "; lost are the last " + settings.DescribeBytes(r.OffsetGap) + " that the old master wrote"
		case again:
			e.Severity = topology.Info
			e.Message = fmt.Sprintf("%s: %s restarted with its data and is the master again", r.Shard, r.NewMaster)
		}
	}
	return e
}

func (x *Executor) policy() topology.Policy {
	c := x.host.Record()
	return c.Policy
}

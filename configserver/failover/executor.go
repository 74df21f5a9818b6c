package failover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/faultpoint"
	"github.com/basalt-redis/basalt/internal/lifecycle"
)

// Phases of operations, as they are persisted.
const (
	// Failover.
	Fencing   = "fencing"
	Electing  = "electing"
	Promoting = "promoting"
	// Switchover: freezing, promoting; electing when promoting went wrong.
	Freezing = "freezing"
	// CatchingUp is a phase of the report only: until the promotion is
	// committed, a switchover that is found frozen is begun again from there.
	CatchingUp = "catching-up"
	// Rotation.
	Granting  = "granting"
	Draining  = "draining"
	Finishing = "finishing"
)

// ErrSuperseded: the shard's record no longer holds this operation; somebody
// took it over or it ended.
var ErrSuperseded = errors.New("the operation was superseded")

// Host is the loop that runs an operation. Its methods may be called from any
// goroutine.
type Host interface {
	// Record is the newest committed record; it must not be changed.
	Record() topology.Cluster
	// Commit changes a clone of the newest record, which has the next epoch
	// already, and commits it with the events that change returns. It returns
	// when the commit is certain and was sent to the proxies. change runs again
	// when the record changed meanwhile; its error is returned as it is.
	Commit(ctx context.Context, reason string, change Change) (topology.Cluster, error)
	// Tell keeps events without an epoch.
	Tell(ctx context.Context, events ...topology.Event)
	// AwaitAcks waits until every member that may still use a shard acked an
	// epoch; at most connected for members whose stream is open, and away for the
	// others. It returns who did not, in order, and with them those who lost their
	// seat, for whom it does not wait.
	AwaitAcks(ctx context.Context, shard string, epoch uint64, connected, away time.Duration) []string
	// ShutOut takes the seats of members away by a commit: no server may let them in
	// any more, and AwaitAcks does not wait for them, until they show that they obey.
	// With gently, the connections of those whose stream is open may stay for a
	// moment, where nobody removes them at once.
	ShutOut(ctx context.Context, members []string, gently bool) error
	// Fenced tells that members were shut out of a shard, whose master lets in only
	// who has a seat in these versions. Those that have it in one of before need not
	// ack for the shard any more, and are forgotten once that holds for every shard,
	// unless they are connected.
	Fenced(ctx context.Context, shard string, seats []uint32, members []string)
	// Observe is what is known about a shard now; nothing once the loop ended.
	Observe(shard string) health.Observations
	// NodeUsers are the users of applications that nodes have for them now.
	NodeUsers() []redisadmin.NodeUser
	// Credentials are the secrets as read last.
	Credentials() *credentials.Set
	// AdminPasswords are what a node may take: those on file, and the one that it took
	// last.
	AdminPasswords(node string) []string
	// Elsewhere says that a process is admitted as a node of another cluster, for
	// people; "" when it is not.
	Elsewhere(ctx context.Context, runID string) (string, error)
	// Resolve looks up what an address means now (resolve.Func).
	Resolve(ctx context.Context, address string) ([]string, error)
	// Owner is the ownership that the executors of this host act for.
	Owner() *Owner
	// Owned fails with store.ErrLeaseLost when this Configserver must stop.
	Owned() error
	// Measured takes the duration of a finished phase.
	Measured(kind topology.OperationKind, phase string, took time.Duration)
	// Faults are the fault points that its operations pass.
	Faults() *faultpoint.Points
}

// Change alters a record that is about to be committed.
type Change func(c *topology.Cluster) ([]topology.Event, error)

// Executor does things to one shard, one at a time.
type Executor struct {
	life  context.Context // its connections close with it
	host  Host
	log   *slog.Logger
	shard string

	mu    sync.Mutex
	conns map[string]*redisadmin.Conn // by node id

	// Of the operation that is running.
	op      string
	kind    topology.OperationKind
	phases  []topology.PhaseTime
	unacked []string // see unacked.go
	unnamed int      // how many more there were
	fenced  bool
	// seats are those that the master was given.
	seats []uint32
	// told is what a blocked election came to when that was committed last.
	told string
	// failed are nodes that could not be promoted, the last one last; failures counts
	// the attempts.
	failed   []string
	failures int
}

// NewExecutor makes an executor for one shard; when ctx ends, so do its
// connections to the nodes. Close it.
func NewExecutor(ctx context.Context, host Host, shard string, log *slog.Logger) *Executor {
	return &Executor{life: ctx, host: host, log: log, shard: shard, conns: map[string]*redisadmin.Conn{}}
}

// Close ends its connections to the nodes.
func (x *Executor) Close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.conns {
		c.Close()
	}
	clear(x.conns)
}

// Run continues the shard's persisted operation until it ended. It may be
// begun by this Configserver or by one that died anywhere in it. An error
// leaves the operation where it is; run it again.
func (x *Executor) Run(ctx context.Context) error {
	for {
		c := x.host.Record()
		s := c.Shard(x.shard)
		if s == nil || s.Operation == nil {
			return nil
		}
		op := s.Operation
		if x.op != op.ID {
			x.op, x.kind, x.told, x.failed, x.failures = op.ID, op.Kind, "", nil, 0
			x.phases, x.fenced = slices.Clone(op.Phases), op.Fenced
			x.recall(op)
		}
		var err error
		switch {
		case op.Kind == topology.Rotation:
			err = x.rotate(ctx, s)
		case op.Phase == Freezing:
			err = x.freeze(ctx, &c, s)
		case op.Phase == Fencing:
			err = x.fence(ctx, s)
		case op.Phase == Electing:
			err = x.elect(ctx)
		case op.Phase == Promoting:
			err = x.promote(ctx, s)
		default:
			err = fmt.Errorf("operation %s is in phase %q, which this version does not know", op.ID, op.Phase)
		}
		if errors.Is(err, ErrSuperseded) {
			continue
		}
		if err != nil {
			return err
		}
	}
}

// hit is a fault point of the operation that runs.
func (x *Executor) hit(step string) error {
	return x.host.Faults().Hit(string(x.kind) + "/" + step)
}

// maxPhases is how many phases of an operation are kept: the first and the last ones.
const maxPhases = 32

// enter begins a phase of the report and ends the one before.
func (x *Executor) enter(phase string) {
	now := time.Now()
	if n := len(x.phases); n > 0 && x.phases[n-1].Duration == 0 {
		last := &x.phases[n-1]
		if last.Name == phase {
			return
		}
		last.Duration = max(1, now.Sub(last.StartedAt))
		x.host.Measured(x.kind, last.Name, last.Duration)
	}
	if phase != "" {
		x.phases = append(x.phases, topology.PhaseTime{Name: phase, StartedAt: now})
	}
	if n := len(x.phases); n > maxPhases {
		x.phases = slices.Delete(x.phases, maxPhases/2, maxPhases/2+n-maxPhases)
	}
}

// commit changes this operation's shard, if the operation is still the one.
func (x *Executor) commit(ctx context.Context, reason string, change func(c *topology.Cluster, s *topology.Shard, op *topology.Operation) ([]topology.Event, error)) error {
	_, err := x.host.Commit(ctx, x.shard+": "+reason, func(c *topology.Cluster) ([]topology.Event, error) {
		s := c.Shard(x.shard)
		if s == nil || s.Operation == nil || s.Operation.ID != x.op {
			return nil, ErrSuperseded
		}
		s.Operation.Phases = slices.Clone(x.phases)
		s.Operation.Fenced = x.fenced
		x.record(s.Operation)
		return change(c, s, s.Operation)
	})
	return err
}

// conn returns the connection to the admitted incarnation of a node.
func (x *Executor) conn(ctx context.Context, n *topology.Node, timeout time.Duration) (*redisadmin.Conn, error) {
	x.mu.Lock()
	c := x.conns[n.ID]
	x.mu.Unlock()
	if c != nil && c.Info.RunID == n.Incarnation {
		return c, c.Begin(ctx)
	}
	dial, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := redisadmin.DialIncarnation(dial, n.Endpoint(), x.host.AdminPasswords(n.ID), n.Incarnation)
	if err != nil {
		return nil, err
	}
	return x.keep(n.ID, c), c.Begin(dial)
}

// guard ties a connection to the right to use it: it ends with ctx, and every
// command that changes the server is preceded by a look at the lease. A process
// that was stopped while it waited for an answer must not go on by what it knew
// before. Stopped between the look and the command, it can still send that one, to
// a server that executes it only while no later owner has changed anything there
// (owner.go).
func (x *Executor) guard(ctx context.Context, c *redisadmin.Conn) *redisadmin.Conn {
	c.Guard = x.host.Owned
	c.First = func(ctx context.Context) error { return x.takeOver(ctx, c) }
	return c.Bind(ctx)
}

// keep makes c the connection to a node.
func (x *Executor) keep(node string, c *redisadmin.Conn) *redisadmin.Conn {
	x.guard(x.life, c)
	x.mu.Lock()
	defer x.mu.Unlock()
	if before := x.conns[node]; before != nil && before != c {
		before.Close()
	}
	x.conns[node] = c
	return c
}

// drop closes the connection to a node after an error on it.
func (x *Executor) drop(node string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.conns[node]; c != nil {
		c.Close()
		delete(x.conns, node)
	}
}

// each calls f with the connections to nodes in parallel, each bounded by a
// timeout, and returns the errors by node id.
func (x *Executor) each(ctx context.Context, nodes []topology.Node, timeout time.Duration, f func(ctx context.Context, n *topology.Node, c *redisadmin.Conn) error) map[string]error {
	var mu sync.Mutex
	errs := map[string]error{}
	lifecycle.Parallel(len(nodes), 0, func(i int) {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		c, err := x.conn(bounded, &nodes[i], timeout)
		if err == nil {
			err = f(bounded, &nodes[i], c)
		}
		if err != nil {
			x.drop(nodes[i].ID)
			mu.Lock()
			errs[nodes[i].ID] = err
			mu.Unlock()
		}
	})
	for _, id := range slices.Sorted(maps.Keys(errs)) {
		x.log.Warn("node was left as it is", "node", id, "error", errs[id])
	}
	return errs
}

// report tells everything about the operation that is ending.
func (x *Executor) report(s *topology.Shard, op *topology.Operation, endEpoch uint64) *topology.Report {
	r := &topology.Report{Operation: op.Clone(), Shard: s.ID, NewMaster: s.Master, OffsetGap: -1, EndEpoch: endEpoch}
	for _, c := range op.Candidates {
		if c.Chosen && c.Node == s.Master && c.Offset >= 0 && op.OldMasterOffset >= 0 {
			r.OffsetGap = max(0, op.OldMasterOffset-c.Offset)
		}
	}
	return r
}

// secrets are what the nodes of a shard must know.
type secrets struct {
	generation  uint64
	proxies     redisadmin.Proxies
	replication string
	// users of applications, all of them; held are the seats that proxies have.
	users []redisadmin.NodeUser
	held  []int
}

// secretsOf derives the secrets of a generation of a shard.
func (x *Executor) secretsOf(shard, secretID string, generation uint64) (secrets, error) {
	set, r, users, o := x.host.Credentials(), x.host.Record(), x.host.NodeUsers(), x.host.Observe(shard)
	key, err := set.SeatKey(secretID, r.UID, shard, generation)
	if err != nil {
		return secrets{}, err
	}
	scripts, err := set.ScriptPassword(secretID, r.UID, shard, generation)
	if err != nil {
		return secrets{}, err
	}
	replication, err := set.ReplicationPassword(secretID, r.UID, shard)
	return secrets{generation, redisadmin.Proxies{
		Generation: generation, Seats: r.Seats, Key: key, Scripts: scripts,
		Leaving: o.Leaving, Users: users[:min(usersAtOnce, len(users))],
	}, replication, users, o.Held}, err
}

// urgent are the secrets while proxies wait: users are made for those that there are,
// and none stays for one that may write by an older epoch.
func (s secrets) urgent() secrets {
	s.proxies.Held, s.proxies.Leaving = s.held, nil
	return s
}

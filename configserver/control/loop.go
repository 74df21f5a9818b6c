package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/resolve"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/faultpoint"
)

// The loop of one cluster: observe, decide, commit, act, observe.
//
// One goroutine, run by Run, owns everything that changes: what was observed,
// the members, what is being done. It never waits for a network or a store:
//
//   - Probers and proxies' streams leave what they saw in an inbox.
//   - Deciding is pure (package failover) and runs on what is known.
//   - A commit runs in a goroutine of its own, one at a time; changes that are
//     asked for meanwhile wait and share the next one.
//   - Whatever touches servers runs as an activity, at most one per shard.
//
// Everything else calls do, which runs a function on that goroutine.
//
// When the ownership is lost, the loop's context ends, and with it every
// connection to a server that an activity holds.

// ErrStopped: the loop ended or is ending; ask the cluster's new owner.
var ErrStopped = errors.New("the cluster's loop has stopped here")

// Config is what a loop needs.
type Config struct {
	// Cluster is the name.
	Cluster string
	// ID is the id of this Configserver, for reports.
	ID string
	// Store is read; every change goes through Ownership.
	Store     store.Store
	Ownership store.Ownership
	// Credentials opens the cluster's credentials files anew.
	Credentials func() (*credentials.Set, error)
	// Resolve looks up host names of nodes; nil for the resolver of this machine.
	Resolve resolve.Func
	// Logger gets the cluster and the shard bound to it.
	Logger *slog.Logger
	// Metrics are shared by all loops of a process; nil for none.
	Metrics *Metrics
	// Faults are the fault points of this loop; nil for those of the process.
	Faults *faultpoint.Points
}

const (
	// tick is how often time alone is a reason to decide.
	tick = 25 * time.Millisecond
	// callsFirst is how many calls at most come before a look at shards.
	callsFirst = 256
	// storeTimeout bounds one call of the store.
	storeTimeout = 5 * time.Second
)

// Loop runs one cluster. It implements API.
type Loop struct {
	cfg Config
	log *slog.Logger
	m   *Metrics

	record atomic.Pointer[topology.Cluster]
	// older is why the record is older than what somebody knows; nil when it is not.
	older atomic.Pointer[string]
	// nodeUsers is of the record, never nil.
	nodeUsers atomic.Pointer[nodeUsers]
	deleted   atomic.Bool
	secrets   atomic.Pointer[credentials.Set]
	owner     *failover.Owner
	calls     chan func()
	stopped   chan struct{}
	inbox     inbox
	// memberMu orders what is written to the store about a member and what is
	// known here. The loop's goroutine never takes it.
	memberMu sync.Mutex

	// life ends when the loop must stop. Set by Run before anything else.
	life    context.Context
	end     context.CancelCauseFunc
	workers sync.WaitGroup

	// Owned by the loop's goroutine.
	obs      health.Observations
	probers  map[string]*running
	byNode   sync.Map // the probers, for everybody: *health.Prober by node id
	lastTick time.Time
	ticker   *time.Ticker
	every    time.Duration // of ticker
	// places are where nodes are in the record, shards where shards are; looks, by
	// shard id, how it was found when it was looked at last, and excited how many are
	// not calm (calm.go).
	places     map[string]place
	shards     map[string]int
	looks      map[string]look
	excited    int
	spare      time.Duration // between two looks at a shard that is not calm, at least
	quietUntil time.Time
	heard      bool              // see listened
	ahead      ahead             // of the record
	newer      map[string]string // by shard: what a server knows that the record does not
	pending    []*commitRequest
	committing bool
	view       *Common
	proxies    []Proxy // those connected now, in order of their ids
	members    map[string]*member
	waiters    []*ackWaiter
	activities map[string]*activity
	notBefore  map[string]time.Time // by shard: retry after an error
	failures   map[string]string    // by shard: the error of the activity that failed last
	reserved   map[string]int       // by shard: calls that wait for their turn
	retries    map[string]retry     // by node: remedies that failed
	minSet     map[string]minSetting
	told       map[string]map[problemKey]*problemState // by shard
	problems   map[string][]failoverProblem
	reports    map[string]chan topology.Report // by operation id
	// credentials are by shard, of the newest view.
	credentials map[string]derivedCredential
	gaugedAt    time.Time
	// rereadAt is when the credentials files were read last, reading: they are now;
	// filesLack is what is wrong with them, "" for nothing.
	rereadAt  time.Time
	reading   bool
	filesLack string
	// usersAt is by node when it was last given the users of applications, and
	// usersRefused what it said about those that it did not take.
	usersAt      map[string]time.Time
	usersRefused map[string]string
	// tending are the shards whose in-sync set is being committed.
	tending map[string]bool
	// settingsAt is by node what it was given of the record's settings.
	settingsAt map[string]settingsOf
	// out are the members without their seat; leaving are the seats of before that
	// nodes may keep for a while. seatsVersion grows whenever seats change, seatsAt is
	// by shard the one that its nodes were given, and seating how many shards are given
	// it now. growing, forgetting, dismissing: seats are made, members that were shut out
	// everywhere are forgotten, and those that are away for too long are shut out.
	out                             []string
	leaving                         []leaving
	seatsVersion                    uint64
	seatsAt                         map[string]uint64
	seating                         atomic.Int32
	growing, forgetting, dismissing bool
	lookedAt                        time.Time // for proxies that are away

	// settingTurn holds the right to change settings; settingNodes, the
	// connections for it, belongs to whoever has that.
	settingTurn  chan struct{}
	settingNodes *failover.Executor
	others       others
	// reconciling holds the turns of reconcile.
	reconciling chan struct{}
}

var _ API = (*Loop)(nil)

// New reads the cluster's record and makes its loop, which does nothing until
// Run.
func New(cfg Config) (*Loop, error) {
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Faults == nil {
		cfg.Faults = faultpoint.Process()
	}
	if cfg.Resolve == nil {
		cfg.Resolve = resolve.System
	}
	cfg.Resolve = resolve.Cached(cfg.Resolve)
	l := &Loop{
		cfg:        cfg,
		log:        cfg.Logger.With("cluster", cfg.Cluster),
		m:          cfg.Metrics,
		owner:      failover.NewOwner(cfg.ID, newID()),
		calls:      make(chan func()),
		stopped:    make(chan struct{}),
		inbox:      inbox{probes: map[string]arrival{}, wake: make(chan struct{}, 1)},
		probers:    map[string]*running{},
		members:    map[string]*member{},
		activities: map[string]*activity{},
		notBefore:  map[string]time.Time{},
		failures:   map[string]string{},
		reserved:   map[string]int{},
		retries:    map[string]retry{},
		minSet:     map[string]minSetting{},
		usersAt:    map[string]time.Time{}, usersRefused: map[string]string{},
		settingsAt: map[string]settingsOf{}, settingTurn: make(chan struct{}, 1), reconciling: make(chan struct{}, reconcileAtOnce),
		tending:  map[string]bool{},
		seatsAt:  map[string]uint64{},
		told:     map[string]map[problemKey]*problemState{},
		problems: map[string][]failoverProblem{},
		reports:  map[string]chan topology.Report{},
		newer:    map[string]string{},
		places:   map[string]place{},
		shards:   map[string]int{},
		looks:    map[string]look{},
		view:     &Common{}, credentials: map[string]derivedCredential{},
	}
	l.obs = health.Observations{ID: cfg.ID, Nodes: map[string]health.Node{}, Histories: map[string]health.History{},
		CaughtUp: map[string]time.Time{}, Behind: map[string]time.Time{}, Unlinked: map[string]time.Time{}, Held: []int{}}
	set, err := cfg.Credentials()
	if err != nil {
		return nil, err
	}
	l.secrets.Store(set)
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	c, err := cfg.Store.Cluster(ctx, cfg.Cluster)
	if err != nil {
		return nil, fmt.Errorf("read cluster %s: %w", cfg.Cluster, err)
	}
	c.Complete()
	l.wantUsers(&c, nil)
	l.record.Store(&c)
	return l, nil
}

// Run owns the cluster until ctx ends (nil), the ownership is lost
// (store.ErrLeaseLost) or the cluster was deleted (nil).
func (l *Loop) Run(ctx context.Context) error {
	l.life, l.end = context.WithCancelCause(ctx)
	err := l.run()
	l.end(ErrStopped)
	l.workers.Wait()
	close(l.stopped)
	l.shutStreams()
	l.m.forget(l.cfg.Cluster)
	if l.deleted.Load() {
		return nil // which ends the ownership, too
	}
	return err
}

func (l *Loop) run() error {
	if err := l.load(); err != nil {
		return err
	}
	l.log.Info("runs the cluster", "epoch", l.Topology().Epoch)
	l.ticker, l.every = time.NewTicker(tick), tick
	defer l.ticker.Stop()
	l.lastTick = time.Now()
	l.obs.Started = l.lastTick
	for {
		select {
		case f := <-l.calls:
			f()
		case <-l.inbox.wake:
			l.hearCalls()
			l.decide(l.takeIn(false))
		case <-l.ticker.C:
			l.hearCalls()
			l.ticked()
		case <-l.cfg.Ownership.Lost():
			l.log.Warn("lost the cluster: stops at once")
			l.end(store.ErrLeaseLost)
			return store.ErrLeaseLost
		case <-l.life.Done():
			if cause := context.Cause(l.life); errors.Is(cause, store.ErrLeaseLost) {
				return cause
			}
			return nil
		}
	}
}

// hearCalls runs what others wait for. Looking at many shards takes long: who waits
// (for an ack to be noted, for a commit to begin) comes before that, and not by chance.
func (l *Loop) hearCalls() {
	for range callsFirst {
		select {
		case f := <-l.calls:
			f()
		default:
			return
		}
	}
}

// load takes over what the loop before left: the record, the members, and the
// events that were already told.
func (l *Loop) load() error {
	ctx, cancel := context.WithTimeout(l.life, storeTimeout)
	defer cancel()
	c, err := l.cfg.Store.Cluster(ctx, l.cfg.Cluster)
	if err != nil {
		return fmt.Errorf("read cluster %s: %w", l.cfg.Cluster, err)
	}
	members, err := l.cfg.Store.Members(ctx, l.cfg.Cluster)
	if err != nil {
		return fmt.Errorf("read the members of cluster %s: %w", l.cfg.Cluster, err)
	}
	events, err := l.cfg.Store.Events(ctx, l.cfg.Cluster, 0, store.KeepEvents)
	if err != nil {
		return fmt.Errorf("read the events of cluster %s: %w", l.cfg.Cluster, err)
	}
	now := time.Now()
	for _, m := range members {
		// Nobody knows what they acked until they come back.
		l.members[m.ID] = &member{Member: m, since: now}
	}
	l.recallTold(events)
	c.Complete()
	l.setRecord(c)
	l.noteSeats()
	return nil
}

// do runs f on the loop's goroutine and waits until it has run.
func (l *Loop) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case l.calls <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-l.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// later runs f on the loop's goroutine and does not wait; nothing happens when
// the loop is ending.
func (l *Loop) later(f func()) {
	select {
	case l.calls <- f:
	case <-l.life.Done():
	}
}

// spawn runs f in a goroutine that Run waits for. A panic in it ends this loop
// and no other; whoever runs the loop makes it anew.
func (l *Loop) spawn(f func()) {
	l.workers.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				l.log.Error("a worker of the loop panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				l.end(fmt.Errorf("a worker of the loop panicked: %v", p))
			}
		}()
		f()
	})
}

// Topology implements API.
func (l *Loop) Topology() topology.Cluster { return *l.record.Load() }

// Owned implements failover.Host.
func (l *Loop) Owned() error {
	select {
	case <-l.cfg.Ownership.Lost():
		return store.ErrLeaseLost
	default:
	}
	if o, ok := l.cfg.Ownership.(store.Punctual); ok && o.Expired() {
		return store.ErrLeaseLost
	}
	if err := l.life.Err(); err != nil {
		return err
	}
	return l.stands()
}

// Owner implements failover.Host.
func (l *Loop) Owner() *failover.Owner { return l.owner }

// Faults implements failover.Host.
func (l *Loop) Faults() *faultpoint.Points { return l.cfg.Faults }

// Resolve implements failover.Host.
func (l *Loop) Resolve(ctx context.Context, address string) ([]string, error) {
	return l.cfg.Resolve(ctx, address)
}

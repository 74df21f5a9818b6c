// Package ownership decides which clusters' loops run in this process, and
// runs them.
//
// Goal: every cluster's loop runs on exactly one live Configserver, the
// clusters are spread evenly, a dead Configserver's clusters run elsewhere as
// soon as its lease ends, and nothing moves without a reason.
//
//  1. Join: hold a session, that is a lease. Without one nothing runs here.
//  2. Look at live replicas, clusters and owners, whenever the store signals a
//     change and every Interval besides.
//  3. Claim each free cluster for which this replica is placed best. The
//     second best waits one Grace before it claims too, the third two, and so
//     on: a replica that is alive but does not claim must not leave a cluster
//     alone.
//  4. Run the loop of each claimed cluster until the claim is lost. A loop that
//     panics or fails is started again after a pause; others do not notice.
//  5. Hand over: when a better placed replica has been there for Settle and no
//     operation is at work on the cluster, stop the loop and release. When the
//     other one does not take it and it comes back, wait twice as long next
//     time. One cluster moves at a time.
//  6. When the session is lost, stop every loop at once and join again. When
//     the process ends, stop the loops, release the clusters and close the
//     session, so that the others need not wait for the lease to end.
//
// None of this is needed for safety: two loops that both believe they own a
// cluster cannot both commit (package store).
package ownership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Loop is the control loop of one cluster.
type Loop interface {
	control.API
	// Run owns the cluster until ctx ends, the ownership is lost or the cluster
	// is deleted. After any other return it is made anew and run again.
	Run(ctx context.Context) error
}

// Config is what a Manager needs; Store, Self and NewLoop must be set. Zero
// durations take the defaults named here.
type Config struct {
	Store store.Store
	Self  store.Replica
	// NewLoop makes the loop of a cluster that was claimed.
	NewLoop func(cluster string, own store.Ownership) (Loop, error)
	// Changed is told when a cluster's loop begins or ends here; it may be nil.
	Changed func(cluster string, running bool)
	Logger  *slog.Logger
	// Metrics may be nil.
	Metrics *Metrics
	// Interval between looks at the store without a signal; 2 s.
	Interval time.Duration
	// Grace that each better placed replica gets to claim first; 500 ms.
	Grace time.Duration
	// Settle is how long a better placed replica must have been there before a
	// cluster is handed to it; 5 s.
	Settle time.Duration
	// StopTimeout bounds how long a loop may take to stop; 5 s. The cluster is
	// released even when it has not: its writes are refused from then on.
	StopTimeout time.Duration
}

// Manager runs the loops of this replica's clusters.
type Manager struct {
	cfg Config
	log *slog.Logger
	// runners, seen, free, given and handedOver belong to the goroutine of Run.
	runners map[string]*runner
	// seen is when each replica was first seen, free since when a cluster has
	// been without an owner.
	seen, free map[string]time.Time
	// given are the clusters that were handed over, to know those that come back.
	given      map[string]handover
	handedOver time.Time
	// wake asks for a look at the store before the next Interval.
	wake chan struct{}

	mu sync.Mutex
	// loops are the running ones, for Local.
	loops map[string]Loop
	// problem is why this replica is not ready, nil when it is.
	problem error
}

// handover is when a cluster was last handed over, and how long a better placed
// replica must have been there before it is again.
type handover struct {
	at     time.Time
	settle time.Duration
}

// New makes a Manager, which does nothing until Run.
func New(cfg Config) *Manager {
	setDefault(&cfg.Interval, 2*time.Second)
	setDefault(&cfg.Grace, 500*time.Millisecond)
	setDefault(&cfg.Settle, 5*time.Second)
	setDefault(&cfg.StopTimeout, 5*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	return &Manager{
		cfg:     cfg,
		log:     cfg.Logger,
		runners: map[string]*runner{},
		seen:    map[string]time.Time{},
		free:    map[string]time.Time{},
		given:   map[string]handover{},
		wake:    make(chan struct{}, 1),
		loops:   map[string]Loop{},
		problem: errors.New("no session with the store yet"),
	}
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Local returns the loop of a cluster when it runs here now.
func (m *Manager) Local(cluster string) (control.API, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	loop, ok := m.loops[cluster]
	return loop, ok
}

// Loops are those that run here now, by cluster.
func (m *Manager) Loops() map[string]control.API {
	m.mu.Lock()
	defer m.mu.Unlock()
	loops := make(map[string]control.API, len(m.loops))
	for name, loop := range m.loops {
		loops[name] = loop
	}
	return loops
}

// Ready says why this replica cannot take part now, nil when it can: it holds
// a session and the store answered when last asked.
func (m *Manager) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.problem
}

func (m *Manager) setProblem(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problem = err
}

// Backoff of joining, and of loops that fail.
const (
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
	joinPause  = time.Second
)

// Run joins and runs loops until ctx ends, then hands everything over. It
// returns nil; while the store is away it tries again.
func (m *Manager) Run(ctx context.Context) error {
	pause := firstPause
	for ctx.Err() == nil {
		session, err := m.cfg.Store.Join(ctx, m.cfg.Self)
		if err != nil {
			m.setProblem(fmt.Errorf("cannot join: %w", err))
			if pause == firstPause && ctx.Err() == nil {
				m.log.Warn("cannot join; will try again until it works", "error", err)
			}
			sleep(ctx, pause)
			pause = min(2*pause, joinPause)
			continue
		}
		pause = firstPause
		m.log.Info("joined", "id", m.cfg.Self.ID, "address", m.cfg.Self.Address)
		m.cfg.Metrics.session.Set(1)
		m.cfg.Metrics.sessions.Inc()
		m.serve(ctx, session)
		m.cfg.Metrics.session.Set(0)
	}
	return nil
}

// serve works under one session until it is lost or ctx ends.
func (m *Manager) serve(ctx context.Context, session store.Session) {
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	signals := m.cfg.Store.Watch(watching)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			m.leave(session)
			return
		case <-session.Lost():
			m.setProblem(errors.New("the lease was lost; joining again"))
			m.log.Warn("session lost: every loop stops here until this configserver has joined again")
			for _, r := range m.runners {
				r.stop()
			}
			// Whatever it still holds; a lost lease is no error.
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.Grace)
			_ = session.Close(late)
			cancel()
			return
		case _, open := <-signals:
			if !open {
				signals = nil // the store was closed; the session will end
			}
		case <-m.wake:
		case <-timer.C:
		}
		timer.Reset(m.look(ctx, session))
	}
}

// look compares what runs here with what should, and returns when to look
// again at the latest.
func (m *Manager) look(ctx context.Context, session store.Session) time.Duration {
	for name, r := range m.runners {
		if r.ended() {
			m.forget(name, r)
		}
	}
	replicas, err := m.cfg.Store.Replicas(ctx)
	var clusters []topology.Cluster
	if err == nil {
		clusters, err = m.cfg.Store.Clusters(ctx)
	}
	if err != nil {
		if ctx.Err() == nil {
			if m.Ready() == nil {
				m.log.Warn("cannot read the store; loops go on while the lease lasts", "error", err)
			}
			m.setProblem(fmt.Errorf("the store does not answer: %w", err))
		}
		return firstPause
	}
	m.setProblem(nil)
	now := time.Now()
	m.notice(replicas, clusters, now)
	again := m.cfg.Interval
	for i := range clusters {
		if ctx.Err() != nil {
			return 0
		}
		name := clusters[i].Name
		rank, place := Rank(replicas, name), 0
		for place < len(rank) && rank[place].ID != m.cfg.Self.ID {
			place++
		}
		if r := m.runners[name]; r != nil {
			again = min(again, m.considerHandover(ctx, r, rank, place, now))
			continue
		}
		wait, err := m.considerClaim(ctx, session, name, place, now)
		if err != nil {
			m.log.Warn("cannot claim", "cluster", name, "error", err)
		}
		again = min(again, wait)
	}
	return again
}

// notice remembers since when replicas have been there and forgets what is gone.
func (m *Manager) notice(replicas []store.Replica, clusters []topology.Cluster, now time.Time) {
	seen := map[string]time.Time{}
	for _, r := range replicas {
		since, ok := m.seen[r.ID]
		if !ok {
			since = now
		}
		seen[r.ID] = since
	}
	m.seen = seen
	exists := map[string]bool{}
	for i := range clusters {
		exists[clusters[i].Name] = true
	}
	for name := range m.free {
		if !exists[name] {
			delete(m.free, name)
		}
	}
	for name := range m.given {
		if !exists[name] {
			delete(m.given, name)
		}
	}
	m.cfg.Metrics.replicas.Set(float64(len(replicas)))
}

// considerClaim claims a cluster whose loop does not run here, when it is this
// replica's turn. It returns when to look again.
func (m *Manager) considerClaim(ctx context.Context, session store.Session, name string, place int, now time.Time) (time.Duration, error) {
	if place > 0 {
		owner, err := m.cfg.Store.Owner(ctx, name)
		switch {
		case err == nil && owner.ID == m.cfg.Self.ID:
			// Ours by a claim or a release of which nobody knows how it ended;
			// Claim finds out.
		case err == nil:
			delete(m.free, name)
			return m.cfg.Interval, nil
		case !errors.Is(err, store.ErrNotFound):
			return firstPause, err
		default:
			since, ok := m.free[name]
			if !ok {
				since = now
				m.free[name] = now
			}
			if wait := since.Add(time.Duration(place) * m.cfg.Grace).Sub(now); wait > 0 {
				return wait, nil
			}
		}
	}
	own, err := session.Claim(ctx, name)
	switch {
	case err == nil:
	case errors.Is(err, store.ErrOwned), errors.Is(err, store.ErrNotFound):
		return m.cfg.Interval, nil
	case errors.Is(err, store.ErrLeaseLost), ctx.Err() != nil:
		return m.cfg.Interval, nil // noticed by serve
	default:
		return firstPause, err
	}
	delete(m.free, name)
	if last, ok := m.given[name]; ok && now.Sub(last.at) < time.Duration(place+1)*m.cfg.Grace+m.cfg.Interval {
		// It comes straight back: whoever is placed better did not take it.
		last.settle = min(2*last.settle, 10*time.Minute)
		m.given[name] = last
	} else {
		delete(m.given, name)
	}
	m.cfg.Metrics.claims.Inc()
	m.log.Info("claimed", "cluster", name)
	m.start(ctx, name, own)
	return m.cfg.Interval, nil
}

// considerHandover releases a cluster that runs here to a better placed
// replica, when there is one and nothing speaks against it. It returns when to
// look again.
func (m *Manager) considerHandover(ctx context.Context, r *runner, rank []store.Replica, place int, now time.Time) time.Duration {
	if place == 0 || place == len(rank) || r.stopping() {
		return m.cfg.Interval
	}
	settle, since := m.cfg.Settle, m.seen[rank[0].ID]
	if last, ok := m.given[r.name]; ok {
		settle = last.settle
		if last.at.After(since) {
			since = last.at
		}
	}
	if wait := since.Add(settle).Sub(now); wait > 0 {
		return min(wait, m.cfg.Interval)
	}
	if wait := m.handedOver.Add(m.cfg.Grace).Sub(now); wait > 0 {
		return wait
	}
	loop, ok := m.Local(r.name)
	if !ok {
		return m.cfg.Interval
	}
	if c := loop.Topology(); c.Operating() || c.Phase == topology.Deleting {
		return m.cfg.Grace
	}
	m.handedOver = now
	m.given[r.name] = handover{at: now, settle: settle}
	m.log.Info("handing over to a better placed configserver", "cluster", r.name, "to", rank[0].ID)
	m.cfg.Metrics.handovers.Inc()
	m.release(ctx, r)
	return m.cfg.Grace
}

// leave hands every cluster over and closes the session.
func (m *Manager) leave(session store.Session) {
	m.setProblem(errors.New("stopping"))
	ctx := context.Background()
	var wg sync.WaitGroup
	for _, r := range m.runners {
		wg.Go(func() { m.giveBack(ctx, r) })
	}
	wg.Wait()
	for name, r := range m.runners {
		m.forget(name, r)
	}
	late, cancel := context.WithTimeout(ctx, m.cfg.StopTimeout)
	defer cancel()
	if err := session.Close(late); err != nil {
		m.log.Warn("the lease will end by itself", "error", err)
	}
	m.log.Info("left", "id", m.cfg.Self.ID)
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Package memstore keeps a store in memory, with the semantics of the etcd
// store: leases that expire, fenced commits, epochs without gaps. It serves
// tests and single-process playgrounds; what it holds ends with the process.
//
// Several Configservers of a test share one Store. ExpireLease and Uncertain
// stand in for what etcd and the network do to the real one.
package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Outcome says what an injected fault does to the next write.
type Outcome int

// Outcomes of an injected fault; both are reported as store.ErrUncertain.
const (
	// Landed: the write happened, its answer was lost.
	Landed Outcome = iota + 1
	// Dropped: the write never arrived.
	Dropped
)

// Options of a Store; zero fields take the store's defaults.
type Options struct {
	// KeepEpochs and KeepEvents limit the history of each cluster.
	KeepEpochs, KeepEvents int
	// KeepScripts and KeepScriptBytes limit the scripts of each cluster.
	KeepScripts     int
	KeepScriptBytes int64
	// CommitBytes is how long a record may be as JSON, with its reason; 0 for no
	// limit.
	CommitBytes int
}

// Store is an in-memory store.Store. Its zero value is not usable; see New.
type Store struct {
	keepEpochs, keepEvents int
	keepScripts            int
	keepScriptBytes        int64
	commitBytes            int

	mu       sync.Mutex
	closed   chan struct{}
	replicas map[string]*session
	owners   map[string]*ownership
	clusters map[string]*cluster
	faults   []Outcome
	// changed closes and is replaced when the set of clusters, owners or
	// replicas changes.
	changed chan struct{}
}

// cluster is everything kept about one cluster.
type cluster struct {
	epochs  []topology.Cluster // oldest first, never empty
	events  []topology.Event   // oldest first
	lastSeq uint64
	members map[string]store.Member
	scripts scripts
	// appended closes and is replaced when an event was added or the cluster
	// was deleted.
	appended chan struct{}
	deleted  bool
}

var _ store.Store = (*Store)(nil)

// New makes an empty store.
func New(o Options) *Store {
	s := &Store{
		commitBytes: o.CommitBytes,
		keepEpochs:  store.KeepEpochs,
		keepEvents:  store.KeepEvents,
		closed:      make(chan struct{}),
		replicas:    map[string]*session{},
		owners:      map[string]*ownership{},
		clusters:    map[string]*cluster{},
		changed:     make(chan struct{}),

		keepScripts: store.KeepScripts, keepScriptBytes: store.KeepScriptBytes,
	}
	if o.KeepScripts > 0 {
		s.keepScripts = o.KeepScripts
	}
	if o.KeepScriptBytes > 0 {
		s.keepScriptBytes = o.KeepScriptBytes
	}
	if o.KeepEpochs > 0 {
		s.keepEpochs = o.KeepEpochs
	}
	if o.KeepEvents > 0 {
		s.keepEvents = o.KeepEvents
	}
	return s
}

// ExpireLease ends the lease of a Configserver as if its keep-alives had not
// arrived: its ownerships are free at once and its late writes are refused.
func (s *Store) ExpireLease(replica string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session := s.replicas[replica]; session != nil {
		s.endLocked(session)
	}
}

// Uncertain makes the following writes through an Ownership (Commit, Append,
// PutMember, RemoveMembers, Delete) fail with store.ErrUncertain, one per
// outcome, in order.
func (s *Store) Uncertain(outcomes ...Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, outcomes...)
}

func (s *Store) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Store) clusterLocked(name string) (*cluster, error) {
	if c := s.clusters[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("cluster %s: %w", name, store.ErrNotFound)
}

// askedLocked is the cluster that a call names, if the call may still be answered.
func (s *Store) askedLocked(ctx context.Context, name string) (*cluster, error) {
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	return s.clusterLocked(name)
}

func (s *Store) check(ctx context.Context) error {
	select {
	case <-s.closed:
		return fmt.Errorf("store is closed")
	default:
		return ctx.Err()
	}
}

// Replicas implements store.Store.
func (s *Store) Replicas(ctx context.Context) ([]store.Replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	var list []store.Replica
	for _, id := range slices.Sorted(maps.Keys(s.replicas)) {
		list = append(list, s.replicas[id].self)
	}
	return list, nil
}

// Owner implements store.Store.
func (s *Store) Owner(ctx context.Context, name string) (store.Replica, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return store.Replica{}, err
	}
	if o := s.owners[name]; o != nil {
		return o.session.self, nil
	}
	return store.Replica{}, fmt.Errorf("owner of cluster %s: %w", name, store.ErrNotFound)
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, c topology.Cluster) error {
	if err := store.CheckCreate(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return err
	}
	if s.clusters[c.Name] != nil {
		return fmt.Errorf("cluster %s: %w", c.Name, store.ErrExists)
	}
	s.clusters[c.Name] = &cluster{
		epochs:   []topology.Cluster{c.Clone()},
		members:  map[string]store.Member{},
		appended: make(chan struct{}),
	}
	s.changedLocked()
	return nil
}

// Cluster implements store.Store.
func (s *Store) Cluster(ctx context.Context, name string) (topology.Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.askedLocked(ctx, name)
	if err != nil {
		return topology.Cluster{}, err
	}
	return c.newest().Clone(), nil
}

// Clusters implements store.Store.
func (s *Store) Clusters(ctx context.Context) ([]topology.Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	var list []topology.Cluster
	for _, name := range slices.Sorted(maps.Keys(s.clusters)) {
		list = append(list, s.clusters[name].newest().Clone())
	}
	return list, nil
}

// Epoch implements store.Store.
func (s *Store) Epoch(ctx context.Context, name string, epoch uint64) (topology.Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.askedLocked(ctx, name)
	if err != nil {
		return topology.Cluster{}, err
	}
	for _, record := range c.epochs {
		if record.Epoch == epoch {
			return record.WithoutUsers().Clone(), nil
		}
	}
	return topology.Cluster{}, fmt.Errorf("epoch %d of cluster %s: %w", epoch, name, store.ErrNotFound)
}

// Epochs implements store.Store.
func (s *Store) Epochs(ctx context.Context, name string, limit int) ([]topology.Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.askedLocked(ctx, name)
	if err != nil {
		return nil, err
	}
	var list []topology.Cluster
	for _, record := range slices.Backward(c.epochs) {
		if len(list) >= limit {
			break
		}
		list = append(list, record.WithoutUsers().Clone())
	}
	return list, nil
}

// Members implements store.Store.
func (s *Store) Members(ctx context.Context, name string) ([]store.Member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.askedLocked(ctx, name)
	if err != nil {
		return nil, err
	}
	var list []store.Member
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		list = append(list, c.members[id])
	}
	return list, nil
}

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, name string, after uint64, limit int) ([]topology.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.askedLocked(ctx, name)
	if err != nil {
		return nil, err
	}
	list := c.after(after)
	return list[max(0, len(list)-limit):], nil
}

// WatchEvents implements store.Store.
func (s *Store) WatchEvents(ctx context.Context, name string, after uint64) (<-chan topology.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.askedLocked(ctx, name)
	if err != nil {
		return nil, err
	}
	out := make(chan topology.Event)
	go func() {
		defer close(out)
		for {
			s.mu.Lock()
			pending, appended, deleted := c.after(after), c.appended, c.deleted
			s.mu.Unlock()
			for _, e := range pending {
				select {
				case out <- e:
					after = e.Sequence
				case <-ctx.Done():
					return
				case <-s.closed:
					return
				}
			}
			if deleted {
				return
			}
			select {
			case <-appended:
			case <-ctx.Done():
				return
			case <-s.closed:
				return
			}
		}
	}()
	return out, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	go func() {
		defer close(out)
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-s.closed:
				return
			}
			s.mu.Lock()
			changed = s.changed
			s.mu.Unlock()
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

// Close implements store.Store: every lease ends.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return nil
	default:
	}
	for _, session := range s.replicas {
		s.endLocked(session)
	}
	close(s.closed)
	return nil
}

func (c *cluster) newest() topology.Cluster { return c.epochs[len(c.epochs)-1] }

// after returns copies of the events with a higher sequence number.
func (c *cluster) after(sequence uint64) []topology.Event {
	var list []topology.Event
	for _, e := range c.events {
		if e.Sequence > sequence {
			list = append(list, e.Clone())
		}
	}
	return list
}

// append numbers and keeps events, at most keep of them.
func (c *cluster) append(events []topology.Event, keep int) {
	for _, e := range events {
		c.lastSeq++
		e = e.Clone()
		e.Sequence, e.Cluster = c.lastSeq, c.newest().Name
		c.events = append(c.events, e)
	}
	c.events = slices.Clone(c.events[max(0, len(c.events)-keep):])
	c.wake()
}

func (c *cluster) wake() {
	close(c.appended)
	c.appended = make(chan struct{})
}

package ownership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/memstore"
	"github.com/basalt-redis/basalt/configserver/store/storetest"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// loop stands for a control loop: it runs until it is told to stop.
type loop struct {
	control.API
	world   *world
	replica string
	cluster string
}

func (l *loop) Topology() topology.Cluster {
	c := storetest.Cluster(l.cluster)
	if l.world.operating.Load() {
		c.Shards[0].Operation = &topology.Operation{ID: "1", Kind: topology.Switchover, Phase: "freezing"}
	}
	return c
}

func (l *loop) Run(ctx context.Context) error {
	l.world.begin(l.cluster, l.replica)
	defer l.world.end(l.cluster)
	if run := l.world.run; run != nil {
		return run(ctx, l)
	}
	<-ctx.Done()
	return nil
}

// world is a store, and what runs where.
type world struct {
	t         *testing.T
	store     *memstore.Store
	operating atomic.Bool
	run       func(context.Context, *loop) error
	// overlap allows a loop to begin before another of the cluster ended.
	overlap bool

	mu      sync.Mutex
	running map[string]string
	begun   map[string]int
}

func newWorld(t *testing.T, clusters ...string) *world {
	w := &world{t: t, store: memstore.New(memstore.Options{}), running: map[string]string{}, begun: map[string]int{}}
	t.Cleanup(func() { _ = w.store.Close() })
	for _, name := range clusters {
		if err := w.store.Create(t.Context(), storetest.Cluster(name)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) begin(cluster, replica string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if other := w.running[cluster]; other != "" && !w.overlap {
		w.t.Errorf("the loop of %s begins at %s while it runs at %s", cluster, replica, other)
	}
	w.running[cluster] = replica
	w.begun[cluster]++
}

func (w *world) end(cluster string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, cluster)
}

// where tells at which replica a cluster's loop runs.
func (w *world) where(cluster string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running[cluster]
}

// times tells how often a cluster's loop was begun.
func (w *world) times(cluster string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begun[cluster]
}

// replica is a manager that runs.
type replica struct {
	*Manager
	stop context.CancelFunc
	done chan struct{}
	log  *bytes.Buffer
	reg  *prometheus.Registry
}

// start runs a manager; the test stops it.
func (w *world) start(id string, change ...func(*Config)) *replica {
	r := &replica{done: make(chan struct{}), log: &bytes.Buffer{}, reg: prometheus.NewRegistry()}
	cfg := Config{
		Store: w.store, Self: store.Replica{ID: id, Address: id + ":7400"},
		NewLoop: func(cluster string, _ store.Ownership) (Loop, error) {
			return &loop{world: w, replica: id, cluster: cluster}, nil
		},
		Logger:  slog.New(slog.NewTextHandler(r.log, nil)),
		Metrics: NewMetrics(r.reg),
	}
	for _, f := range change {
		f(&cfg)
	}
	r.Manager = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		defer close(r.done)
		if err := r.Run(ctx); err != nil {
			w.t.Errorf("%s: %v", id, err)
		}
	}()
	return r
}

// counted adds up the series of a counter.
func (r *replica) counted(t *testing.T, name string) (sum float64) {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func (r *replica) end() {
	r.stop()
	<-r.done
}

// best returns the ids, the best placed for a cluster first.
func best(cluster string, ids ...string) []string {
	var list []store.Replica
	for _, id := range ids {
		list = append(list, store.Replica{ID: id})
	}
	var sorted []string
	for _, r := range Rank(list, cluster) {
		sorted = append(sorted, r.ID)
	}
	return sorted
}

func TestRankSpreadsAndMovesLittle(t *testing.T) {
	three, two := map[string]int{}, 0
	for i := range 3000 {
		name := fmt.Sprintf("cluster-%d", i)
		all := best(name, "a", "b", "c")
		three[all[0]]++
		if without := best(name, "a", "c"); all[0] != "b" && without[0] != all[0] {
			two++
		}
	}
	for id, n := range three {
		if n < 850 || n > 1150 {
			t.Errorf("%s is best for %d of 3000", id, n)
		}
	}
	if two != 0 {
		t.Errorf("%d clusters moved between replicas that stayed", two)
	}
}

func TestEveryClusterRunsOnceAndEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 30 {
			names = append(names, fmt.Sprintf("cluster-%d", i))
		}
		w := newWorld(t, names[:20]...)
		a := w.start("a")
		time.Sleep(time.Second)
		for _, name := range names[:20] {
			if w.where(name) != "a" {
				t.Fatalf("%s runs at %q", name, w.where(name))
			}
		}
		b, c := w.start("b"), w.start("c")
		defer c.end()
		for _, name := range names[20:] {
			if err := w.store.Create(t.Context(), storetest.Cluster(name)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		for _, name := range names {
			if want := best(name, "a", "b", "c")[0]; w.where(name) != want {
				t.Errorf("%s runs at %q, %s is placed better", name, w.where(name), want)
			}
		}
		local := 0
		for _, name := range names {
			for _, r := range []*replica{a, b, c} {
				if _, ok := r.Local(name); ok {
					local++
				}
			}
		}
		if local != len(names) {
			t.Errorf("%d loops are local somewhere, want %d", local, len(names))
		}
		// One that leaves hands over at once; nobody waits for a lease.
		b.end()
		synctest.Wait()
		for _, name := range names {
			if want := best(name, "a", "c")[0]; w.where(name) != want {
				t.Errorf("after b left %s runs at %q, want %s", name, w.where(name), want)
			}
		}
		a.end()
		synctest.Wait()
		for _, name := range names {
			if w.where(name) != "c" {
				t.Errorf("after a left %s runs at %q", name, w.where(name))
			}
		}
	})
}

func TestLeaseLostMovesClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "x", "y", "z")
		a := w.start("a")
		defer a.end()
		time.Sleep(10 * time.Millisecond)
		b := w.start("b", func(c *Config) { c.Settle = time.Hour })
		defer b.end()
		time.Sleep(10 * time.Millisecond)
		// The loops of a and b may overlap for an instant: a learns of the loss
		// while b is told that the clusters are free. Commits are fenced.
		w.overlap = true
		w.store.ExpireLease("a")
		synctest.Wait()
		for _, name := range []string{"x", "y", "z"} {
			if owner, err := w.store.Owner(t.Context(), name); err != nil {
				t.Errorf("%s is owned by nobody: %v", name, err)
			} else if owner.ID != best(name, "a", "b")[0] && owner.ID != "b" {
				t.Errorf("%s is owned by %s", name, owner.ID)
			}
		}
		if a.Ready() != nil {
			t.Errorf("a did not join again: %v", a.Ready())
		}
	})
}

func TestPanicsAndFailuresAreContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "panics", "fails", "returns", "works")
		var runs sync.Map
		w.run = func(ctx context.Context, l *loop) error {
			if _, again := runs.LoadOrStore(l.cluster, true); !again {
				switch l.cluster {
				case "panics":
					panic("hunger")
				case "fails":
					return errors.New("thirst")
				case "returns":
					return nil
				}
			}
			<-ctx.Done()
			return nil
		}
		a := w.start("a")
		time.Sleep(50 * time.Millisecond)
		if _, ok := a.Local("panics"); ok {
			t.Error("a dead loop is local")
		}
		time.Sleep(time.Second)
		for name, want := range map[string]int{"panics": 2, "fails": 2, "returns": 2, "works": 1} {
			if w.times(name) != want || w.where(name) != "a" {
				t.Errorf("%s was begun %d times and runs at %q", name, w.times(name), w.where(name))
			}
		}
		if n := a.counted(t, "basalt_configserver_loop_panics_total"); n != 1 {
			t.Errorf("%v panics counted", n)
		}
		a.end()
		for _, want := range []string{"hunger", "thirst", "goroutine"} {
			if !strings.Contains(a.log.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
	})
}

func TestHandoverWaitsForOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		order := best("x", "a", "b")
		w := newWorld(t, "x")
		worse := w.start(order[1])
		defer worse.end()
		time.Sleep(time.Second)
		w.operating.Store(true)
		better := w.start(order[0])
		defer better.end()
		time.Sleep(time.Minute)
		if w.where("x") != order[1] {
			t.Fatalf("handed over during an operation, runs at %q", w.where("x"))
		}
		w.operating.Store(false)
		time.Sleep(3 * time.Second)
		if w.where("x") != order[0] {
			t.Fatalf("not handed over, runs at %q", w.where("x"))
		}
		if w.times("x") != 2 {
			t.Errorf("begun %d times", w.times("x"))
		}
	})
}

// TestAReplicaThatDoesNotClaim: a better placed replica is alive but never
// claims; the cluster runs all the same and is not offered to it all the time.
func TestAReplicaThatDoesNotClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		order := best("x", "a", "b", "c")
		w := newWorld(t, "x")
		if _, err := w.store.Join(t.Context(), store.Replica{ID: order[0]}); err != nil {
			t.Fatal(err)
		}
		third := w.start(order[2])
		defer third.end()
		second := w.start(order[1])
		defer second.end()
		time.Sleep(400 * time.Millisecond)
		if w.where("x") != "" {
			t.Fatalf("%s did not wait", w.where("x"))
		}
		time.Sleep(200 * time.Millisecond)
		if w.where("x") != order[1] {
			t.Fatalf("x runs at %q", w.where("x"))
		}
		time.Sleep(10 * time.Minute)
		if w.times("x") > 10 {
			t.Errorf("begun %d times in ten minutes", w.times("x"))
		}
	})
}

func TestAStuckLoopIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "x", "y")
		w.overlap = true
		unstick := make(chan struct{})
		w.run = func(ctx context.Context, l *loop) error {
			<-ctx.Done()
			if l.replica == "a" && l.cluster == "x" {
				<-unstick
			}
			return nil
		}
		a := w.start("a")
		time.Sleep(time.Second)
		b := w.start("b", func(c *Config) { c.Settle = time.Hour })
		began := time.Now()
		a.end()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("it took %v to stop", took)
		}
		synctest.Wait()
		for _, name := range []string{"x", "y"} {
			if w.where(name) != "b" {
				t.Errorf("%s runs at %q", name, w.where(name))
			}
		}
		close(unstick)
		b.end()
	})
}

// awayStore cannot be joined or read while away is set.
type awayStore struct {
	store.Store
	away atomic.Bool
}

func (s *awayStore) Join(ctx context.Context, self store.Replica) (store.Session, error) {
	if s.away.Load() {
		return nil, store.ErrUnavailable
	}
	return s.Store.Join(ctx, self)
}

func (s *awayStore) Replicas(ctx context.Context) ([]store.Replica, error) {
	if s.away.Load() {
		return nil, store.ErrUnavailable
	}
	return s.Store.Replicas(ctx)
}

func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "x")
		away := &awayStore{Store: w.store}
		away.away.Store(true)
		a := w.start("a", func(c *Config) { c.Store = away })
		time.Sleep(time.Minute)
		if err := a.Ready(); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("ready without a store: %v", err)
		}
		away.away.Store(false)
		time.Sleep(2 * time.Second)
		if w.where("x") != "a" || a.Ready() != nil {
			t.Errorf("x runs at %q, ready: %v", w.where("x"), a.Ready())
		}
		// Reads fail, the lease lasts: the loop goes on.
		away.away.Store(true)
		time.Sleep(time.Minute)
		if w.where("x") != "a" || a.Ready() == nil {
			t.Errorf("x runs at %q, ready: %v", w.where("x"), a.Ready())
		}
		// The lease ends as well: the loop stops.
		w.store.ExpireLease("a")
		synctest.Wait()
		if _, ok := a.Local("x"); w.where("x") != "" || ok {
			t.Errorf("x runs at %q without a lease", w.where("x"))
		}
		away.away.Store(false)
		time.Sleep(2 * time.Second)
		if w.where("x") != "a" || a.Ready() != nil {
			t.Errorf("x runs at %q, ready: %v", w.where("x"), a.Ready())
		}
		a.end()
		if n := strings.Count(a.log.String(), "cannot"); n > 4 {
			t.Errorf("%d lines about one outage", n)
		}
	})
}

func TestDeletedClustersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "x")
		owned := make(chan store.Ownership, 2)
		var changes []string
		a := w.start("a", func(c *Config) {
			newLoop := c.NewLoop
			c.NewLoop = func(cluster string, own store.Ownership) (Loop, error) {
				owned <- own
				return newLoop(cluster, own)
			}
			c.Changed = func(cluster string, running bool) { changes = append(changes, fmt.Sprint(cluster, running)) }
		})
		if err := (<-owned).Delete(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if w.where("x") != "" {
			t.Errorf("a deleted cluster runs at %q", w.where("x"))
		}
		if err := w.store.Create(t.Context(), storetest.Cluster("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w.where("x") != "a" {
			t.Errorf("a new cluster of the name runs at %q", w.where("x"))
		}
		a.end()
		if got := strings.Join(changes, " "); got != "xtrue xfalse xtrue xfalse" {
			t.Errorf("changes %s", got)
		}
	})
}

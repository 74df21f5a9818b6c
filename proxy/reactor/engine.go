package reactor

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/pubsub"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/scripts"
	"github.com/basalt-redis/basalt/proxy/session"
	"github.com/basalt-redis/basalt/proxy/software"
)

// Engine carries requests from clients to servers and replies back. All
// methods may be called by any goroutine.
type Engine struct {
	cfg     Config
	started time.Time
	loops   []*loop
	table   atomic.Pointer[routing.Table]
	ctx     context.Context
	cancel  context.CancelFunc

	// held and used are the bytes all loops hold, and use in all.
	held, used atomic.Int64
	// overBudget: memory is short, no loop reads from clients.
	overBudget atomic.Bool
	// others is when a loop last answered what is not bulk, by the loops' clock.
	others atomic.Int64
	// pinned counts pinned connections in use.
	pinned atomic.Int64
	// large are the slots that hold something large.
	large session.LargeSlots
	// rawWait is for loop.wait, in milliseconds.
	rawWait int

	applyMu  sync.Mutex
	watchMu  sync.Mutex
	watches  map[string]*nodeWatch
	software atomic.Pointer[software.Software]
	ackDue   chan struct{}
	sightDue chan struct{}
	ending   sync.WaitGroup

	directory *pubsub.Directory
	accepting acceptor
	slow      slowLog
	sets      inOrder
	users     inOrder
	denied    acl.Log
	logs      rareLogs
}

// DefaultLoops is the number of loops when Config.Loops is 0: half of the
// processors, at least one. Fewer loops find more to do at each wake-up: on two
// processors shared with clients and servers, 50 clients without pipelining
// cost 5.5 µs per GET with one loop and 11 to 13 with two, at the same rate;
// the kernel's network work and the servers need the rest.
func DefaultLoops() int { return max(runtime.GOMAXPROCS(0)/2, 1) }

func (cfg *Config) setDefaults() {
	if cfg.Loops <= 0 {
		cfg.Loops = DefaultLoops()
	}
	if cfg.Limits == (resp.Limits{}) {
		cfg.Limits = resp.DefaultLimits()
	}
	setDefault(&cfg.MaxClients, 10000)
	setDefault(&cfg.MaxPinned, 2000)
	setDefault(&cfg.ClientReplyBufferBytes, 1<<30)
	setDefault(&cfg.ClientPubSubBufferBytes, 32<<20)
	setDefault(&cfg.MemoryBudgetBytes, 1<<30)
	setDefault(&cfg.HoldTimeout, 10*time.Second)
	setDefault(&cfg.HoldMaxBytes, 256<<20)
	setDefault(&cfg.GatherMaxBytes, 64<<20)
	setDefault(&cfg.NodeTimeout, time.Second)
	setDefault(&cfg.SlowLogThreshold, 10*time.Millisecond)
	setDefault(&cfg.SlowLogLength, 128)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Scripts == nil {
		cfg.Scripts = scripts.New(nil, cfg.Logger)
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// New starts the event loops. Until the first Apply every request is held.
// The error is one of the system's: no more descriptors, most likely.
func New(cfg Config) (*Engine, error) {
	cfg.setDefaults()
	empty, err := routing.Build(routing.Cluster{})
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, started: time.Now(), directory: pubsub.NewDirectory(), watches: map[string]*nodeWatch{},
		ackDue: make(chan struct{}, 1), sightDue: make(chan struct{}, 1),
	}
	if runtime.GOMAXPROCS(0) > cfg.Loops {
		e.rawWait = 1
	}
	e.slow.init(cfg.SlowLogLength)
	e.table.Store(empty)
	e.software.Store(&software.Software{Name: "redis", Version: command.ServerVersion, Redis: command.ServerVersion})
	e.ctx, e.cancel = context.WithCancel(context.Background())
	for i := range cfg.Loops {
		l, err := newLoop(e, i)
		if err != nil {
			e.cancel()
			return nil, fmt.Errorf("event loop %d: %w", i, err)
		}
		e.loops = append(e.loops, l)
	}
	for _, l := range e.loops {
		go l.run()
	}
	e.ending.Add(2)
	go e.tellAcks()
	go e.tellSights()
	return e, nil
}

// Apply publishes a table to all loops. One that is not newer than the last is
// ignored.
func (e *Engine) Apply(t *routing.Table) {
	e.applyMu.Lock()
	defer e.applyMu.Unlock()
	if t.Epoch <= e.table.Load().Epoch {
		return
	}
	e.table.Store(t)
	for _, l := range e.loops {
		l.wake()
	}
	ids := map[string]bool{}
	for i := range t.Shards {
		for j := range t.Shards[i].Nodes {
			ids[t.Shards[i].Nodes[j].ID] = true
		}
	}
	e.forgetWatches(ids)
}

// Table is the newest table.
func (e *Engine) Table() *routing.Table { return e.table.Load() }

// noteAck says that a loop obeys another epoch.
func (e *Engine) noteAck() {
	select {
	case e.ackDue <- struct{}{}:
	default:
	}
}

func (e *Engine) noteSight() {
	select {
	case e.sightDue <- struct{}{}:
	default:
	}
}

// ackedEpoch is the newest epoch that every loop obeys.
func (e *Engine) ackedEpoch() uint64 {
	epoch := e.loops[0].acked.Load()
	for _, l := range e.loops[1:] {
		epoch = min(epoch, l.acked.Load())
	}
	return epoch
}

func (e *Engine) tellAcks() {
	defer e.ending.Done()
	var told uint64
	for {
		select {
		case <-e.ackDue:
		case <-e.ctx.Done():
			return
		}
		if epoch := e.ackedEpoch(); epoch > told {
			told = epoch
			if e.cfg.OnAck != nil {
				e.cfg.OnAck(epoch)
			}
		}
	}
}

// forgetLarge is how long it is remembered, at least, that a slot holds
// something large.
const forgetLarge = time.Minute

// tellSights tells what changed, and does what is to be done now and then.
func (e *Engine) tellSights() {
	defer e.ending.Done()
	ticker, age := time.NewTicker(repeatSight), time.NewTicker(forgetLarge)
	defer ticker.Stop()
	defer age.Stop()
	for {
		select {
		case <-e.sightDue:
		case <-ticker.C:
		case <-age.C:
			e.large.Age()
			continue
		case <-e.ctx.Done():
			return
		}
		e.reportSights()
	}
}

// Shutdown stops accepting, lets clients finish what they sent and closes
// everything. When ctx ends first, the rest is closed at once and its error
// returned.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.accepting.close()
	for _, l := range e.loops {
		l.post(l.drain)
	}
	var err error
	for _, l := range e.loops {
		select {
		case <-l.done:
		case <-ctx.Done():
			err = ctx.Err()
			l.post(func() { l.stopped = true })
			<-l.done
		}
	}
	e.cancel()
	e.ending.Wait()
	return err
}

// commands is the number of entries of command counters.
func commands() int { return command.Count() }

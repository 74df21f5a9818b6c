package reactor

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/session"
)

const (
	scratchSize = 128 << 10
	maxEvents   = 256
	// tick is the longest time between two looks at timeouts.
	tick = int64(100 * time.Millisecond)
)

// place is where epoll's events find what they are about. The generation tells
// an event apart that is about an earlier owner of the place.
type place struct {
	client     *session.Client
	conn       *backend.Conn
	generation uint32
}

// loop is one event loop. Everything in it but the fields of the inbox belongs
// to its thread.
type loop struct {
	eng   *Engine
	index int
	log   *slog.Logger
	sh    session.Shared

	epfd, evfd int
	places     []place
	freePlaces []uint32
	events     [maxEvents]unix.EpollEvent
	scratch    []byte

	flushClients []*session.Client
	flushConns   []*backend.Conn
	resume       []*session.Client
	yielded      []*session.Client
	release      []*shard

	shards []*shard
	orphan *shard // of slots that no shard owns
	// pins are the connections of single clients, idlePins those of none.
	pins map[*pin]struct{}
	// hearings are clients that hear of all changes but their own.
	hearings map[*backend.Identity]*hearing
	idlePins []idlePin
	controls map[*control]struct{}
	text     []byte // scratch of requests
	subs     subscriptions
	monitors monitors
	// sawBusy: this loop found a server busy, and keeps asking it.
	sawBusy bool
	// pausedConns are those that are not read (flow.go).
	pausedConns []pausedConn
	giants      giants
	leaving     leaving
	// behind is what this tick found of silent nodes, toldBehind what the last one did.
	behind, toldBehind map[*nodeWatch]behind
	// flushed is Scripts.Flushed when the loop last forgot what servers have.
	flushed uint64
	// waiting counts connections that must drain before the epoch is obeyed.
	waiting  int
	deleting bool

	nextTimer int64
	// pausedUntil is when the CLIENT PAUSE in force ends; 0 for none.
	pausedUntil int64
	memory      memory
	draining    bool
	stopped     bool
	counters    counters
	// ordinary is counters.ordinary of the time when Engine.others was set.
	ordinary   uint64
	ordinaryAt int64
	// slowFrom is from which time on, in nanoseconds, a command is slow.
	slowFrom int64

	// inbox: what other threads ask of the loop.
	mu      sync.Mutex
	tasks   []func()
	taken   []func()
	ended   bool // takes no more tasks
	posted  atomic.Bool
	acked   atomic.Uint64
	clients atomic.Int64
	done    chan struct{}
}

func newLoop(eng *Engine, index int) (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	evfd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, err
	}
	l := &loop{
		eng: eng, index: index, log: eng.cfg.Logger, epfd: epfd, evfd: evfd,
		scratch: make([]byte, scratchSize), done: make(chan struct{}), pins: map[*pin]struct{}{}, controls: map[*control]struct{}{},
	}
	l.sh = session.Shared{
		Table: eng.table.Load(), Limits: eng.cfg.Limits, ReplyLimit: int(eng.cfg.ClientReplyBufferBytes),
		Debug: eng.cfg.EnableDebug, GatherTimeout: int64(eng.cfg.HoldTimeout), GatherLimit: eng.cfg.GatherMaxBytes,
		Software: &eng.software, ClusterMode: eng.cfg.ClusterMode, Router: l, Scripts: eng.cfg.Scripts, Denied: &eng.denied, Large: &eng.large,
	}
	l.subs.init(l)
	l.monitors.init(l)
	l.orphan = &shard{loop: l, blocked: true}
	l.counters.init()
	l.slowFrom = threshold(int64(eng.cfg.SlowLogThreshold), eng.slow.from)
	// Place 0 is the eventfd.
	l.places = append(l.places, place{})
	if err := l.control(unix.EPOLL_CTL_ADD, evfd, 0, unix.EPOLLIN); err != nil {
		_ = unix.Close(epfd)
		_ = unix.Close(evfd)
		return nil, err
	}
	return l, nil
}

// clock is the loop's clock: nanoseconds since the engine was made.
func (l *loop) clock() int64 { return int64(time.Since(l.eng.started)) }

// post has fn run by the loop, soon. It returns false when the loop has ended,
// and nothing is run.
func (l *loop) post(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.tasks = append(l.tasks, fn)
	l.wakeLocked()
	return true
}

// wake ends the loop's sleep.
func (l *loop) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakeLocked()
}

func (l *loop) wakeLocked() {
	if !l.ended && !l.posted.Swap(true) {
		one := [8]byte{1}
		// A full counter wakes as well.
		_, _ = unix.Write(l.evfd, one[:])
	}
}

// run is the loop. Each wake-up: the new epoch, events, tasks, clients that may
// go on, held requests; then one write per connection.
func (l *loop) run() {
	runtime.LockOSThread()
	// A thread that ends takes along the processes it started, if they asked for
	// that; those of other goroutines may be among them.
	defer runtime.UnlockOSThread()
	defer close(l.done)
	for !l.stopped {
		n := l.wait()
		// First the epoch: what arrived after it was published is routed by it.
		if t := l.eng.table.Load(); t != l.sh.Table {
			l.apply(t)
		}
		if len(l.yielded) > 0 {
			l.resume = append(l.resume, l.yielded...)
			clear(l.yielded)
			l.yielded = l.yielded[:0]
		}
		if l.giants.rest() {
			l.giantsGoOn()
		}
		for i := range n {
			l.dispatch(&l.events[i])
		}
		if l.posted.Load() {
			l.runTasks()
		}
		if len(l.release) > 0 {
			l.releaseAll()
		}
		if len(l.resume) > 0 {
			l.resumeAll()
		}
		if len(l.pausedConns) > 0 {
			l.readAgain()
		}
		for len(l.flushConns) > 0 {
			l.flushAllConns()
		}
		l.flushAllClients()
		if l.sh.Now >= l.nextTimer {
			l.timers()
		}
		l.checkBudget()
		l.acknowledge()
		if l.draining && l.clients.Load() == 0 {
			l.stopped = true
		}
	}
	l.closeAll()
	l.endTasks()
}

// wait waits for events. It first waits without the Go scheduler noticing, for
// up to rawWait milliseconds: entering and leaving a blocking call costs the
// scheduler's watchdog a wake-up each time, 7 % of the proxy's CPU when 50
// clients do not pipeline. That keeps a processor of the scheduler's, so it is
// done only when there is one more than loops; a pause for the garbage
// collector interrupts it by a signal. Only then the loop sleeps as Go knows it.
func (l *loop) wait() int {
	timeout := 0
	if !l.busy() {
		timeout = l.eng.rawWait
	}
	before := l.clock()
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events)), maxEvents, uintptr(timeout), 0, 0)
	l.sh.Now = l.clock()
	if errno != 0 {
		n = 0
	}
	if n > 0 || l.busy() {
		l.slept(before)
		return int(n)
	}
	next := l.nextTimer
	if l.giants.rest() {
		next = min(next, l.giants.until)
	}
	rest := max((next-l.sh.Now+int64(time.Millisecond)-1)/int64(time.Millisecond), 0)
	got, err := unix.EpollWait(l.epfd, l.events[:], int(min(rest, 1000)))
	l.sh.Now = l.clock()
	l.slept(before)
	if err != nil {
		return 0
	}
	return got
}

// slept counts a wake-up after a wait that began at a time.
func (l *loop) slept(before int64) {
	l.counters.busy += before - l.counters.awake
	l.counters.awake = l.sh.Now
	if l.counters.ordinary != l.ordinary && l.sh.Now-l.ordinaryAt > int64(time.Millisecond) {
		l.ordinary, l.ordinaryAt = l.counters.ordinary, l.sh.Now
		l.eng.others.Store(l.sh.Now)
	}
	l.counters.wakeups++
}

// busy tells if there is work that no event announces.
func (l *loop) busy() bool {
	return len(l.resume) > 0 || len(l.yielded) > 0 || len(l.release) > 0 || len(l.flushConns) > 0 || len(l.flushClients) > 0 || l.stopped
}

func (l *loop) dispatch(ev *unix.EpollEvent) {
	p := &l.places[ev.Fd]
	switch {
	case ev.Fd == 0:
		var b [8]byte
		// Its only use is to have woken.
		_, _ = unix.Read(l.evfd, b[:])
	case p.generation != uint32(ev.Pad):
		// About a socket that was closed earlier in this wake-up.
	case p.client != nil:
		l.clientEvent(p.client, ev.Events)
	case p.conn != nil:
		l.connEvent(p.conn, ev.Events)
	}
}

func (l *loop) runTasks() {
	l.posted.Store(false)
	l.mu.Lock()
	l.taken, l.tasks = l.tasks, l.taken[:0]
	l.mu.Unlock()
	for i, task := range l.taken {
		task()
		l.taken[i] = nil
	}
}

// endTasks runs what was posted until the end, for whoever waits for it, and
// closes the inbox with the descriptor that others wake the loop by.
func (l *loop) endTasks() {
	for {
		l.mu.Lock()
		rest := l.tasks
		l.tasks = nil
		if len(rest) == 0 {
			l.ended = true
			_ = unix.Close(l.evfd)
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		for _, task := range rest {
			task()
		}
	}
}

// settle finds a place for a new socket.
func (l *loop) settle(p place) uint32 {
	if n := len(l.freePlaces); n > 0 {
		i := l.freePlaces[n-1]
		l.freePlaces = l.freePlaces[:n-1]
		p.generation = l.places[i].generation
		l.places[i] = p
		return i
	}
	l.places = append(l.places, p)
	return uint32(len(l.places) - 1)
}

// leave frees a place; closing the socket takes it out of epoll.
func (l *loop) leave(i uint32) {
	l.places[i] = place{generation: l.places[i].generation + 1}
	l.freePlaces = append(l.freePlaces, i)
}

func (l *loop) control(op, fd int, at uint32, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(at), Pad: int32(l.places[at].generation)}
	return unix.EpollCtl(l.epfd, op, fd, &ev)
}

// Now is the loop's clock; with Pool and Requests, the host of connections.
func (l *loop) Now() int64 { return l.sh.Now }

// Pool is the loop's memory.
func (l *loop) Pool() *buffer.Pool { return &l.sh.Pool }

// Requests are the loop's requests.
func (l *loop) Requests() *backend.Requests { return &l.sh.Requests }

// acknowledge publishes the epoch the loop obeys.
func (l *loop) acknowledge() {
	if l.waiting == 0 && l.acked.Load() != l.sh.Table.Epoch {
		l.acked.Store(l.sh.Table.Epoch)
		l.eng.noteAck()
	}
}

// closeAll ends what is left when the loop stops.
func (l *loop) closeAll() {
	for i := range l.places {
		if c := l.places[i].client; c != nil {
			c.Close()
			l.forgetClient(c)
		}
		if c := l.places[i].conn; c != nil {
			c.Retired = true
			c.Break(SightUnknown, errStopped, backend.LineLost)
		}
	}
	_ = unix.Close(l.epfd)
}

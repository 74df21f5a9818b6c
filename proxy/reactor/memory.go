package reactor

import (
	"cmp"
	"log/slog"
	"slices"
	"sync/atomic"

	"github.com/basalt-redis/basalt/proxy/session"
)

// The memory budget.
//
// Goal: requests and replies of all clients together take no more than the
// budget, and no client can keep others from being served by filling it.
//
//  1. Each loop adds what it uses to Engine.used, in steps of budgetStep, so
//     that the shared counter is rarely written.
//  2. Beyond the budget no loop reads from clients. Servers answer and clients
//     take their replies meanwhile, so mostly it is over in milliseconds: below
//     resumeBelow of the budget, clients are read again. All loops agree about it
//     (Engine.overBudget): one alone could wait for memory that the others have,
//     and see no reason to free.
//  3. Two things do not go away by themselves: requests that are not complete,
//     for their rest is not read, and replies that their client does not take
//     (session.Client.Stuck). While memory is short, each loop looks every
//     relieveStep how much of that it has. When it is so much that memory can
//     only get free by ending it, or when it would help and nothing got better
//     for patience, those who hold most are closed until enough is free. Of
//     several loops, the one whose client holds most goes first.
//  4. Should that not help, the client that takes most of all is closed after
//     evictAfter.
//
// Nobody with less than leastEvicted is closed by step 3: a client with small
// requests that happens to wait is not the cause.
const (
	// budgetStep is how exactly loops know each other's memory, in bytes.
	budgetStep = 1 << 20
	// relieveStep, patience, untaken and evictAfter are in nanoseconds; replies
	// are stuck when nothing of them was taken for as long as untaken.
	relieveStep = int64(10e6)
	patience    = int64(50e6)
	untaken     = int64(250e6)
	evictAfter  = int64(1e9)
	// leastEvicted is in bytes; it is more than one read brings of a pipeline of
	// small requests.
	leastEvicted = 256 << 10
)

// resumeBelow is what must be in use for clients to be read again.
func resumeBelow(budget int64) int64 { return budget / 4 * 3 }

// plenty is how much may be in use for memory to be plenty: clients may leave
// more unread, and replies are read as fast as they come (flow.go).
func plenty(budget int64) int64 { return budget / 4 }

// memory is a loop's part of the budget.
type memory struct {
	published int64 // of the loop's memory, in Engine.used
	overSince int64
	// lowest is the least that was in use since memory is short, lowestAt when
	// that last got better by a budgetStep.
	lowest, lowestAt int64

	// What other loops may know while memory is short, in bytes: of all clients,
	// unfinished requests, and with them replies that are not taken; and the
	// most of one client.
	unfinished, stuck, most atomic.Int64
}

// memoryNow is what requests, replies and subscriptions of the loop's clients take.
func (l *loop) memoryNow() int64 {
	return l.sh.Pool.InUse() + l.counters.heldBytes + l.sh.Hub.Memory() + l.sh.Merging
}

// checkBudget compares the memory of all loops with the budget.
func (l *loop) checkBudget() {
	m := &l.memory
	used := l.memoryNow()
	if d := used - m.published; d > budgetStep || d < -budgetStep {
		l.eng.used.Add(d)
		m.published = used
	}
	all, budget, over := l.eng.used.Load(), l.eng.cfg.MemoryBudgetBytes, &l.eng.overBudget
	switch {
	case all > budget && !over.Load():
		over.Store(true)
		l.wakeOthers()
		l.eng.logs.memory.log(l.eng, slog.LevelWarn, "memory budget is used up, clients are not read", "bytes", all, "loop", l.index)
	case all <= resumeBelow(budget) && over.Load():
		over.Store(false)
		l.wakeOthers()
	}
	switch roomy := l.sh.Roomy; {
	case !roomy && all <= budget/5:
		l.sh.Roomy = true
		l.eachClient(func(c *session.Client) { c.Unstall() })
	case roomy && all > plenty(budget):
		l.sh.Roomy = false
	}
	switch now := over.Load(); {
	case now == l.sh.OverBudget:
	case now:
		l.sh.OverBudget = true
		m.overSince, m.lowest, m.lowestAt = l.sh.Now, all, l.sh.Now
		l.timerAt(l.sh.Now + relieveStep)
	default:
		l.sh.OverBudget = false
		m.unfinished.Store(0)
		m.stuck.Store(0)
		m.most.Store(0)
		l.eachClient(func(c *session.Client) { c.Unstall() })
	}
}

// wakeOthers lets the other loops see what the budget says now.
func (l *loop) wakeOthers() {
	for _, other := range l.eng.loops {
		if other != l {
			other.wake()
		}
	}
}

// holder is a client and what it holds that is stuck.
type holder struct {
	client            *session.Client
	requests, replies int64
}

func (h *holder) bytes() int64 { return h.requests + h.replies }

// relieve is called every relieveStep while memory is short.
func (l *loop) relieve() {
	m, now, budget := &l.memory, l.sh.Now, l.eng.cfg.MemoryBudgetBytes
	l.timerAt(now + relieveStep)
	all := l.eng.used.Load()
	if all <= m.lowest-budgetStep {
		m.lowest, m.lowestAt = all, now
	}
	holders := l.stuck()
	var unfinished, stuck, othersMost int64
	for _, other := range l.eng.loops {
		unfinished += other.memory.unfinished.Load()
		stuck += other.memory.stuck.Load()
		if other != l {
			othersMost = max(othersMost, other.memory.most.Load())
		}
	}
	need := all - resumeBelow(budget)
	hopeless := unfinished >= resumeBelow(budget)
	if hopeless || stuck >= need && now-m.lowestAt >= patience {
		for i := range holders {
			h := &holders[i]
			if need <= 0 || h.bytes() < othersMost {
				break
			}
			need -= h.bytes()
			l.evict(h.client, "request_bytes", h.requests, "reply_bytes", h.replies)
		}
		return
	}
	if now-m.overSince > evictAfter {
		m.overSince = now
		l.evictLargest()
	}
}

// stuck lists the loop's clients that hold much that is stuck, those with most
// first, and publishes the sums.
func (l *loop) stuck() (holders []holder) {
	var unfinished, stuck, most int64
	since := l.sh.Now - untaken
	l.eachClient(func(c *session.Client) {
		h := holder{client: c}
		h.requests, h.replies = c.Stuck(since)
		if h.bytes() >= leastEvicted {
			holders = append(holders, h)
			unfinished += h.requests
			stuck += h.bytes()
			most = max(most, h.bytes())
		}
	})
	slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(b.bytes(), a.bytes()) })
	l.memory.unfinished.Store(unfinished)
	l.memory.stuck.Store(stuck)
	l.memory.most.Store(most)
	return holders
}

// evict closes a client for want of memory.
func (l *loop) evict(c *session.Client, args ...any) {
	l.counters.evicted++
	l.eng.logs.evicted.log(l.eng, slog.LevelWarn, "client holds most of a memory budget that is used up and is closed", append([]any{"client", c.Address(), "name", c.Name()}, args...)...)
	c.Close()
}

// evictLargest closes the client that takes most memory, whatever for, because
// nothing got better by itself.
func (l *loop) evictLargest() {
	var worst *session.Client
	var most int
	l.eachClient(func(c *session.Client) {
		if n := c.Memory(); n > most {
			worst, most = c, n
		}
	})
	if worst == nil || l.memory.published < resumeBelow(l.eng.cfg.MemoryBudgetBytes)/int64(len(l.eng.loops)) {
		return // another loop's clients take more
	}
	l.evict(worst, "bytes", most)
}

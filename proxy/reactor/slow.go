package reactor

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/session"
)

// Commands that take long are kept twice, for two who ask: those of the proxy's own
// threshold as SlowLog tells them, with all the time that the client waited, and
// those of the servers' slowlog-log-slower-than for SLOWLOG, which tells of each
// entry of a server whose it is (fanout.SlowLog).

// ring keeps the newest of something.
type ring[T any] struct {
	items []T
	next  uint64
	// since is the first that was not forgotten.
	since uint64
}

func (q *ring[T]) init(n int) { q.items = make([]T, max(n, 0)) }

// add keeps what made returns for the number it gets.
func (q *ring[T]) add(made func(n uint64) T) {
	if len(q.items) > 0 {
		q.items[q.next%uint64(len(q.items))] = made(q.next)
	}
	q.next++
}

// all returns what is kept, the oldest first.
func (q *ring[T]) all() []T {
	n := min(q.next-q.since, uint64(len(q.items)))
	list := make([]T, 0, n)
	for i := q.next - n; i < q.next; i++ {
		list = append(list, q.items[i%uint64(len(q.items))])
	}
	return list
}

// clear forgets everything but the numbers.
func (q *ring[T]) clear() { q.init(len(q.items)); q.since = q.next }

// slowLog is what is kept of all loops.
type slowLog struct {
	mu      sync.Mutex
	entries ring[SlowEntry]
	seen    ring[fanout.Seen]
	// from is slowlog-log-slower-than in nanoseconds, as far as it is known.
	from int64
}

const (
	// seenSlow is how many commands are kept for SLOWLOG.
	seenSlow = 1024
	// defaultSlow is a server's slowlog-log-slower-than unless it is told otherwise.
	defaultSlow = 10 * time.Millisecond
	// Bounds of what is kept of a command, as in Redis.
	slowArgs     = 32
	slowArgBytes = 128
	// slowInside is how many commands of a transaction are kept.
	slowInside = 64
)

func (s *slowLog) init(n int) {
	s.entries.init(n)
	s.seen.init(seenSlow)
	s.from = int64(defaultSlow)
}

// threshold is from which time on a command is slow to either of the two, of which
// configured is the proxy's own; a negative time is for none.
func threshold(configured, servers int64) int64 {
	if configured < 0 {
		configured = math.MaxInt64
	}
	if servers < 0 {
		servers = math.MaxInt64
	}
	return min(configured, servers)
}

// slow keeps a command that took long.
func (l *loop) slow(c *session.Client, r *backend.Request, took int64) {
	e := l.eng
	commands := slowCommands(r)
	start := e.started.Add(time.Duration(r.Start))
	client, name := c.Address().String(), c.Name()
	s := &e.slow
	s.mu.Lock()
	defer s.mu.Unlock()
	if configured := int64(e.cfg.SlowLogThreshold); configured >= 0 && took >= configured {
		s.entries.add(func(n uint64) SlowEntry {
			return SlowEntry{ID: n, Time: start, Duration: time.Duration(took), Client: client, Name: name, Args: commands[0]}
		})
	}
	if s.from < 0 || took < s.from {
		return
	}
	if r.Spec.Name == "exec" {
		commands = commands[1:] // what it executes is logged, it is not
	}
	for _, args := range commands {
		s.seen.add(func(n uint64) fanout.Seen {
			return fanout.Seen{
				ID: int64(n), Start: start, End: start.Add(time.Duration(took)), Client: client, Name: name, Args: args, Own: !fanout.Logged(r.Spec) && r.Spec.Name != "exec",
			}
		})
	}
}

// slowCommands are the arguments of a command, shortened and without secrets. Behind
// those of EXEC are those of the commands it executes.
func slowCommands(r *backend.Request) [][]string {
	nameOnly := [][]string{strings.Split(r.Spec.Name, "|")}
	raw := r.Raw()
	switch {
	case len(r.Asked) > 0 && r.Spec.Name != "exec":
		if words := slowRequest(r.Spec, r.Asked); words != nil {
			return [][]string{words}
		}
	case len(raw) == 0:
	case r.Block == nil:
		if words := slowRequest(r.Spec, raw); words != nil {
			return [][]string{words}
		}
	case r.Spec.Name == "exec":
		return append(nameOnly, slowInsides(raw)...)
	}
	return nameOnly
}

// slowRequest shortens a request; nil for one that is none. What comes behind the
// arguments that are kept is not looked at: there may be a million.
func slowRequest(spec *command.Spec, raw []byte) []string {
	if raw[0] == '*' {
		args, count := resp.FirstArgs(raw, nil, slowArgs)
		return slowWords(spec, args, count)
	}
	args, err := resp.Args(raw, nil)
	if err != nil {
		return nil
	}
	return slowWords(spec, args, len(args))
}

// slowInsides are the commands of a transaction.
func slowInsides(raw []byte) (all [][]string) {
	limits := resp.Limits{RequestBytes: math.MaxInt32, Args: math.MaxInt32, InlineBytes: math.MaxInt32}
	var scan resp.Scanner
	for len(raw) > 0 && len(all) < slowInside {
		n, err := scan.Scan(raw, &limits, true)
		if err != nil || n == 0 {
			break
		}
		args, count := resp.FirstArgs(raw, nil, slowArgs)
		raw = raw[n:]
		if spec, _ := command.Lookup(args); spec != nil && fanout.Logged(spec) {
			all = append(all, slowWords(spec, args, count))
		}
	}
	return all
}

// slowWords shortens the first arguments of count as servers do.
func slowWords(spec *command.Spec, args [][]byte, count int) []string {
	if len(args) == 0 {
		return nil
	}
	args = spec.Redact(args)
	words := make([]string, 0, len(args))
	for i, a := range args {
		switch {
		case i == slowArgs-1 && count > slowArgs:
			return append(words, fmt.Sprintf("... (%d more arguments)", count-i))
		case len(a) > slowArgBytes:
			words = append(words, fmt.Sprintf("%s... (%d more bytes)", a[:slowArgBytes], len(a)-slowArgBytes))
		default:
			words = append(words, string(a))
		}
	}
	return words
}

// SlowLog returns the slow commands that are kept, newest first.
func (e *Engine) SlowLog() []SlowEntry {
	e.slow.mu.Lock()
	defer e.slow.mu.Unlock()
	list := e.slow.entries.all()
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list
}

// SeenSlow are the commands that SLOWLOG is about, the oldest first.
func (l *loop) SeenSlow() []fanout.Seen {
	s := &l.eng.slow
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.all()
}

// ForgetSlow forgets them.
func (l *loop) ForgetSlow() {
	s := &l.eng.slow
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.clear()
}

// SlowFrom sets from how many microseconds on commands are kept for SLOWLOG.
func (l *loop) SlowFrom(micros int64, done func()) {
	e := l.eng
	from := int64(-1)
	if micros >= 0 {
		from = min(micros, math.MaxInt64/int64(time.Microsecond)) * int64(time.Microsecond)
	}
	e.slow.mu.Lock()
	same := e.slow.from == from
	e.slow.from = from
	e.slow.mu.Unlock()
	if same {
		done()
		return
	}
	l.everywhere(func(at *loop, _ int) { at.slowFrom = threshold(int64(e.cfg.SlowLogThreshold), from) }, done)
}

// slowerThan is the value that a CONFIG SET gives to slowlog-log-slower-than.
func slowerThan(args [][]byte) (micros int64, is bool) {
	for i := 2; i+1 < len(args); i += 2 {
		if strings.EqualFold(string(args[i]), "slowlog-log-slower-than") {
			micros, is = command.Integer(args[i+1])
		}
	}
	return micros, is
}

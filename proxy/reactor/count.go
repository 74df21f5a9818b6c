package reactor

import (
	"log/slog"
	"math/bits"
	"strings"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/session"
)

// counters of one loop. Only its thread touches them; Stats asks it for a copy.
type counters struct {
	commands               []CommandStats
	answered               uint64
	unknown, malformed     uint64
	accepted, tooSlow      uint64
	evicted                uint64
	subscribersTooSlow     uint64
	heldBytes              int64
	heldTotal, heldRefused uint64
	busy, awake            int64
	wakeups                uint64
}

func (k *counters) init() { k.commands = make([]CommandStats, commands()) }

// Count counts an answered command.
func (l *loop) Count(c *session.Client, r *backend.Request, kind byte) {
	k := &l.counters
	k.answered++
	if r.Spec == nil {
		return
	}
	took := l.sh.Now - r.Start
	s := &k.commands[r.Spec.ID]
	s.Calls++
	if kind == '-' {
		s.Errors++
	}
	s.TotalTime += time.Duration(took)
	s.Latency[min(bits.Len64(uint64(took)/1000), LatencyBuckets-1)]++
	if took >= int64(l.eng.cfg.SlowLogThreshold) && l.eng.cfg.SlowLogThreshold >= 0 {
		l.eng.slow.add(l, c, r, time.Duration(took))
	}
}

// Refused counts a request that is in no command table.
func (l *loop) Refused(*session.Client) { l.counters.unknown++ }

// Malformed counts a client that is closed because of its bytes.
func (l *loop) Malformed(c *session.Client) {
	l.counters.malformed++
	l.eng.logs.malformed.log(l.eng, slog.LevelInfo, "client broke the protocol and is closed", "client", c.Address())
}

// Attacked counts a client that is closed because a browser may have been made
// to send its bytes.
func (l *loop) Attacked(c *session.Client) {
	l.counters.malformed++
	l.eng.logs.attacked.log(l.eng, slog.LevelWarn, "possible attack by cross-protocol scripting: client sent POST or Host: and is closed", "client", c.Address())
}

// slowLog keeps the newest slow commands of all loops.
type slowLog struct {
	mu   sync.Mutex
	ring []SlowEntry
	next uint64
}

func (s *slowLog) init(n int) { s.ring = make([]SlowEntry, max(n, 0)) }

// Bounds of what is kept of a command, as in Redis.
const (
	slowArgs     = 32
	slowArgBytes = 128
)

func (s *slowLog) add(l *loop, c *session.Client, r *backend.Request, took time.Duration) {
	if len(s.ring) == 0 {
		return
	}
	entry := SlowEntry{Time: l.eng.started.Add(time.Duration(r.Start)), Duration: took, Client: c.Address().String(), Name: c.Name(), Args: slowWords(r)}
	s.mu.Lock()
	defer s.mu.Unlock()
	entry.ID = s.next
	s.ring[s.next%uint64(len(s.ring))] = entry
	s.next++
}

// slowWords are the arguments of a command, cut short and without secrets. Of one that was not sent
// as it came, only the name is known.
func slowWords(r *backend.Request) []string {
	raw := r.Raw()
	if len(raw) == 0 || r.Block != nil {
		return strings.Split(r.Spec.Name, "|")
	}
	args, _ := resp.FirstArgs(raw, nil, slowArgs)
	args = r.Spec.Redact(args)
	words := make([]string, 0, len(args))
	for _, a := range args {
		words = append(words, string(a[:min(len(a), slowArgBytes)]))
	}
	return words
}

// SlowLog returns the slow commands that are kept, newest first.
func (e *Engine) SlowLog() []SlowEntry {
	s := &e.slow
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(s.next, uint64(len(s.ring)))
	entries := make([]SlowEntry, 0, n)
	for i := range n {
		entries = append(entries, s.ring[(s.next-1-i)%uint64(len(s.ring))])
	}
	return entries
}

package reactor

import (
	"log/slog"
	"math/bits"
	"time"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/session"
)

// counters of one loop. Only its thread touches them; Stats asks it for a copy.
type counters struct {
	commands               []CommandStats
	answered, ordinary     uint64
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
	if !r.Bulk {
		k.ordinary++
	}
	if r.Spec == nil {
		return
	}
	took := l.sh.Now - r.Start
	s := &k.commands[r.Spec.ID]
	s.Calls++
	if kind == '-' {
		s.Errors++
		if r.Rejected {
			s.Rejected++
		}
	}
	s.TotalTime += time.Duration(took)
	s.Latency[min(bits.Len64(uint64(took)/1000), LatencyBuckets-1)]++
	if took >= l.slowFrom {
		l.slow(c, r, took)
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

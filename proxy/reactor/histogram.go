package reactor

import (
	"strings"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/session"
)

// ResetStats sets the counters of commands, errors and connections back to zero (CONFIG
// RESETSTAT), and then calls done.
func (l *loop) ResetStats(done func()) {
	l.eng.accepting.rejected.Store(0)
	l.everywhere(func(at *loop, _ int) {
		clear(at.counters.commands)
		clear(at.sh.Errors)
		at.counters.unknown, at.counters.malformed, at.counters.accepted = 0, 0, 0
	}, done)
}

// Histograms answers LATENCY HISTOGRAM. What servers execute, they measured; what
// the proxy answers itself, or sends to every shard, is shown as it took here.
func (l *loop) Histograms(c *session.Client, r *backend.Request, names, replies [][]byte) {
	counts := make([][]CommandStats, len(l.eng.loops))
	proto := r.Proto
	l.everywhere(func(at *loop, i int) {
		counts[i] = append([]CommandStats(nil), at.counters.commands...)
	}, func() {
		own := map[string]*fanout.Histogram{}
		for _, id := range histogramsOf(names) {
			h := &fanout.Histogram{Buckets: map[int64]int64{}}
			for _, commands := range counts {
				if len(commands) > 0 { // else the loop has ended
					h.Calls += int64(commands[id].Calls)
					for b, n := range commands[id].Latency {
						if n > 0 {
							h.Buckets[histogramBound(b)] += int64(n)
						}
					}
				}
			}
			if h.Calls > 0 {
				own[command.ByID(id).Name] = h
			}
		}
		reply, err := fanout.LatencyHistogram(nil, replies, proto, func(name string) bool {
			spec := command.ByName(name)
			return spec == nil || spec.OnShards() // of a module, if it is none of Redis's
		}, own)
		if err != nil {
			reply = command.ErrorLine(err.Error(), nil, "")
		}
		c.Complete(r, reply)
	})
}

// histogramsOf are the commands, by ID, that are asked for and that the proxy
// measures: all without names, and for a container its subcommands.
func histogramsOf(names [][]byte) (ids []int) {
	add := func(spec *command.Spec) {
		if !spec.OnShards() {
			ids = append(ids, spec.ID)
		}
	}
	if len(names) == 0 {
		for id := range command.Count() {
			add(command.ByID(id))
		}
		return ids
	}
	for _, name := range names {
		spec := command.ByName(strings.ToLower(string(name)))
		switch {
		case spec == nil:
		case spec.IsContainer():
			subs := spec.Subcommands()
			for i := range subs {
				add(&subs[i])
			}
		default:
			add(spec)
		}
	}
	return ids
}

// histogramBound is the upper bound of bucket i in microseconds, as servers write
// those of theirs: 1024 ns doubled i times, to the end of a step of their scale.
func histogramBound(i int) int64 {
	nanoseconds := int64(1024) << i
	return (nanoseconds + nanoseconds/128 - 1) / 1000
}

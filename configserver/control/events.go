package control

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// failoverProblem is a problem as the detector found it.
type failoverProblem = failover.Problem

type problemKey struct{ code, shard, node string }

// problemState is a problem that lasts.
type problemState struct {
	since time.Time
	last  time.Time
	told  bool
	// stage is what was told of last; next one that it came to at nextAt and that is
	// not told of yet.
	stage, next string
	nextAt      time.Time
}

// changed is since when a problem has been in a stage that is not told of yet.
func (s *problemState) changed(stage string, now time.Time) time.Time {
	if s.next != stage {
		s.next, s.nextAt = stage, now
	}
	return s.nextAt
}

// forgetAfter is how long a problem must be gone before it counts as over, so
// that one that comes and goes is told once.
const forgetAfter = 3 * time.Second

// note remembers the problems of a shard, tells of those that begin and end,
// and returns those that are to be acted on: the ones that lasted long enough.
func (l *Loop) note(shard string, problems []failover.Problem, now time.Time) []failover.Problem {
	var events []topology.Event
	epoch := l.record.Load().Epoch
	var act []failover.Problem
	for i := range problems {
		p := &problems[i]
		key := problemKey{p.Code, p.Shard, p.Node}
		row := failover.RowOf(p.Code)
		state := l.told[shard][key]
		if state == nil {
			state = &problemState{since: now}
			l.remember(shard, key, state)
		}
		if p.Since.IsZero() || p.Since.After(state.since) {
			p.Since = state.since
		}
		state.last = now
		if now.Sub(state.since) < row.After {
			continue
		}
		act = append(act, *p)
		if row.Event != "" && (!state.told || state.stage != p.Stage && now.Sub(state.changed(p.Stage, now)) >= row.After) {
			state.told, state.stage, state.next = true, p.Stage, ""
			l.log.Log(l.life, levelOf(p, problems), p.Message, "problem", p.Code, "shard", p.Shard, "node", p.Node)
			events = append(events, topology.Event{Time: now, Kind: row.Event, Severity: p.Severity, Shard: p.Shard, Node: p.Node, Message: p.Message, Epoch: epoch})
		}
	}
	for key, state := range l.told[shard] {
		if state.last.Equal(now) {
			continue
		}
		row := failover.RowOf(key.code)
		if !state.told {
			delete(l.told[shard], key)
			continue
		}
		if now.Sub(state.last) < forgetAfter {
			continue
		}
		delete(l.told[shard], key)
		about := cmp.Or(key.node, key.shard, "cluster "+l.cfg.Cluster)
		message := about + ": " + key.code + " is over"
		l.log.Info(message, "problem", key.code, "shard", key.shard, "node", key.node)
		events = append(events, topology.Event{Time: now, Kind: row.EndedKind(), Severity: topology.Info, Shard: key.shard, Node: key.node, Message: message, Epoch: epoch})
	}
	l.problems[shard] = problems
	if len(events) > 0 {
		l.spawn(func() { l.Tell(l.life, events...) })
	}
	return act
}

// levelOf is the level of a problem in the log. A shard that serves nobody is one
// error, however many rows say why.
func levelOf(p *failover.Problem, all []failover.Problem) slog.Level {
	switch {
	case p.Severity == topology.Info:
		return slog.LevelInfo
	case p.Severity == topology.Critical && (p.Code == failover.NotServing ||
		!slices.ContainsFunc(all, func(q failover.Problem) bool { return q.Code == failover.NotServing && q.Shard == p.Shard })):
		return slog.LevelError
	}
	return slog.LevelWarn
}

// remember remembers a problem of a shard.
func (l *Loop) remember(shard string, key problemKey, state *problemState) {
	if l.told[shard] == nil {
		l.told[shard] = map[problemKey]*problemState{}
	}
	l.told[shard][key] = state
}

// recallTold finds in the kept events which problems were told of and have not
// ended, so that a new owner does not tell of them again.
func (l *Loop) recallTold(events []topology.Event) {
	now := time.Now()
	for i := range failover.Table {
		row := &failover.Table[i]
		if row.Event == "" {
			continue
		}
		for _, e := range events {
			key := problemKey{row.Code, e.Shard, e.Node}
			switch e.Kind {
			case row.Event:
				l.remember(e.Shard, key, &problemState{since: e.Time, last: now, told: true})
			case row.EndedKind():
				delete(l.told[e.Shard], key)
			}
		}
	}
}

// title joins lines for one line of text.
func title(lines []string) string { return strings.Join(lines, "; ") }

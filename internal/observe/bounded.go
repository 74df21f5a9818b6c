package observe

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Trouble that lasts is met again with every attempt. Its first lines tell of it; after
// them one a minute says that it goes on and how many were left out.
const (
	firstLines = 3
	lineEvery  = time.Minute
	// maxSubjects is of how many things a handler knows when it told of them.
	maxSubjects = 4096
)

// subjects are the attributes that tell apart what a line is about. Others, like errors
// with offsets in them, differ from one line to the next about the same.
var subjects = []string{"cluster", "shard", "node", "proxy", "operation", "activity", "remedy", "user", "what"}

// bounded is a handler that leaves out warnings and errors about the same thing.
type bounded struct {
	slog.Handler
	about string
	told  *told
}

// told is when lines were written, by what they were about.
type told struct {
	mu sync.Mutex
	by map[string]*telling
}

type telling struct {
	count   int
	last    time.Time // that one was written
	met     time.Time // that there was one
	leftOut int
}

func newBounded(h slog.Handler) slog.Handler {
	return &bounded{Handler: h, told: &told{by: map[string]*telling{}}}
}

// Handle implements slog.Handler.
func (b *bounded) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return b.Handler.Handle(ctx, r)
	}
	var about strings.Builder
	about.WriteString(r.Message)
	about.WriteString(b.about)
	r.Attrs(func(a slog.Attr) bool {
		note(&about, a)
		return true
	})
	write, leftOut := b.told.tell(about.String(), r.Time)
	if !write {
		return nil
	}
	if leftOut > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out", leftOut))
	}
	return b.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (b *bounded) WithAttrs(attrs []slog.Attr) slog.Handler {
	var about strings.Builder
	about.WriteString(b.about)
	for _, a := range attrs {
		note(&about, a)
	}
	return &bounded{b.Handler.WithAttrs(attrs), about.String(), b.told}
}

// WithGroup implements slog.Handler.
func (b *bounded) WithGroup(name string) slog.Handler {
	return &bounded{b.Handler.WithGroup(name), b.about, b.told}
}

func note(about *strings.Builder, a slog.Attr) {
	if slices.Contains(subjects, a.Key) {
		about.WriteString("\x00" + a.Key + "\x00" + a.Value.String())
	}
}

// tell says if a line is written, and how many were left out before it.
func (t *told) tell(about string, now time.Time) (write bool, leftOut int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.by[about]
	if of == nil || now.Sub(of.met) >= lineEvery {
		if len(t.by) >= maxSubjects {
			for key, other := range t.by {
				if now.Sub(other.met) >= lineEvery {
					delete(t.by, key)
				}
			}
			if len(t.by) >= maxSubjects {
				return true, 0
			}
		}
		of = &telling{}
		t.by[about] = of
	}
	of.met = now
	if of.count >= firstLines && now.Sub(of.last) < lineEvery {
		of.leftOut++
		return false, 0
	}
	leftOut, of.leftOut = of.leftOut, 0
	of.count++
	of.last = now
	return true, leftOut
}

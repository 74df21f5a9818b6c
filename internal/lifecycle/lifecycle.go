// Package lifecycle starts a program's components in order, and stops them in
// the opposite order when a signal arrives or one of them ends.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// Context returns a context that ends at SIGINT or SIGTERM. A second signal
// kills the process at once, for a person whose Ctrl-C takes too long.
func Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Group is a program's components. The zero value is ready for use.
type Group struct {
	// Log gets one line when stopping begins; nil for none.
	Log *slog.Logger
	// StopTimeout bounds how long one component may take to stop before the next
	// is told to; 0 for no limit.
	StopTimeout time.Duration

	components []component
}

type component struct {
	name string
	run  func(ctx context.Context) error
}

// Add appends a component. run works until its context ends; what it returns
// before that stops the whole group.
func (g *Group) Add(name string, run func(ctx context.Context) error) {
	g.components = append(g.components, component{name, run})
}

// running is a started component; err may be read once done closed.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// Run starts the components in the order they were added and returns when all
// have stopped. It stops them, last one first, when ctx ends or when any of
// them returns. Each gets its own context, so that a component still works
// while the ones after it stop. The error joins what components failed with;
// one that ended early without an error is named too, unless ctx had ended.
func (g *Group) Run(ctx context.Context) error {
	started := make([]*running, len(g.components))
	first := make(chan int, len(g.components))
	base := context.WithoutCancel(ctx)
	for i, c := range g.components {
		own, cancel := context.WithCancel(base)
		defer cancel()
		r := &running{cancel: cancel, done: make(chan struct{})}
		started[i] = r
		go func() {
			r.err = c.run(own)
			close(r.done)
			first <- i
		}()
	}

	culprit := -1
	select {
	case <-ctx.Done():
		g.log("stopping", "reason", context.Cause(ctx).Error())
	case culprit = <-first:
		g.log("stopping", "reason", g.components[culprit].name+" ended", "error", started[culprit].err)
	}

	var errs []error
	for i, r := range slices.Backward(started) {
		name := g.components[i].name
		r.cancel()
		switch {
		case !g.await(r.done):
			errs = append(errs, fmt.Errorf("%s: did not stop within %v", name, g.StopTimeout))
		case r.err != nil && (i == culprit || !errors.Is(r.err, context.Canceled)):
			errs = append(errs, fmt.Errorf("%s: %w", name, r.err))
		case r.err == nil && i == culprit:
			errs = append(errs, fmt.Errorf("%s: ended unexpectedly", name))
		}
	}
	return errors.Join(errs...)
}

// await tells if done closed within the stop timeout.
func (g *Group) await(done <-chan struct{}) bool {
	if g.StopTimeout == 0 {
		<-done
		return true
	}
	timer := time.NewTimer(g.StopTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func (g *Group) log(message string, args ...any) {
	if g.Log != nil {
		g.Log.Info(message, args...)
	}
}

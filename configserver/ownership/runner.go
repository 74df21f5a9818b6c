package ownership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/basalt-redis/basalt/configserver/store"
)

// runner keeps one claimed cluster's loop running.
type runner struct {
	name   string
	own    store.Ownership
	cancel context.CancelFunc
	ctx    context.Context
	done   chan struct{}
}

// stop tells the loop to end and does not wait.
func (r *runner) stop() { r.cancel() }

func (r *runner) stopping() bool { return r.ctx.Err() != nil }

func (r *runner) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// start runs the loop of a cluster that was just claimed.
func (m *Manager) start(ctx context.Context, name string, own store.Ownership) {
	r := &runner{name: name, own: own, done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.runners[name] = r
	m.cfg.Metrics.owned.Set(float64(len(m.runners)))
	go func() {
		// The loop stops at once when the right is gone.
		select {
		case <-own.Lost():
		case <-r.ctx.Done():
		}
		r.cancel()
	}()
	go func() {
		defer func() {
			r.cancel()
			close(r.done)
			select {
			case m.wake <- struct{}{}:
			default:
			}
		}()
		m.keepRunning(r)
	}()
}

// keepRunning makes and runs the loop, again and again if it fails, until the
// runner is stopped.
func (m *Manager) keepRunning(r *runner) {
	log := m.log.With("cluster", r.name)
	pause := firstPause
	for {
		began := time.Now()
		err := m.runOnce(r, log)
		if r.ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause = firstPause
		}
		m.cfg.Metrics.restarts.WithLabelValues(r.name).Inc()
		log.Error("the loop ended; it is started again", "after", pause, "error", err)
		sleep(r.ctx, pause)
		pause = min(2*pause, longPause)
	}
}

// runOnce makes a loop and runs it until it returns. A panic is an error.
func (m *Manager) runOnce(r *runner, log *slog.Logger) (err error) {
	defer func() {
		if p := recover(); p != nil {
			m.cfg.Metrics.panics.WithLabelValues(r.name).Inc()
			log.Error("the loop panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	loop, err := m.cfg.NewLoop(r.name, r.own)
	if err != nil {
		return err
	}
	m.publish(r.name, loop)
	defer m.publish(r.name, nil)
	if err = loop.Run(r.ctx); err == nil {
		err = errors.New("it returned without being told to")
	}
	return err
}

// publish makes a loop visible to Local, or nil: invisible.
func (m *Manager) publish(name string, loop Loop) {
	m.mu.Lock()
	if loop != nil {
		m.loops[name] = loop
	} else {
		delete(m.loops, name)
	}
	m.mu.Unlock()
	if m.cfg.Changed != nil {
		m.cfg.Changed(name, loop != nil)
	}
}

// release stops a loop and gives its cluster back, and forgets it when that
// worked; otherwise look does when the loop has ended.
func (m *Manager) release(ctx context.Context, r *runner) {
	m.giveBack(ctx, r)
	if r.ended() {
		m.forget(r.name, r)
	}
}

// giveBack stops a loop, waits for it within limits, and releases the cluster.
func (m *Manager) giveBack(ctx context.Context, r *runner) {
	r.stop()
	timer := time.NewTimer(m.cfg.StopTimeout)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		m.log.Error("the loop did not stop in time; the cluster is released all the same", "cluster", r.name, "after", m.cfg.StopTimeout)
	}
	if err := r.own.Release(ctx); err != nil {
		m.log.Warn("cannot release; others wait for the lease to end", "cluster", r.name, "error", err)
	}
}

// forget removes what is known of a runner that ended.
func (m *Manager) forget(name string, r *runner) {
	if m.runners[name] != r {
		return
	}
	select {
	case <-r.own.Lost():
		m.log.Info("no longer owned here", "cluster", name)
	default:
	}
	delete(m.runners, name)
	m.cfg.Metrics.owned.Set(float64(len(m.runners)))
	m.cfg.Metrics.forget(name)
}

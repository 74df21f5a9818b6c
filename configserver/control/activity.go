package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// clusterWide is the key of activities that are about no single shard.
const clusterWide = ""

// retryAfter is the pause after an activity that failed.
const retryAfter = 200 * time.Millisecond

// activity is something that is being done to a shard. There is at most one
// per shard at any time.
type activity struct {
	name string
	// yields: a failover may cut it short.
	yields bool
	cancel context.CancelFunc
	done   chan struct{}
}

// start begins an activity, after the one that is running ended; that one is
// told to. It must be called on the loop's goroutine.
func (l *Loop) start(shard, name string, yields bool, f func(ctx context.Context, x *failover.Executor) error) {
	ctx, cancel := context.WithCancel(l.life)
	a := &activity{name: name, yields: yields, cancel: cancel, done: make(chan struct{})}
	before := l.activities[shard]
	if before != nil {
		before.cancel()
	}
	l.activities[shard] = a
	log := l.log
	if shard != clusterWide {
		log = log.With("shard", shard)
	}
	l.spawn(func() {
		defer cancel()
		if before != nil {
			<-before.done
		}
		x := failover.NewExecutor(ctx, l, shard, log)
		err := f(ctx, x)
		x.Close()
		if errors.Is(err, store.ErrLeaseLost) {
			l.end(store.ErrLeaseLost)
		}
		close(a.done)
		l.later(func() {
			if l.activities[shard] == a {
				delete(l.activities, shard)
			}
			switch {
			case err == nil:
				delete(l.notBefore, shard)
				delete(l.failures, shard)
			case errors.Is(err, failover.ErrSuperseded), errors.Is(err, context.Canceled):
			default:
				log.Warn("will be tried again", "activity", name, "error", err)
				l.notBefore[shard] = time.Now().Add(retryAfter)
				l.failures[shard] = name + ": " + err.Error()
			}
			l.decide(map[string]bool{shard: true})
		})
	})
}

// Measured implements failover.Host.
func (l *Loop) Measured(kind topology.OperationKind, phase string, took time.Duration) {
	l.m.phaseSeconds.WithLabelValues(l.cfg.Cluster, string(kind), phase).Observe(took.Seconds())
}

// Record implements failover.Host.
func (l *Loop) Record() topology.Cluster { return *l.record.Load() }

// newID is a random id of an operation.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

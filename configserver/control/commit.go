package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// maxShared is how many changes may share one epoch.
const maxShared = 64

type commitRequest struct {
	reason string
	change failover.Change
	result chan commitResult
	// by is who asked for it at the API, if anybody did.
	by string
	// alone: it shares no epoch, for it may be what makes one too large.
	alone bool
	// adopts is the epoch of a record that leaves others out; 0 for the next one.
	adopts uint64
}

type commitResult struct {
	record topology.Cluster
	err    error
}

// Commit implements failover.Host. Changes that are asked for while a commit
// is on its way share the next epoch.
func (l *Loop) Commit(ctx context.Context, reason string, change failover.Change) (topology.Cluster, error) {
	return l.ask(ctx, &commitRequest{reason: reason, change: change, result: make(chan commitResult, 1)})
}

// ask waits until a change is committed.
func (l *Loop) ask(ctx context.Context, r *commitRequest) (topology.Cluster, error) {
	r.by = Asker(ctx)
	err := l.do(ctx, func() {
		l.pending = append(l.pending, r)
		l.startCommit()
	})
	if err != nil {
		return topology.Cluster{}, err
	}
	select {
	case result := <-r.result:
		return result.record, result.err
	case <-ctx.Done():
		return topology.Cluster{}, ctx.Err()
	case <-l.life.Done():
		return topology.Cluster{}, l.why()
	}
}

// why is the error of a call that the end of the loop cut short.
func (l *Loop) why() error {
	if errors.Is(context.Cause(l.life), store.ErrLeaseLost) {
		return store.ErrLeaseLost
	}
	return ErrStopped
}

// startCommit applies what is pending to the newest record and sends it on its
// way, unless a commit is on its way already.
func (l *Loop) startCommit() {
	if l.committing || len(l.pending) == 0 || !l.heard || l.deleted.Load() || l.life.Err() != nil {
		return
	}
	next := l.record.Load().Clone()
	next.Epoch++
	next.CommittedAt = time.Now().UTC().Round(time.Microsecond)
	var (
		sharing []*commitRequest
		events  []topology.Event
		reasons []string
	)
	for len(l.pending) > 0 && len(sharing) < maxShared {
		r := l.pending[0]
		if r.alone && len(sharing) > 0 {
			break
		}
		l.pending = l.pending[1:]
		try := next.Clone()
		told, err := l.try(r, &try)
		if err == nil && len(events)+len(told) > store.MaxEvents {
			l.pending = append([]*commitRequest{r}, l.pending...)
			break
		}
		if err != nil {
			r.result <- commitResult{err: err}
			continue
		}
		next, sharing, events, reasons = try, append(sharing, r), append(events, told...), append(reasons, r.reason)
		if r.alone {
			break
		}
	}
	if len(sharing) == 0 {
		return
	}
	skip := uint64(0)
	if sharing[0].adopts > 0 {
		skip = adoptMargin
	}
	next.RenewTerms(l.record.Load(), skip)
	// Once for all of them: it takes as long as there are shards.
	if err := next.Validate(); err != nil {
		if len(sharing) == 1 {
			sharing[0].result <- commitResult{err: err}
		} else {
			l.separate(sharing)
		}
		l.startCommit()
		return
	}
	next.Reason = joinReasons(reasons)
	l.committing = true
	l.spawn(func() { l.commit(next, events, sharing) })
}

// namedReasons is how many reasons of one epoch are named.
const namedReasons = 16

func joinReasons(reasons []string) string {
	if more := len(reasons) - namedReasons; more > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(reasons[:namedReasons], "; "), more)
	}
	return strings.Join(reasons, "; ")
}

// separate gives each of some changes an epoch of its own: one of them cannot be
// committed, and whose fault that is shows then.
func (l *Loop) separate(sharing []*commitRequest) {
	for _, r := range sharing {
		r.alone = true
	}
	l.pending = append(sharing, l.pending...)
}

// try applies a change to a clone of the record, which has the next epoch.
func (l *Loop) try(r *commitRequest, next *topology.Cluster) ([]topology.Event, error) {
	if r.adopts > 0 {
		next.Epoch = r.adopts
	} else if err := l.stands(); err != nil {
		return nil, err
	}
	if r.by == "" {
		return r.change(next)
	}
	before := next.Clone()
	told, err := r.change(next)
	if err == nil {
		err = next.Validate() // what somebody asked for is refused before it is told of
	}
	if err == nil {
		told = signed(append(told, audit(&before, next)...), r.by)
	}
	return told, err
}

// write writes a record in place of the newest one that is known here.
func (l *Loop) write(ctx context.Context, next topology.Cluster, events []topology.Event) error {
	before := l.Topology()
	if next.Epoch == before.Epoch+1 {
		return l.cfg.Ownership.Commit(ctx, next, events...)
	}
	return l.cfg.Ownership.Adopt(ctx, before, next, events...)
}

// commit writes a record and finds out for certain what became of it.
func (l *Loop) commit(next topology.Cluster, events []topology.Event, sharing []*commitRequest) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(l.life, storeTimeout)
	err := l.write(ctx, next, events)
	cancel()
	now := next
	landed := err == nil
	var refusal error
	if !landed {
		l.log.Warn("commit", "epoch", next.Epoch, "error", err)
		if errors.Is(err, store.ErrLeaseLost) {
			l.end(store.ErrLeaseLost)
			return
		}
		// Whatever the error says, only the record tells what happened. The same
		// epoch written again is compared in the store, so a late first attempt
		// and a second one cannot both land.
		refusal = err
		if now, err = l.readAgain(); err != nil {
			return // the loop is ending
		}
		landed = now.Epoch == next.Epoch && now.Reason == next.Reason && now.CommittedAt.Equal(next.CommittedAt)
	}
	if !landed && !errors.Is(refusal, store.ErrConflict) {
		// A store that answers reads and refuses writes (its quota is used up) must
		// not be asked in a tight loop.
		select {
		case <-time.After(retryAfter):
		case <-l.life.Done():
		}
	}
	how := map[bool]string{true: "landed", false: "refused"}[landed]
	l.m.commits.WithLabelValues(l.cfg.Cluster, how).Inc()
	l.m.commitSeconds.WithLabelValues(l.cfg.Cluster).Observe(time.Since(begun).Seconds())
	l.later(func() {
		l.committing = false
		seats := l.seatsVersion
		l.setRecord(now)
		switch {
		case !landed && errors.Is(refusal, store.ErrTooLarge):
			l.tooLarge(sharing)
		case !landed:
			l.pending = append(sharing, l.pending...) // decided again on the newest record
		default:
			for _, r := range sharing {
				r.result <- commitResult{record: now}
			}
			l.deliver(events)
		}
		l.startCommit()
		if l.seatsVersion != seats {
			l.decide(l.allShards()) // somebody lost a seat
		}
	})
}

// tooLarge deals with changes that the store does not take together. One that is
// too large by itself is refused, lest it keep all others waiting for ever.
func (l *Loop) tooLarge(sharing []*commitRequest) {
	if len(sharing) == 1 {
		sharing[0].result <- commitResult{err: topology.Preconditionf("the record of cluster %s would be larger than the store takes (etcd's --max-request-bytes): "+
			"make the change smaller, or remove users and parameters that are not needed", l.cfg.Cluster)}
		return
	}
	l.separate(sharing)
}

// readAgain reads the record until the store answers or the loop ends.
func (l *Loop) readAgain() (topology.Cluster, error) {
	for {
		ctx, cancel := context.WithTimeout(l.life, storeTimeout)
		c, err := l.cfg.Store.Cluster(ctx, l.cfg.Cluster)
		cancel()
		if err == nil {
			c.Complete()
			return c, nil
		}
		if l.life.Err() != nil {
			return topology.Cluster{}, err
		}
		if errors.Is(err, store.ErrNotFound) {
			l.end(store.ErrNotFound)
			return topology.Cluster{}, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-l.life.Done():
		}
	}
}

// setRecord makes a committed record the newest one and sends it to the proxies.
func (l *Loop) setRecord(c topology.Cluster) {
	before := l.record.Load()
	if c.Epoch < before.Epoch {
		l.ahead = ahead{before.Epoch, "this Configserver"}
	}
	l.wantUsers(&c, before)
	l.record.Store(&c)
	l.index(&c)
	l.obs.Recorded(before, &c, time.Now())
	for i := range c.Shards {
		s := &c.Shards[i]
		was := before.Shard(s.ID)
		if was == nil || s.Master != "" && s.Master != was.Master {
			// The new master writes a history of its own. While there is none, the
			// last one is what candidates are measured by.
			l.obs.NewMaster(s, time.Now())
			for _, n := range s.Nodes {
				delete(l.minSet, n.ID)
			}
			l.kick(s)
		}
		if was != nil && (s.Master != was.Master || s.Generation != was.Generation) {
			l.seatsAt[s.ID] = 0 // who waited for it was let in, and others were not yet
		}
	}
	if !slices.Equal(before.Seats, c.Seats) {
		l.noteSeats()
	}
	l.syncProbers(before.Policy != c.Policy)
	l.noteFiles()
	l.judge(l.allShards(), time.Now())
	l.makeView()
	l.publish()
	l.checkWaiters()
	l.m.epoch.WithLabelValues(l.cfg.Cluster).Set(float64(c.Epoch))
}

// makeView derives what proxies need from the newest record.
func (l *Loop) makeView() {
	c := l.record.Load()
	set := l.secrets.Load()
	view := &Common{Cluster: *c, Credentials: make([]ShardCredential, 0, len(c.Shards))}
	for i := range c.Shards {
		s := &c.Shards[i]
		if s.SecretID == "" {
			continue // no node was admitted yet
		}
		credential, err := l.credentialOf(set, c, s)
		if err != nil {
			l.log.Error("proxies get no credentials", "shard", s.ID, "error", err)
			continue
		}
		view.Credentials = append(view.Credentials, credential)
	}
	passwords := set.ClientPasswordSHA256ByIDs(c.ClientSecretIDs)
	view.ClientPasswordSHA256, view.Users = c.DefaultPasswords(passwords), c.EffectiveUsers(passwords)
	l.view = view
}

// derivedCredential is how proxies log in to a shard, and what that was derived from.
type derivedCredential struct {
	set      *credentials.Set
	secretID string
	ShardCredential
}

// credentialOf derives how proxies log in to a shard, unless it is known.
func (l *Loop) credentialOf(set *credentials.Set, c *topology.Cluster, s *topology.Shard) (ShardCredential, error) {
	known := l.credentials[s.ID]
	if known.set == set && known.secretID == s.SecretID && known.Generation == s.Generation {
		return known.ShardCredential, nil
	}
	key, err := set.SeatKey(s.SecretID, c.UID, s.ID, s.Generation)
	if err != nil {
		return ShardCredential{}, err
	}
	scripts, err := set.ScriptPassword(s.SecretID, c.UID, s.ID, s.Generation)
	credential := ShardCredential{Shard: s.ID, Generation: s.Generation, Key: key,
		ScriptUsername: credentials.ScriptUser(s.Generation), ScriptPassword: scripts}
	if err == nil {
		l.credentials[s.ID] = derivedCredential{set, s.SecretID, credential}
	}
	return credential, err
}

// Tell implements failover.Host.
func (l *Loop) Tell(ctx context.Context, events ...topology.Event) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := l.cfg.Ownership.Append(ctx, signed(events, Asker(ctx))...); err != nil {
		l.log.Warn("events were not kept", "first", events[0].Kind, "error", err)
		if errors.Is(err, store.ErrLeaseLost) {
			l.end(store.ErrLeaseLost)
		}
	}
}

// deliver hands reports to those who wait for them.
func (l *Loop) deliver(events []topology.Event) {
	for _, e := range events {
		if e.Report == nil {
			continue
		}
		l.m.operations.WithLabelValues(l.cfg.Cluster, e.Shard, string(e.Report.Kind), result(e.Report)).Inc()
		if waiting := l.reports[e.Report.ID]; waiting != nil {
			waiting <- *e.Report // has room for one
			delete(l.reports, e.Report.ID)
		}
	}
}

func result(r *topology.Report) string {
	if r.Succeeded {
		return "succeeded"
	}
	return "rolled-back"
}

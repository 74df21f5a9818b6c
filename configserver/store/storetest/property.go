package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// actor is one Configserver in the property test: a session, what it owns, and
// the record as it knows it, which may be stale.
type actor struct {
	id      string
	on      store.Store
	session store.Session
	own     store.Ownership
	known   topology.Cluster
}

var propertyRuns atomic.Int64

// neverTwoEpochsOrAGap lets two Configservers do whatever they like to one
// cluster, losing leases and acting on stale records. A commit that reports
// success adds exactly one epoch; one that fails adds none; nobody commits
// without owning.
func neverTwoEpochsOrAGap(t *testing.T, s *suite) {
	rapid.Check(t, func(r *rapid.T) {
		run := propertyRuns.Add(1)
		name := fmt.Sprintf("run-%d", run)
		model := s.create(t, name)
		owner := -1 // which actor holds the cluster, by the model
		var events uint64
		actors := make([]*actor, 2)
		for i, on := range []store.Store{s.Store, s.Other} {
			a := &actor{id: fmt.Sprintf("cs-%d-%d", i, run), on: on, known: model}
			a.session = must[store.Session](t)(on.Join(s.ctx, store.Replica{ID: a.id, Address: "x:1"}))
			actors[i] = a
			defer func() { _ = a.session.Close(context.Background()) }()
		}
		for range rapid.IntRange(1, 15).Draw(r, "steps") {
			i := rapid.IntRange(0, 1).Draw(r, "actor")
			a := actors[i]
			switch what := rapid.SampledFrom([]string{"claim", "commit", "commit", "commit", "append", "read", "release", "expire"}).Draw(r, "step"); what {
			case "claim":
				o, err := a.session.Claim(s.ctx, name)
				switch {
				case err == nil && owner == -1:
					owner, a.own = i, o
				case err == nil:
					r.Fatalf("%s claimed what %s owns", a.id, actors[owner].id)
				case !errors.Is(err, store.ErrOwned) || owner == -1:
					r.Fatalf("claim by %s, owner %d: %v", a.id, owner, err)
				}
			case "commit":
				if a.own == nil {
					continue
				}
				next := Next(a.known, fmt.Sprintf("by %s after %d", a.id, a.known.Epoch))
				next.Shards[0].Frozen = rapid.Bool().Draw(r, "frozen") // invalid without an operation
				err := a.own.Commit(s.ctx, next, event("Committed"))
				fits := a.known.Epoch == model.Epoch
				switch {
				case next.Shards[0].Frozen:
					if err == nil {
						r.Fatal("an invalid record was committed")
					}
				case owner != i:
					if !errors.Is(err, store.ErrLeaseLost) {
						r.Fatalf("%s does not own the cluster, commit: %v", a.id, err)
					}
				case !fits:
					if !errors.Is(err, store.ErrConflict) {
						r.Fatalf("commit of epoch %d after %d: %v", next.Epoch, model.Epoch, err)
					}
				case err != nil:
					r.Fatalf("commit by the owner: %v", err)
				default:
					model, a.known = next, next
					events++
				}
			case "append":
				if a.own == nil {
					continue
				}
				err := a.own.Append(s.ctx, event("Appended"))
				if (err == nil) != (owner == i) {
					r.Fatalf("append by %s, owner %d: %v", a.id, owner, err)
				}
				if err == nil {
					events++
				}
			case "read":
				a.known = must[topology.Cluster](t)(a.on.Cluster(s.ctx, name))
			case "release":
				if a.own == nil {
					continue
				}
				ok(t, a.own.Release(s.ctx))
				if owner == i {
					owner = -1
				}
			case "expire":
				s.ExpireLease(t, a.id)
				if owner == i {
					owner = -1
				}
				a.session = must[store.Session](t)(a.on.Join(s.ctx, store.Replica{ID: a.id, Address: "x:1"}))
			}
		}
		if newest := s.history(t, name); newest.Epoch != model.Epoch || newest.Reason != model.Reason {
			r.Fatalf("newest is epoch %d %q, want %d %q", newest.Epoch, newest.Reason, model.Epoch, model.Reason)
		}
		list := s.gapless(t, name)
		if len(list) > 0 && list[len(list)-1].Sequence != events || len(list) == 0 && events > 0 {
			r.Fatalf("%d events, the last should be %d", len(list), events)
		}
	})
}

package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

func claimersRace(t *testing.T, s *suite) {
	s.create(t, "a")
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		won []string
	)
	for i := range 8 {
		on := s.Store
		if i%2 == 1 {
			on = s.Other
		}
		id := fmt.Sprintf("cs-%d", i)
		session := s.join(t, on, id)
		wg.Go(func() {
			_, err := session.Claim(s.ctx, "a")
			if err == nil {
				mu.Lock()
				won = append(won, id)
				mu.Unlock()
			} else if !errors.Is(err, store.ErrOwned) {
				t.Errorf("claim of %s: %v", id, err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("claimed by %v", won)
	}
	if got := must[store.Replica](t)(s.Other.Owner(s.ctx, "a")); got.ID != won[0] || got.Address != won[0]+":7400" {
		t.Errorf("owner is %v, %s won", got, won[0])
	}
	if got := must[[]store.Replica](t)(s.Other.Replicas(s.ctx)); len(got) != 8 || got[0].ID != "cs-0" || got[7].ID != "cs-7" {
		t.Errorf("replicas %v", got)
	}
}

func claimRefuses(t *testing.T, s *suite) {
	s.create(t, "a")
	session := s.join(t, s.Store, "cs-a")
	_, err := session.Claim(s.ctx, "nobody")
	wantIs(t, "claim of an unknown cluster", err, store.ErrNotFound)
	must[store.Ownership](t)(session.Claim(s.ctx, "a"))
	_, err = session.Claim(s.ctx, "a")
	wantIs(t, "claim of one's own cluster", err, store.ErrOwned)
	ok(t, session.Close(s.ctx))
	_, err = session.Claim(s.ctx, "a")
	wantIs(t, "claim after close", err, store.ErrLeaseLost)
	if _, err := s.Store.Join(s.ctx, store.Replica{}); err == nil {
		t.Error("joined without an id")
	}
}

// ownersRaceToCommit: the owner before and its successor commit the same epoch
// at the same time; one of them wins and it is never the one before.
func ownersRaceToCommit(t *testing.T, s *suite) {
	c, old := s.own(t)
	successor := s.join(t, s.Other, "cs-b")
	for round := range 5 {
		s.ExpireLease(t, "cs-a")
		current := s.takeOver(t, successor, "a")
		results := make([]error, 2)
		var wg sync.WaitGroup
		for i, o := range []store.Ownership{old, current} {
			wg.Go(func() { results[i] = o.Commit(s.ctx, Next(c, fmt.Sprint("by ", i)), event("Raced")) })
		}
		wg.Wait()
		wantIs(t, "commit of the owner before", results[0], store.ErrLeaseLost)
		ok(t, results[1])
		if c = s.history(t, "a"); c.Reason != "by 1" || c.Epoch != uint64(round+2) {
			t.Fatalf("epoch %d was committed %q", c.Epoch, c.Reason)
		}
		ok(t, current.Release(s.ctx))
		old = must[store.Ownership](t)(s.join(t, s.Store, "cs-a").Claim(s.ctx, "a"))
	}
	if got := s.gapless(t, "a"); len(got) != 5 {
		t.Errorf("%d events of 5 commits", len(got))
	}
}

func lateWritesAreRefused(t *testing.T, s *suite) {
	c, o := s.own(t)
	s.ExpireLease(t, "cs-a")
	refused := func(when string) {
		for what, err := range map[string]error{
			"commit": o.Commit(s.ctx, Next(c, "late"), event("Late")),
			"append": o.Append(s.ctx, event("Late")),
			"member": o.PutMember(s.ctx, store.Member{ID: "late"}),
			"remove": o.RemoveMembers(s.ctx, "p"),
			"delete": o.Delete(s.ctx, c.Epoch),
		} {
			wantIs(t, what+" "+when, err, store.ErrLeaseLost)
		}
	}
	refused("while nobody owns the cluster")
	next := s.takeOver(t, s.join(t, s.Other, "cs-b"), "a")
	ok(t, next.PutMember(s.ctx, store.Member{ID: "p"}))
	refused("while another owns the cluster")
	ok(t, next.Commit(s.ctx, Next(c, "two")))
	refused("after another committed")
	if got := s.history(t, "a"); got.Reason != "two" {
		t.Errorf("newest is %q", got.Reason)
	}
	if got := must[[]store.Member](t)(s.Other.Members(s.ctx, "a")); len(got) != 1 || got[0].ID != "p" {
		t.Errorf("members %v", got)
	}
	if got := s.gapless(t, "a"); len(got) != 0 {
		t.Errorf("late events %v", got)
	}
	// Giving up what another has must not take it from them.
	ok(t, o.Release(s.ctx))
	ok(t, next.Append(s.ctx, event("StillMine")))
}

func lostClosesWithTheLease(t *testing.T, s *suite) {
	s.create(t, "a")
	session := s.join(t, s.Store, "cs-a")
	o := must[store.Ownership](t)(session.Claim(s.ctx, "a"))
	select {
	case <-session.Lost():
		t.Fatal("lost at once")
	case <-o.Lost():
		t.Fatal("ownership lost at once")
	default:
	}
	s.ExpireLease(t, "cs-a")
	closes(t, "Lost of the session", session.Lost())
	closes(t, "Lost of the ownership", o.Lost())
	if got := must[[]store.Replica](t)(s.Other.Replicas(s.ctx)); len(got) != 0 {
		t.Errorf("replicas %v", got)
	}
}

func sessionCloseFreesClusters(t *testing.T, s *suite) {
	s.create(t, "a")
	session := s.join(t, s.Store, "cs-a")
	o := must[store.Ownership](t)(session.Claim(s.ctx, "a"))
	ok(t, session.Close(s.ctx))
	ok(t, session.Close(s.ctx))
	closes(t, "Lost of the session", session.Lost())
	closes(t, "Lost of the ownership", o.Lost())
	wantIs(t, "append after close", o.Append(s.ctx, event("X")), store.ErrLeaseLost)
	must[store.Ownership](t)(s.join(t, s.Other, "cs-b").Claim(s.ctx, "a"))
}

func releaseFreesTheCluster(t *testing.T, s *suite) {
	c, o := s.own(t)
	ok(t, o.Release(s.ctx))
	ok(t, o.Release(s.ctx))
	closes(t, "Lost of the ownership", o.Lost())
	wantIs(t, "commit after release", o.Commit(s.ctx, Next(c, "late")), store.ErrLeaseLost)
	next := must[store.Ownership](t)(s.join(t, s.Other, "cs-b").Claim(s.ctx, "a"))
	ok(t, next.Commit(s.ctx, Next(c, "two")))
	ok(t, o.Release(s.ctx))
	ok(t, next.Append(s.ctx, event("StillMine")))
}

// rejoinUnderTheSameID is what a Configserver does that restarts before its
// lease ends: it is listed once, and gets its clusters when the old lease goes.
func rejoinUnderTheSameID(t *testing.T, s *suite) {
	c, old := s.own(t)
	again := must[store.Session](t)(s.Other.Join(s.ctx, store.Replica{ID: "cs-a", Address: "new:7400"}))
	defer func() { _ = again.Close(context.Background()) }()
	if got := must[[]store.Replica](t)(s.Store.Replicas(s.ctx)); len(got) != 1 || got[0].Address != "new:7400" {
		t.Errorf("replicas %v", got)
	}
	_, err := again.Claim(s.ctx, "a")
	wantIs(t, "claim before the old lease ended", err, store.ErrOwned)
	ok(t, old.Commit(s.ctx, Next(c, "two")))
	ok(t, old.Release(s.ctx))
	o := must[store.Ownership](t)(again.Claim(s.ctx, "a"))
	ok(t, o.Commit(s.ctx, Next(s.history(t, "a"), "three")))
	if got := must[topology.Cluster](t)(s.Store.Cluster(s.ctx, "a")); got.Epoch != 3 {
		t.Errorf("epoch %d", got.Epoch)
	}
}

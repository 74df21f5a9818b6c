// Package storetest is the one suite that every store.Store must pass.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/slot"
)

// Limits that the stores under test must be opened with.
const (
	KeepEpochs = 20
	KeepEvents = 25

	KeepScripts     = 10
	KeepScriptBytes = 10000
)

// Backend is a store under test.
type Backend struct {
	// Store and Other are two Configservers' views of the same state.
	Store, Other store.Store
	// ExpireLease ends the lease of a Configserver at the server; the client
	// side learns of it in its own time.
	ExpireLease func(t testing.TB, replica string)
}

// Cluster returns a valid record of a serving cluster at epoch 1.
func Cluster(name string) topology.Cluster {
	c := topology.Cluster{
		Name: name, Epoch: 1, Reason: "created", Phase: topology.Serving,
		CreatedAt: time.Unix(1700000000, 0).UTC(), CommittedAt: time.Unix(1700000000, 0).UTC(),
		WantShards: 2, WantNodes: 2, Policy: topology.DefaultPolicy(),
	}
	for i := range 2 {
		s := topology.Shard{ID: fmt.Sprintf("shard-%d", i), Slots: slot.Even(i, 2), Generation: 1}
		for j := range 2 {
			s.Nodes = append(s.Nodes, topology.Node{
				ID:          fmt.Sprintf("shard-%d-%d", i, j),
				Address:     fmt.Sprintf("127.0.0.1:%d", 10000+10*i+j),
				Incarnation: fmt.Sprintf("run-%d-%d", i, j),
				Readable:    true, Priority: 100, InSync: true,
			})
		}
		s.Master = s.Nodes[0].ID
		c.Shards = append(c.Shards, s)
	}
	return c
}

// Next returns the record that follows c.
func Next(c topology.Cluster, reason string) topology.Cluster {
	next := c.Clone()
	next.Epoch++
	next.Reason = reason
	return next
}

// suite runs one test on one backend.
type suite struct {
	Backend
	ctx context.Context
}

// Run runs the whole suite. open is called for each test and must return an
// empty state; it may share a server.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"CreateAndRead", createAndRead},
		{"CreateRefuses", createRefuses},
		{"CommitKeepsHistory", commitKeepsHistory},
		{"UsersAreNoHistory", usersAreNoHistory},
		{"CommitRefusesInvalid", commitRefusesInvalid},
		{"AdoptLeavesEpochsOut", adoptLeavesEpochsOut},
		{"ConflictingEpochs", conflictingEpochs},
		{"ClaimersRace", claimersRace},
		{"ClaimRefuses", claimRefuses},
		{"OwnersRaceToCommit", ownersRaceToCommit},
		{"LateWritesAreRefused", lateWritesAreRefused},
		{"LostClosesWithTheLease", lostClosesWithTheLease},
		{"SessionCloseFreesClusters", sessionCloseFreesClusters},
		{"ReleaseFreesTheCluster", releaseFreesTheCluster},
		{"RejoinUnderTheSameID", rejoinUnderTheSameID},
		{"HistoryIsLimited", historyIsLimited},
		{"EventsHaveNoGaps", eventsHaveNoGaps},
		{"EventsAfterAndLimit", eventsAfterAndLimit},
		{"WatchEvents", watchEvents},
		{"WatchEventsEndsWithTheCluster", watchEventsEndsWithTheCluster},
		{"Watch", watch},
		{"Members", members},
		{"DeleteAndRecreate", deleteAndRecreate},
		{"CancelledContext", cancelledContext},
		{"RecordsAreCopies", recordsAreCopies},
		{"NeverTwoEpochsOrAGap", neverTwoEpochsOrAGap},
		{"ScriptsAreKept", scriptsAreKept},
		{"ScriptsRefuse", scriptsRefuse},
		{"ScriptsAreFlushed", scriptsAreFlushed},
		{"ScriptsAreLimited", scriptsAreLimited},
		{"ScriptsArePutAtOnce", scriptsArePutAtOnce},
		{"ScriptsEndWithTheCluster", scriptsEndWithTheCluster},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			test.run(t, &suite{Backend: open(t), ctx: ctx})
		})
	}
}

// must fails the test on an error.
func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

// closes fails the test unless a channel closes soon.
func closes[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case _, open := <-c:
			if !open {
				return
			}
		case <-deadline:
			t.Fatalf("%s did not close", what)
		}
	}
}

// create makes a cluster.
func (s *suite) create(t testing.TB, name string) topology.Cluster {
	t.Helper()
	c := Cluster(name)
	ok(t, s.Store.Create(s.ctx, c))
	return c
}

// join makes a session on a store.
func (s *suite) join(t testing.TB, on store.Store, id string) store.Session {
	t.Helper()
	session := must[store.Session](t)(on.Join(s.ctx, store.Replica{ID: id, Address: id + ":7400"}))
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	return session
}

// own creates cluster "a" and claims it.
func (s *suite) own(t testing.TB) (topology.Cluster, store.Ownership) {
	t.Helper()
	c := s.create(t, "a")
	return c, must[store.Ownership](t)(s.join(t, s.Store, "cs-a").Claim(s.ctx, "a"))
}

// takeOver claims a cluster until its owner's lease has gone.
func (s *suite) takeOver(t testing.TB, session store.Session, name string) store.Ownership {
	t.Helper()
	for {
		o, err := session.Claim(s.ctx, name)
		if err == nil {
			return o
		}
		if !errors.Is(err, store.ErrOwned) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// history checks the kept epochs of a cluster and returns the newest.
func (s *suite) history(t testing.TB, name string) topology.Cluster {
	t.Helper()
	list := must[[]topology.Cluster](t)(s.Other.Epochs(s.ctx, name, 10*KeepEpochs))
	for i, c := range list {
		ok(t, c.Validate())
		if i > 0 && c.Epoch != list[i-1].Epoch-1 {
			t.Fatalf("epoch %d before epoch %d", c.Epoch, list[i-1].Epoch)
		}
	}
	newest := must[topology.Cluster](t)(s.Store.Cluster(s.ctx, name))
	if newest.Epoch != list[0].Epoch || newest.Reason != list[0].Reason {
		t.Fatalf("the record is epoch %d %q, the newest of the history %d %q",
			newest.Epoch, newest.Reason, list[0].Epoch, list[0].Reason)
	}
	if want := min(int(newest.Epoch), KeepEpochs); len(list) != want {
		t.Fatalf("%d epochs are kept, want %d", len(list), want)
	}
	return newest
}

// gapless checks that kept events are numbered without a gap.
func (s *suite) gapless(t testing.TB, name string) []topology.Event {
	t.Helper()
	list := must[[]topology.Event](t)(s.Other.Events(s.ctx, name, 0, 10*KeepEvents))
	for i, e := range list {
		if e.Cluster != name {
			t.Fatalf("event %d is of cluster %q", e.Sequence, e.Cluster)
		}
		if i > 0 && e.Sequence != list[i-1].Sequence+1 {
			t.Fatalf("event %d after event %d", e.Sequence, list[i-1].Sequence)
		}
	}
	return list
}

func event(kind string) topology.Event {
	return topology.Event{Kind: kind, Severity: topology.Info, Message: kind, Time: time.Unix(1700000000, 0).UTC()}
}

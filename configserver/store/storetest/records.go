package storetest

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

func createAndRead(t *testing.T, s *suite) {
	for _, name := range []string{"b", "a", "a-b"} {
		s.create(t, name)
	}
	got := must[topology.Cluster](t)(s.Other.Cluster(s.ctx, "b"))
	if want := Cluster("b"); !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%+v\nwant\n%+v", got, want)
	}
	list := must[[]topology.Cluster](t)(s.Other.Clusters(s.ctx))
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	if !reflect.DeepEqual(names, []string{"a", "a-b", "b"}) {
		t.Errorf("clusters %v", names)
	}
	_, err := s.Store.Cluster(s.ctx, "nobody")
	wantIs(t, "unknown cluster", err, store.ErrNotFound)
	_, err = s.Store.Epoch(s.ctx, "b", 2)
	wantIs(t, "unknown epoch", err, store.ErrNotFound)
	_, err = s.Store.Epochs(s.ctx, "nobody", 1)
	wantIs(t, "epochs of an unknown cluster", err, store.ErrNotFound)
	_, err = s.Store.Events(s.ctx, "nobody", 0, 1)
	wantIs(t, "events of an unknown cluster", err, store.ErrNotFound)
	_, err = s.Store.WatchEvents(s.ctx, "nobody", 0)
	wantIs(t, "watch of an unknown cluster", err, store.ErrNotFound)
	_, err = s.Store.Members(s.ctx, "nobody")
	wantIs(t, "members of an unknown cluster", err, store.ErrNotFound)
	_, err = s.Store.Owner(s.ctx, "b")
	wantIs(t, "owner of a free cluster", err, store.ErrNotFound)
}

func createRefuses(t *testing.T, s *suite) {
	c := s.create(t, "a")
	wantIs(t, "create twice", s.Other.Create(s.ctx, c), store.ErrExists)
	c.Name = "Not/A Name"
	var invalid *topology.InvalidError
	if err := s.Store.Create(s.ctx, c); !errors.As(err, &invalid) {
		t.Errorf("create with a bad name: %v", err)
	}
	c = Cluster("b")
	c.Epoch = 2
	if s.Store.Create(s.ctx, c) == nil {
		t.Error("created at epoch 2")
	}
}

func commitKeepsHistory(t *testing.T, s *suite) {
	c, o := s.own(t)
	for _, reason := range []string{"two", "three", "four"} {
		c = Next(c, reason)
		ok(t, o.Commit(s.ctx, c, event("Committed")))
	}
	if got := s.history(t, "a"); got.Epoch != 4 || got.Reason != "four" {
		t.Errorf("newest is epoch %d %q", got.Epoch, got.Reason)
	}
	if got := must[topology.Cluster](t)(s.Other.Epoch(s.ctx, "a", 2)); got.Reason != "two" {
		t.Errorf("epoch 2 is %q", got.Reason)
	}
	if got := must[topology.Cluster](t)(s.Other.Epoch(s.ctx, "a", 1)); got.Reason != "created" {
		t.Errorf("epoch 1 is %q", got.Reason)
	}
	list := must[[]topology.Cluster](t)(s.Other.Epochs(s.ctx, "a", 2))
	if len(list) != 2 || list[0].Epoch != 4 || list[1].Epoch != 3 {
		t.Errorf("the two newest epochs are %v", list)
	}
	if got := s.gapless(t, "a"); len(got) != 3 || got[0].Sequence != 1 {
		t.Errorf("events %+v", got)
	}
}

// usersAreNoHistory: users are part of the record, and of no epoch.
func usersAreNoHistory(t *testing.T, s *suite) {
	c, o := s.own(t)
	for range 2 {
		c.Epoch++
		if err := c.SetUser("app", []string{"on", "nopass"}, nil); err != nil {
			t.Fatal(err)
		}
		if err := o.Commit(s.ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	if got := must[topology.Cluster](t)(s.Other.Cluster(s.ctx, c.Name)); !reflect.DeepEqual(got.Users, c.Users) || len(got.Users) != 1 {
		t.Errorf("users %v, want %v", got.Users, c.Users)
	}
	all := must[[]topology.Cluster](t)(s.Other.Clusters(s.ctx))
	if len(all) != 1 || len(all[0].Users) != 1 {
		t.Errorf("all clusters: %v", all)
	}
	history := append(must[[]topology.Cluster](t)(s.Other.Epochs(s.ctx, c.Name, 10)), must[topology.Cluster](t)(s.Other.Epoch(s.ctx, c.Name, 2)), must[topology.Cluster](t)(s.Other.Epoch(s.ctx, c.Name, 3)))
	for _, past := range history {
		if len(past.Users) > 0 {
			t.Errorf("epoch %d has users", past.Epoch)
		}
	}
}

func commitRefusesInvalid(t *testing.T, s *suite) {
	c, o := s.own(t)
	bad := Next(c, "no master")
	bad.Shards[0].Master = "nobody"
	if o.Commit(s.ctx, bad) == nil {
		t.Error("an invalid record was committed")
	}
	other := Next(c, "renamed")
	other.Name = "b"
	if o.Commit(s.ctx, other) == nil {
		t.Error("a record of another cluster was committed")
	}
	if o.Commit(s.ctx, Next(c, "bad event"), topology.Event{Cluster: "b", Kind: "X"}) == nil {
		t.Error("an event of another cluster was committed")
	}
	if o.Commit(s.ctx, Next(c, "many"), make([]topology.Event, store.MaxEvents+1)...) == nil {
		t.Error("too many events were committed")
	}
	if got := s.history(t, "a"); got.Epoch != 1 {
		t.Errorf("epoch %d after refused commits", got.Epoch)
	}
	many := make([]topology.Event, store.MaxEvents)
	for i := range many {
		many[i] = event("Many")
	}
	ok(t, o.Commit(s.ctx, Next(c, "as many as fit"), many...))
	if got := s.gapless(t, "a"); len(got) < KeepEvents || got[len(got)-1].Sequence != store.MaxEvents {
		t.Errorf("%d events, the last is %d", len(got), got[len(got)-1].Sequence)
	}
}

func conflictingEpochs(t *testing.T, s *suite) {
	c, o := s.own(t)
	two := Next(c, "two")
	ok(t, o.Commit(s.ctx, two))
	wantIs(t, "epoch 2 again", o.Commit(s.ctx, Next(c, "another two"), event("Lost")), store.ErrConflict)
	skip := Next(two, "four")
	skip.Epoch++
	wantIs(t, "epoch 4 after 2", o.Commit(s.ctx, skip, event("Lost")), store.ErrConflict)
	ok(t, o.Commit(s.ctx, Next(two, "three")))
	if got := s.history(t, "a"); got.Reason != "three" {
		t.Errorf("newest is %q", got.Reason)
	}
	if got := s.gapless(t, "a"); len(got) != 0 {
		t.Errorf("events of refused commits: %v", got)
	}
}

func members(t *testing.T, s *suite) {
	_, o := s.own(t)
	for _, id := range []string{"p2", "p1", "p3"} {
		ok(t, o.PutMember(s.ctx, store.Member{ID: id, Address: "127.0.0.1:1", Version: "v1"}))
	}
	ok(t, o.PutMember(s.ctx, store.Member{ID: "p1", Address: "127.0.0.1:2", Seat: 3, SeatVersion: 7}))
	got := must[[]store.Member](t)(s.Other.Members(s.ctx, "a"))
	want := []store.Member{{ID: "p1", Address: "127.0.0.1:2", Seat: 3, SeatVersion: 7}, {ID: "p2", Address: "127.0.0.1:1", Version: "v1"}, {ID: "p3", Address: "127.0.0.1:1", Version: "v1"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	ok(t, o.RemoveMembers(s.ctx, "p1", "p3", "p1", "nobody"))
	ok(t, o.RemoveMembers(s.ctx))
	if got = must[[]store.Member](t)(s.Other.Members(s.ctx, "a")); len(got) != 1 || got[0].ID != "p2" {
		t.Errorf("members left %v", got)
	}
	for _, id := range []string{"", "a/b", "a b", "é", string(make([]byte, 200))} {
		var invalid *topology.InvalidError
		if err := o.PutMember(s.ctx, store.Member{ID: id}); !errors.As(err, &invalid) {
			t.Errorf("member id %q: %v", id, err)
		}
	}
}

func deleteAndRecreate(t *testing.T, s *suite) {
	c, o := s.own(t)
	s.create(t, "a-b")
	two := Next(c, "two")
	ok(t, o.Commit(s.ctx, two, event("X"), event("Y")))
	ok(t, o.PutMember(s.ctx, store.Member{ID: "p1"}))
	wantIs(t, "delete at an old epoch", o.Delete(s.ctx, 1), store.ErrConflict)
	ok(t, o.Delete(s.ctx, 2))
	closes(t, "Lost of a deleted cluster", o.Lost())
	_, err := s.Other.Cluster(s.ctx, "a")
	wantIs(t, "deleted cluster", err, store.ErrNotFound)
	_, err = s.Other.Epoch(s.ctx, "a", 1)
	wantIs(t, "epoch of a deleted cluster", err, store.ErrNotFound)
	_, err = s.Other.Owner(s.ctx, "a")
	wantIs(t, "owner of a deleted cluster", err, store.ErrNotFound)

	c = s.create(t, "a")
	wantIs(t, "commit of the owner before", o.Commit(s.ctx, Next(c, "late")), store.ErrLeaseLost)
	if got := s.history(t, "a"); got.Epoch != 1 {
		t.Errorf("recreated at epoch %d", got.Epoch)
	}
	if got := must[[]store.Member](t)(s.Other.Members(s.ctx, "a")); len(got) != 0 {
		t.Errorf("members of the cluster before: %v", got)
	}
	session := s.join(t, s.Other, "cs-b")
	again := must[store.Ownership](t)(session.Claim(s.ctx, "a"))
	ok(t, again.Commit(s.ctx, Next(c, "two"), event("Z")))
	if got := s.gapless(t, "a"); len(got) != 1 || got[0].Sequence != 1 || got[0].Kind != "Z" {
		t.Errorf("events after recreation %v", got)
	}
	must[topology.Cluster](t)(s.Other.Cluster(s.ctx, "a-b"))
}

func cancelledContext(t *testing.T, s *suite) {
	c, o := s.own(t)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	for what, err := range map[string]error{
		"commit": o.Commit(ctx, Next(c, "two"), event("X")),
		"append": o.Append(ctx, event("X")),
		"member": o.PutMember(ctx, store.Member{ID: "p"}),
		"delete": o.Delete(ctx, 1),
	} {
		wantIs(t, what, err, context.Canceled)
	}
	ok(t, o.Commit(s.ctx, Next(c, "two"), event("X")))
	s.history(t, "a")
	s.gapless(t, "a")
}

func recordsAreCopies(t *testing.T, s *suite) {
	c, o := s.own(t)
	next := Next(c, "two")
	ok(t, o.Commit(s.ctx, next))
	next.Shards[0].Nodes[0].ID = "changed"
	read := must[topology.Cluster](t)(s.Store.Cluster(s.ctx, "a"))
	read.Shards[0].Nodes[0].ID = "changed"
	if got := s.history(t, "a"); got.Shards[0].Nodes[0].ID != "shard-0-0" {
		t.Error("a caller changed a committed record")
	}
}

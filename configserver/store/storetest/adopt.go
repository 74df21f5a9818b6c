package storetest

import (
	"context"
	"testing"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// adoptLeavesEpochsOut: a record may be replaced by one of a much higher epoch, once
// and by its owner only, and nothing follows the epochs before it any more.
func adoptLeavesEpochsOut(t *testing.T, s *suite) {
	c, o := s.own(t)
	for range 3 {
		before := c
		c = Next(c, "as usual")
		ok(t, o.Commit(s.ctx, c))
		wantIs(t, "a commit that lands twice", o.Commit(s.ctx, Next(before, "late")), store.ErrConflict)
	}
	adopted := Next(c, "adopted")
	adopted.Epoch = c.Epoch + 100
	stale := c
	stale.Epoch--
	wantIs(t, "adopt over another epoch than the record's", o.Adopt(s.ctx, stale, adopted), store.ErrConflict)
	if o.Adopt(s.ctx, c, Next(c, "no room")) == nil {
		t.Error("the next epoch was adopted")
	}
	back := adopted.Clone()
	back.Shards[0].Generation = 0
	if o.Adopt(s.ctx, c, back) == nil {
		t.Error("an invalid record was adopted")
	}
	ok(t, o.Adopt(s.ctx, c, adopted, event("Adopted")))
	wantIs(t, "adopt again", o.Adopt(s.ctx, c, adopted), store.ErrConflict)
	for _, late := range []topology.Cluster{c, Next(c, "late"), Next(stale, "late")} {
		wantIs(t, "a commit of before that lands late", o.Commit(s.ctx, late), store.ErrConflict)
	}
	if got := must[topology.Cluster](t)(s.Other.Cluster(s.ctx, "a")); got.Epoch != adopted.Epoch || got.Reason != "adopted" {
		t.Errorf("the record is epoch %d %q", got.Epoch, got.Reason)
	}
	next := Next(adopted, "goes on")
	ok(t, o.Commit(s.ctx, next, event("Committed")))
	list := must[[]topology.Cluster](t)(s.Other.Epochs(s.ctx, "a", 10*KeepEpochs))
	if len(list) != 2 || list[0].Epoch != next.Epoch || list[1].Epoch != adopted.Epoch {
		t.Errorf("kept epochs: %v", list)
	}
	if got := s.gapless(t, "a"); len(got) != 2 || got[0].Kind != "Adopted" {
		t.Errorf("events %+v", got)
	}
	s.ExpireLease(t, "cs-a")
	closes(t, "Lost", o.Lost())
	again := Next(next, "adopted again")
	again.Epoch += 100
	wantIs(t, "adopt without the lease", o.Adopt(context.WithoutCancel(s.ctx), next, again), store.ErrLeaseLost)
}

package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

func historyIsLimited(t *testing.T, s *suite) {
	c, o := s.own(t)
	for c.Epoch < KeepEpochs+10 {
		c = Next(c, fmt.Sprint("epoch ", c.Epoch+1))
		ok(t, o.Commit(s.ctx, c, event("One"), event("Two")))
	}
	s.history(t, "a")
	_, err := s.Other.Epoch(s.ctx, "a", c.Epoch-KeepEpochs)
	wantIs(t, "compacted epoch", err, store.ErrNotFound)
	must[topology.Cluster](t)(s.Other.Epoch(s.ctx, "a", c.Epoch-KeepEpochs+1))
	events := s.gapless(t, "a")
	if last := events[len(events)-1].Sequence; last != 2*(c.Epoch-1) {
		t.Errorf("the last event is %d, want %d", last, 2*(c.Epoch-1))
	}
	if len(events) < KeepEvents || len(events) > KeepEvents+store.MaxEvents {
		t.Errorf("%d events are kept, want about %d", len(events), KeepEvents)
	}
}

func eventsHaveNoGaps(t *testing.T, s *suite) {
	c, o := s.own(t)
	var wg sync.WaitGroup
	const writers, each = 4, 5
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				if err := o.Append(s.ctx, event(fmt.Sprintf("Writer%d", i)), event(fmt.Sprintf("Writer%dAgain%d", i, j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range each {
			c = Next(c, "more")
			if err := o.Commit(s.ctx, c, event("Committed")); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	events := s.gapless(t, "a")
	if last := events[len(events)-1].Sequence; last != writers*each*2+each {
		t.Errorf("the last event is %d, want %d", last, writers*each*2+each)
	}
	// The next owner goes on counting where this one stopped.
	ok(t, o.Release(s.ctx))
	next := must[store.Ownership](t)(s.join(t, s.Other, "cs-b").Claim(s.ctx, "a"))
	ok(t, next.Append(s.ctx, event("Next")))
	events = s.gapless(t, "a")
	if last := events[len(events)-1]; last.Kind != "Next" {
		t.Errorf("the last event is %+v", last)
	}
}

func eventsAfterAndLimit(t *testing.T, s *suite) {
	_, o := s.own(t)
	for i := range 10 {
		ok(t, o.Append(s.ctx, event(fmt.Sprintf("E%d", i+1))))
	}
	for _, want := range []struct {
		after uint64
		limit int
		first uint64
		count int
	}{
		{0, 100, 1, 10}, {0, 3, 8, 3}, {4, 100, 5, 6}, {4, 2, 9, 2}, {8, 5, 9, 2}, {10, 5, 0, 0}, {99, 5, 0, 0}, {0, 0, 0, 0},
	} {
		got := must[[]topology.Event](t)(s.Other.Events(s.ctx, "a", want.after, want.limit))
		if len(got) != want.count || len(got) > 0 && got[0].Sequence != want.first {
			t.Errorf("events after %d, at most %d: got %v", want.after, want.limit, got)
		}
	}
	report := event("Reported")
	report.Report = &topology.Report{Shard: "shard-0", OffsetGap: -1, Operation: topology.Operation{ID: "1", Unacked: []string{"p"}}}
	ok(t, o.Append(s.ctx, report))
	got := must[[]topology.Event](t)(s.Other.Events(s.ctx, "a", 10, 1))
	if len(got) != 1 || got[0].Report == nil || got[0].Report.OffsetGap != -1 || got[0].Report.Unacked[0] != "p" {
		t.Errorf("report was kept as %+v", got)
	}
}

// next receives one event or fails the test.
func next(t testing.TB, c <-chan topology.Event) topology.Event {
	t.Helper()
	select {
	case e, open := <-c:
		if !open {
			t.Fatal("the events ended")
		}
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event came")
	}
	return topology.Event{}
}

func watchEvents(t *testing.T, s *suite) {
	c, o := s.own(t)
	for i := range 5 {
		ok(t, o.Append(s.ctx, event(fmt.Sprintf("E%d", i+1))))
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	events := must[<-chan topology.Event](t)(s.Other.WatchEvents(ctx, "a", 2))
	for want := uint64(3); want <= 5; want++ {
		if e := next(t, events); e.Sequence != want {
			t.Fatalf("event %d, want %d", e.Sequence, want)
		}
	}
	ok(t, o.Commit(s.ctx, Next(c, "two"), event("E6"), event("E7")))
	ok(t, o.Append(s.ctx, event("E8")))
	for want := uint64(6); want <= 8; want++ {
		if e := next(t, events); e.Sequence != want || e.Kind != fmt.Sprintf("E%d", want) {
			t.Fatalf("event %d %s, want %d", e.Sequence, e.Kind, want)
		}
	}
	cancel()
	closes(t, "the watch", events)
}

func watchEventsEndsWithTheCluster(t *testing.T, s *suite) {
	_, o := s.own(t)
	events := must[<-chan topology.Event](t)(s.Other.WatchEvents(s.ctx, "a", 0))
	ok(t, o.Append(s.ctx, event("Last")))
	if e := next(t, events); e.Kind != "Last" {
		t.Fatalf("event %+v", e)
	}
	ok(t, o.Delete(s.ctx, 1))
	closes(t, "the watch", events)
}

func watch(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	signals := s.Other.Watch(ctx)
	// A watch needs a moment to be established; from then on nothing is missed.
	time.Sleep(200 * time.Millisecond)
	await := func(what string) {
		t.Helper()
		select {
		case <-signals:
		case <-time.After(10 * time.Second):
			t.Fatalf("no signal after %s", what)
		}
		// Let signals of the same change pass.
		for {
			select {
			case <-signals:
			case <-time.After(100 * time.Millisecond):
				return
			}
		}
	}
	s.create(t, "a")
	await("a new cluster")
	session := s.join(t, s.Store, "cs-a")
	await("a new replica")
	o := must[store.Ownership](t)(session.Claim(s.ctx, "a"))
	await("a claim")
	ok(t, o.Release(s.ctx))
	await("a release")
	o = must[store.Ownership](t)(session.Claim(s.ctx, "a"))
	await("another claim")
	ok(t, o.Delete(s.ctx, 1))
	await("a deletion")
	ok(t, session.Close(s.ctx))
	await("the end of a session")
	cancel()
	closes(t, "the watch", signals)
}

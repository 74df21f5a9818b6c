package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/storetest"
	"github.com/basalt-redis/basalt/configserver/topology"
)

func mustJoin(t *testing.T, s store.Store, id string) store.Session {
	t.Helper()
	session, err := s.Join(t.Context(), store.Replica{ID: id, Address: "x:1"})
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func mustClaim(t *testing.T, session store.Session, cluster string) store.Ownership {
	t.Helper()
	o, err := session.Claim(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// createAndClaim makes a cluster whose owner is cs-a.
func createAndClaim(t *testing.T, s store.Store, c topology.Cluster) (store.Session, store.Ownership) {
	t.Helper()
	if err := s.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	session := mustJoin(t, s, "cs-a")
	return session, mustClaim(t, session, c.Name)
}

// TestEtcdRestarts stops etcd under a session, watches and an owner: writes are
// uncertain, the lease is lost in time, and when etcd is back on the same data
// a new session goes on and the watches deliver what they missed.
func TestEtcdRestarts(t *testing.T) {
	dir, address := t.TempDir(), freePort(t)
	etcd := startEtcd(t, dir, address)
	s := open(t, address, "/restart/")
	c := storetest.Cluster("a")
	session, o := createAndClaim(t, s, c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := s.WatchEvents(ctx, "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	changes := s.Watch(ctx)
	two := storetest.Next(c, "two")
	if err := o.Commit(t.Context(), two, topology.Event{Kind: "One"}); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Kind != "One" {
		t.Fatalf("event %+v", e)
	}

	if err := etcd.Close(); err != nil {
		t.Fatal(err)
	}
	stopped, lost := time.Now(), make(chan time.Duration, 1)
	go func() {
		<-session.Lost()
		lost <- time.Since(stopped)
	}()
	short, cancelShort := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancelShort()
	// On a slow machine etcd takes longer to stop than the lease lasts.
	if err := o.Commit(short, storetest.Next(two, "into the void")); !errors.Is(err, store.ErrUncertain) && !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("commit without etcd: %v", err)
	}
	if _, err := s.Cluster(t.Context(), "a"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("read without etcd: %v", err)
	}
	select {
	case took := <-lost:
		if took > 3*time.Second { // a second for a machine with much else to do
			t.Errorf("the lease of 2 s was lost after %v", took)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the lease was not lost")
	}
	if err := o.Append(t.Context(), topology.Event{Kind: "Late"}); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("append after the lease was lost: %v", err)
	}

	etcd = startEtcd(t, dir, address)
	defer etcd.Close()
	deadline := time.Now().Add(10 * time.Second)
	var again store.Session
	for again == nil {
		if again, err = s.Join(t.Context(), store.Replica{ID: "cs-b", Address: "y:1"}); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer again.Close(context.Background())
	var next store.Ownership
	for next == nil {
		next, err = again.Claim(t.Context(), "a")
		if err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	got, err := s.Cluster(t.Context(), "a")
	if err != nil || got.Epoch != 2 {
		t.Fatalf("epoch %d, %v", got.Epoch, err)
	}
	if err := next.Commit(t.Context(), storetest.Next(got, "three"), topology.Event{Kind: "Two"}); err != nil {
		t.Fatal(err)
	}
	select {
	case e, ok := <-events:
		if !ok || e.Kind != "Two" || e.Sequence != 2 {
			t.Errorf("event after the restart %+v, %v", e, ok)
		}
	case <-time.After(10 * time.Second):
		t.Error("no event after the restart")
	}
	select {
	case _, ok := <-changes:
		if !ok {
			t.Error("the watch ended")
		}
	case <-time.After(10 * time.Second):
		t.Error("no signal after the restart")
	}
}

// TestLostAnswers runs commits whose context ends while they are under way. What
// is reported as uncertain landed or not; either way the epochs and events have
// no gap and the owner goes on after reading.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t, t.TempDir(), freePort(t))
	defer etcd.Close()
	s := open(t, etcd.Endpoint(), "/lost/")
	c := storetest.Cluster("a")
	session, o := createAndClaim(t, s, c)
	defer session.Close(context.Background())
	landed, lost := 0, 0
	for i := range 60 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*50)*time.Microsecond)
		err := o.Commit(ctx, storetest.Next(c, fmt.Sprint("attempt ", i)), topology.Event{Kind: "Committed"})
		cancel()
		if err != nil && !errors.Is(err, store.ErrUncertain) && !errors.Is(err, store.ErrConflict) && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		now, readErr := s.Cluster(t.Context(), "a")
		if readErr != nil {
			t.Fatal(readErr)
		}
		if now.Epoch < c.Epoch || err == nil && now.Epoch != c.Epoch+1 {
			t.Fatalf("epoch %d after %d, commit: %v", now.Epoch, c.Epoch, err)
		}
		if err == nil || now.Epoch > c.Epoch {
			landed++
		} else {
			lost++
		}
		c = now
	}
	t.Logf("%d landed, %d did not", landed, lost)
	// Whatever is still under way lands or not before this one.
	time.Sleep(200 * time.Millisecond)
	c, err := s.Cluster(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Append(t.Context(), topology.Event{Kind: "Last"}); err != nil {
		t.Fatal(err)
	}
	events, err := s.Events(t.Context(), "a", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if i > 0 && e.Sequence != events[i-1].Sequence+1 {
			t.Fatalf("event %d after %d", e.Sequence, events[i-1].Sequence)
		}
	}
	if last := events[len(events)-1]; last.Kind != "Last" || last.Sequence != c.Epoch {
		t.Errorf("last event %d %s at epoch %d: one per commit and one more", last.Sequence, last.Kind, c.Epoch)
	}
}

// TestTheLargestCluster commits as many shards and nodes as there may be,
// within the request limit that an external etcd has by default (1.5 MiB).
func TestTheLargestCluster(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t, t.TempDir(), freePort(t))
	defer etcd.Close()
	s := open(t, etcd.Endpoint(), "/large/")
	c := storetest.Cluster("a")
	c.Shards, c.WantShards, c.WantNodes = nil, topology.MaxShards, topology.MaxNodes
	for i := range topology.MaxShards {
		shard := c.AddShard(fmt.Sprintf("shard-%d", i))
		for j := range topology.MaxNodes {
			shard.Nodes = append(shard.Nodes, topology.Node{
				ID:      fmt.Sprintf("shard-%d-%d", i, j),
				Address: fmt.Sprintf("basalt-a-shard-%d-%d.basalt-a-shard-%d.production.svc.cluster.local:6379", i, j, i),
				// Incarnations are random; digits of a hash are as hard to compress.
				Incarnation: incarnation(i, j), Readable: true, InReadSet: true, InSync: true, Priority: 100,
			})
		}
		shard.Master = shard.Nodes[0].ID
	}
	c.EvenSlots()
	session, o := createAndClaim(t, s, c)
	defer session.Close(context.Background())
	began := time.Now()
	if err := o.Commit(t.Context(), storetest.Next(c, "two")); err != nil {
		t.Fatal(err)
	}
	t.Logf("committed in %v", time.Since(began))
	got, err := s.Cluster(t.Context(), "a")
	if err != nil || len(got.Shards) != topology.MaxShards || got.Reason != "two" {
		t.Fatalf("%d shards, %v", len(got.Shards), err)
	}
	raw := client(t, etcd.Endpoint())
	r, err := raw.Get(t.Context(), "/large/clusters/a/", clientPrefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range r.Kvs {
		if strings.HasSuffix(string(kv.Key), "/record") && 2*len(kv.Value) > 1400<<10 {
			t.Errorf("a commit writes twice %d bytes", len(kv.Value))
		}
	}
}

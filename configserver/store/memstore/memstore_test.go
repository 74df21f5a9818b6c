package memstore_test

import (
	"errors"
	"testing"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/memstore"
	"github.com/basalt-redis/basalt/configserver/store/storetest"
)

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		s := memstore.New(memstore.Options{KeepEpochs: storetest.KeepEpochs, KeepEvents: storetest.KeepEvents, KeepScripts: storetest.KeepScripts, KeepScriptBytes: storetest.KeepScriptBytes})
		t.Cleanup(func() { _ = s.Close() })
		return storetest.Backend{
			Store: s, Other: s,
			ExpireLease: func(_ testing.TB, replica string) { s.ExpireLease(replica) },
		}
	})
}

func TestUncertain(t *testing.T) {
	s := memstore.New(memstore.Options{})
	c := storetest.Cluster("a")
	if err := s.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	session, err := s.Join(t.Context(), store.Replica{ID: "cs"})
	if err != nil {
		t.Fatal(err)
	}
	o, err := session.Claim(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		outcome memstore.Outcome
		epoch   uint64
	}{{memstore.Dropped, 1}, {memstore.Landed, 2}} {
		s.Uncertain(step.outcome)
		if err := o.Commit(t.Context(), storetest.Next(c, "two")); !errors.Is(err, store.ErrUncertain) {
			t.Fatalf("outcome %d: %v", step.outcome, err)
		}
		got, err := s.Cluster(t.Context(), "a")
		if err != nil || got.Epoch != step.epoch {
			t.Fatalf("outcome %d: epoch %d, %v", step.outcome, got.Epoch, err)
		}
	}
}

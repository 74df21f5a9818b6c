package control

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/memstore"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// upgraded is a store whose records up to an epoch are of before there were in-sync
// sets.
type upgraded struct {
	*memstore.Store
	until uint64
}

func (u *upgraded) Cluster(ctx context.Context, name string) (topology.Cluster, error) {
	c, err := u.Store.Cluster(ctx, name)
	if err != nil || c.Epoch > u.until {
		return c, err
	}
	c = c.Clone()
	for i := range c.Shards {
		c.Shards[i].Histories = nil
		for j := range c.Shards[i].Nodes {
			n := &c.Shards[i].Nodes[j]
			n.InSync, n.Out, n.History = false, nil, ""
		}
	}
	return c, nil
}

// The store refuses or drops the first commit after an upgrade, and the master is dead.
func TestAnUpgradeSurvivesACommitThatIsDropped(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	r.stop()
	r.servers["shard-0-0"].Kill()
	old := &upgraded{r.store, r.loop.Topology().Epoch}
	session, err := r.store.Join(t.Context(), store.Replica{ID: "new", Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	own, err := session.Claim(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	r.store.Uncertain(memstore.Dropped)
	l, err := New(Config{Cluster: "c", ID: "new", Store: old, Ownership: own, Logger: slog.New(slog.DiscardHandler),
		Credentials: func() (*credentials.Set, error) { return credentials.Open(r.dir, "c") }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	r.loop = l
	r.eventually("replaced", 10*time.Second, func() bool { return r.shard("shard-0").Master == "shard-0-1" })
}

package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/lifecycle"
)

const (
	// adoptMargin is how far the adopted epoch is above the highest that anybody has
	// told of: a proxy that is cut off from here may know of some more. So far above
	// the recorded ones are the terms of the shards, of which nobody tells.
	adoptMargin = 100
	// askAtOnce is how many shards are asked at the same time.
	askAtOnce = 32
)

// Adoption is what is taken over from the servers, or would be.
type Adoption struct {
	Epoch  uint64
	Why    string
	Shards []failover.Adopted
}

// AdoptTopology implements API.
func (l *Loop) AdoptTopology(ctx context.Context, planOnly bool) (Adoption, error) {
	var c *topology.Cluster
	var a Adoption
	err := l.do(ctx, func() {
		c = l.record.Load()
		a.Epoch = max(c.Epoch, l.ahead.epoch) + adoptMargin
	})
	if err != nil {
		return a, err
	}
	why := l.older.Load()
	if why == nil {
		return a, topology.Preconditionf("the record of cluster %s is not older than what its servers and proxies know: there is nothing to adopt", c.Name)
	}
	a.Why = *why
	if c.Phase != topology.Serving {
		return a, topology.Preconditionf("the record of cluster %s is from before it served: restore a newer backup of etcd", c.Name)
	}
	if a.Shards, err = l.askShards(ctx, c); err != nil || planOnly {
		return a, err
	}
	adopted, err := l.adopt(ctx, c.Epoch, a)
	a.Epoch = adopted.Epoch
	return a, err
}

// askShards asks all nodes of all shards. What is contradictory anywhere is refused.
func (l *Loop) askShards(ctx context.Context, c *topology.Cluster) ([]failover.Adopted, error) {
	adopted, errs := make([]failover.Adopted, len(c.Shards)), make([]error, len(c.Shards))
	lifecycle.Parallel(len(c.Shards), askAtOnce, func(i int) {
		s := &c.Shards[i]
		x := failover.NewExecutor(ctx, l, s.ID, l.log)
		defer x.Close()
		adopted[i], errs[i] = failover.Adopt(c, s, x.Ask(ctx, s))
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var refusals []string
	for _, err := range errs {
		if err != nil {
			refusals = append(refusals, err.Error())
		}
	}
	if len(refusals) > 0 {
		return nil, topology.Preconditionf("%s", strings.Join(refusals, "; "))
	}
	return adopted, nil
}

// adopt commits what was found about the record of an epoch.
func (l *Loop) adopt(ctx context.Context, before uint64, a Adoption) (topology.Cluster, error) {
	r := &commitRequest{reason: "takes over what servers say: " + a.Why, alone: true, adopts: a.Epoch, result: make(chan commitResult, 1)}
	r.change = func(c *topology.Cluster) ([]topology.Event, error) {
		if l.record.Load().Epoch != before {
			return nil, topology.Preconditionf("the record of cluster %s changed meanwhile; look at it again", c.Name)
		}
		now := time.Now()
		var masters []string
		for i := range a.Shards {
			s := c.Shard(a.Shards[i].Shard)
			a.Shards[i].Into(s)
			a.Shards[i].SeatsInto(c)
			if _, err := failover.BeginRotation(s.ID, newID(), "shuts out proxies that the record did not know", now)(c); err != nil {
				return nil, err
			}
			if a.Shards[i].Master != a.Shards[i].Recorded {
				masters = append(masters, s.Master+" is the master of "+s.ID)
			}
		}
		message := fmt.Sprintf("the record was older than the servers (%s) and takes over what they say", a.Why)
		if len(masters) > 0 {
			message += ": " + topology.Few(masters, topology.MaxUnacked)
		}
		return []topology.Event{{Time: now, Kind: "TopologyAdopted", Severity: topology.Warning, Epoch: c.Epoch, Message: message}}, nil
	}
	return l.ask(ctx, r)
}

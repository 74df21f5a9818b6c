package control

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// tend commits the in-sync set of a shard, and what belongs to it, when it should be
// another one. It changes no server and waits for nothing that is being done to the
// shard: what the master acknowledges meanwhile counts on the set that is committed.
func (l *Loop) tend(c *topology.Cluster, s *topology.Shard, now time.Time) {
	if l.tending[s.ID] || now.Before(l.notBefore[s.ID]) {
		return
	}
	_, why := failover.Tend(c, s, &l.obs, now)
	if len(why) == 0 {
		return
	}
	id := s.ID
	l.tending[id] = true
	l.spawn(func() {
		_, err := l.Commit(l.life, id+": "+strings.Join(why, ", "), func(c *topology.Cluster) ([]topology.Event, error) {
			// Decided again on what is known now, on the loop's goroutine.
			s := c.Shard(id)
			if s == nil {
				return nil, failover.ErrSuperseded
			}
			next, why := failover.Tend(c, s, &l.obs, time.Now())
			if len(why) == 0 {
				return nil, failover.ErrSuperseded
			}
			*s = next
			return nil, nil
		})
		l.later(func() {
			delete(l.tending, id)
			if err != nil && !errors.Is(err, failover.ErrSuperseded) && l.life.Err() == nil {
				l.log.Warn("the in-sync set could not be committed", "shard", id, "error", err)
				l.notBefore[id] = time.Now().Add(retryAfter)
			}
		})
	})
}

// others are the processes that other clusters of the store have admitted.
type others struct {
	mu    sync.Mutex
	read  time.Time
	nodes map[string]string // by run_id: the node, for people
}

// othersFor is how long they count as known: a server is admitted in two clusters at
// the same time by nobody who does not register it in both within this time.
const othersFor = time.Second

// Elsewhere implements failover.Host.
func (l *Loop) Elsewhere(ctx context.Context, runID string) (string, error) {
	l.others.mu.Lock()
	defer l.others.mu.Unlock()
	if time.Since(l.others.read) > othersFor {
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		clusters, err := l.cfg.Store.Clusters(ctx)
		if err != nil {
			return "", err
		}
		l.others.read, l.others.nodes = time.Now(), admittedElsewhere(clusters, l.cfg.Cluster)
	}
	return l.others.nodes[runID], nil
}

func admittedElsewhere(clusters []topology.Cluster, own string) map[string]string {
	nodes := map[string]string{}
	for i := range clusters {
		if clusters[i].Name == own {
			continue
		}
		for _, s := range clusters[i].Shards {
			for _, n := range s.Nodes {
				if n.Incarnation != "" {
					nodes[n.Incarnation] = "node " + n.ID + " of cluster " + clusters[i].Name
				}
			}
		}
	}
	return nodes
}

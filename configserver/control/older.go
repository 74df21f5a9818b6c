package control

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// While somebody knows more than the record (see failover.Newer), nothing is
// committed, nothing is decided, and no server is changed: Owned refuses.
//
// Right after it took the cluster over, a loop knows nothing of that, and has to hear
// those who may know first: it decides and commits nothing until every proxy that
// the record's members name has said hello and every admitted node was probed once,
// or hearFirst is over. Proxies come back within half a second, and what fails over
// waits for their acks anyway.

// hearFirst bounds how long a loop listens before it does anything.
const hearFirst = time.Second

// ahead is the highest epoch above the record's that a proxy obeys.
type ahead struct {
	epoch uint64
	proxy string
}

// listened tells if the loop has heard who may know more than the record.
func (l *Loop) listened(now time.Time) bool {
	if l.heard {
		return true
	}
	if now.Sub(l.obs.Started) < hearFirst && !l.heardAll() {
		return false
	}
	l.heard = true
	l.startCommit()
	return true
}

func (l *Loop) heardAll() bool {
	for _, m := range l.members {
		if !m.greeted {
			return false
		}
	}
	c := l.record.Load()
	for i := range c.Shards {
		for _, n := range c.Shards[i].Nodes {
			if n.Incarnation != "" && l.obs.Nodes[n.ID].Sight == topology.SightUnknown {
				return false
			}
		}
	}
	return true
}

// heardOf notes the epoch that a proxy says it obeys; uid is that of its cluster, ""
// from a proxy that does not know it.
func (l *Loop) heardOf(proxy, uid string, epoch uint64) {
	c := l.record.Load()
	if epoch > max(c.Epoch, l.ahead.epoch) && (uid == "" || uid == c.UID) {
		l.ahead = ahead{epoch, proxy}
		l.judge(nil, time.Now())
	}
}

// judge finds out if the record is older than what somebody knows, by what is new
// about some shards.
func (l *Loop) judge(shards map[string]bool, now time.Time) {
	c := l.record.Load()
	if l.ahead.epoch <= c.Epoch || c.Phase == topology.Deleting {
		l.ahead = ahead{}
	}
	for id := range shards {
		if s := l.shard(id); s != nil {
			if why := failover.Newer(c, s, &l.obs, now); why != "" {
				l.newer[s.ID] = why
			} else {
				delete(l.newer, s.ID)
			}
		}
	}
	why := ""
	for _, shard := range slices.Sorted(maps.Keys(l.newer)) {
		why = l.newer[shard]
		break
	}
	if l.ahead.epoch > 0 {
		why = fmt.Sprintf("%s obeys epoch %d, the record is at epoch %d", l.ahead.proxy, l.ahead.epoch, c.Epoch)
	}
	switch was := l.older.Load(); {
	case why == "" && was != nil:
		l.older.Store(nil)
		l.log.Info("the record is as new as what servers and proxies know", "epoch", c.Epoch)
	case why != "" && (was == nil || *was != why):
		l.older.Store(&why)
		l.log.Error("the record is older than what servers or proxies know: changes nothing", "because", why)
		for _, a := range l.activities {
			a.cancel()
		}
		clear(l.problems) // found by a record that is not true
	}
	l.note(clusterWide, append(failover.RecordIsOlder(c, why), slices.Concat(failover.CredentialsNotOnFile(c, l.filesLack), failover.InMaintenance(c, now))...), now)
}

// stands fails while the record is older than what somebody knows.
func (l *Loop) stands() error {
	if why := l.older.Load(); why != nil {
		return topology.Preconditionf("the record of cluster %s is older than its servers (%s): look at `basaltctl topology adopt %s` first",
			l.cfg.Cluster, *why, l.cfg.Cluster)
	}
	return nil
}

package health

import (
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// Recorded notes that a record became the newest one. before is the one that was
// the newest here until then, perhaps the same. Only the shards that differ are
// touched: what is asked of a node in between two commits about another shard is
// as good as ever, however fast these follow each other.
func (o *Observations) Recorded(before, now *topology.Cluster, at time.Time) {
	all := before.Phase != now.Phase || before.Policy != now.Policy
	were := make(map[string]*topology.Shard, len(before.Shards))
	for i := range before.Shards {
		were[before.Shards[i].ID] = &before.Shards[i]
	}
	since := make(map[string]time.Time, len(now.Shards))
	for i := range now.Shards {
		s := &now.Shards[i]
		was, known := o.Since[s.ID]
		if all || !known || were[s.ID] == nil || !were[s.ID].Equal(s) {
			was = at
		}
		since[s.ID] = was
	}
	o.Since = since
}

// Fresh tells if something was asked for after the newest record about a shard was
// known, so that the answer is not of the time before.
func (o *Observations) Fresh(shard string, asked time.Time) bool { return asked.After(o.Since[shard]) }

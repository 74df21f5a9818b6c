package topology

import (
	"reflect"
	"slices"
)

// Delta is what changed between two records of one cluster: the new record
// with only those shards in it that changed, and the ids of shards that are
// gone.
type Delta struct {
	// From is the epoch the delta applies to.
	From uint64
	// Cluster is the new record; Shards holds the changed and new ones only.
	Cluster Cluster
	// Removed are the ids of shards that are gone, in order.
	Removed []string
}

// Diff returns the delta that leads from one record to another, which may be
// several epochs later. It shares memory with both.
func Diff(from, to Cluster) Delta {
	d := Delta{From: from.Epoch, Cluster: to}
	d.Cluster.Shards = nil
	for i := range to.Shards {
		if was := from.Shard(to.Shards[i].ID); was == nil || !was.Equal(&to.Shards[i]) {
			d.Cluster.Shards = append(d.Cluster.Shards, to.Shards[i])
		}
	}
	for i := range from.Shards {
		if to.Shard(from.Shards[i].ID) == nil {
			d.Removed = append(d.Removed, from.Shards[i].ID)
		}
	}
	return d
}

// Apply returns the record that d leads to from c; c stays as it is. On another
// epoch than d.From it fails with a *PreconditionError: start again with the
// whole record.
func (d Delta) Apply(c Cluster) (Cluster, error) {
	if c.Name != d.Cluster.Name || c.Epoch != d.From {
		return Cluster{}, Preconditionf("delta from epoch %d of %s does not apply to epoch %d of %s; read the whole record",
			d.From, d.Cluster.Name, c.Epoch, c.Name)
	}
	next := d.Cluster
	next.Shards = nil
	for i := range c.Shards {
		id := c.Shards[i].ID
		if d.Cluster.Shard(id) == nil && !slices.Contains(d.Removed, id) {
			next.Shards = append(next.Shards, c.Shards[i])
		}
	}
	next.Shards = append(next.Shards, d.Cluster.Shards...)
	slices.SortFunc(next.Shards, func(a, b Shard) int { return CompareIDs(a.ID, b.ID) })
	return next.Clone(), nil
}

// Equal tells if two shards are the same in every field that is kept, times
// by the instant they name.
func (s *Shard) Equal(other *Shard) bool {
	if reflect.DeepEqual(s, other) {
		return true // nearly always so, and cheaper
	}
	a, b := s.normal(), other.normal()
	return reflect.DeepEqual(a, b)
}

// normal returns a copy in which instants have one representation and empty
// lists are nil, so that a record compares equal to itself read from JSON.
func (s *Shard) normal() Shard {
	n := s.Clone()
	n.Nodes, n.Failovers, n.Histories = orNil(n.Nodes), orNil(n.Failovers), orNil(n.Histories)
	for i := range n.Nodes {
		if out := n.Nodes[i].Out; out != nil {
			out.Since = out.Since.Round(0).UTC()
		}
		if d := n.Nodes[i].Diverged; d != nil {
			d.FoundAt, d.Until = d.FoundAt.Round(0).UTC(), d.Until.Round(0).UTC()
		}
	}
	for i, t := range n.Failovers {
		n.Failovers[i] = t.Round(0).UTC()
	}
	if o := n.Operation; o != nil {
		o.StartedAt = o.StartedAt.Round(0).UTC()
		o.Unacked, o.Phases, o.Evidence, o.Candidates = orNil(o.Unacked), orNil(o.Phases), orNil(o.Evidence), orNil(o.Candidates)
		for i := range o.Phases {
			o.Phases[i].StartedAt = o.Phases[i].StartedAt.Round(0).UTC()
		}
	}
	return n
}

func orNil[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

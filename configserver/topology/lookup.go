package topology

import (
	"cmp"
	"slices"
	"strings"

	"github.com/basalt-redis/basalt/internal/slot"
)

// Shard returns the shard with this id inside c, so that a clone can be
// changed through it, or nil.
func (c *Cluster) Shard(id string) *Shard {
	for i := range c.Shards {
		if c.Shards[i].ID == id {
			return &c.Shards[i]
		}
	}
	return nil
}

// Node returns the node with this id inside c and the shard it is in, or nils.
func (c *Cluster) Node(id string) (*Shard, *Node) {
	for i := range c.Shards {
		if n := c.Shards[i].Node(id); n != nil {
			return &c.Shards[i], n
		}
	}
	return nil, nil
}

// Owner returns the shard that owns a slot, or nil.
func (c *Cluster) Owner(s int) *Shard {
	for i := range c.Shards {
		if c.Shards[i].Slots.Has(s) {
			return &c.Shards[i]
		}
	}
	return nil
}

// Operating tells if a persisted state machine is at work on any shard.
func (c *Cluster) Operating() bool {
	return slices.ContainsFunc(c.Shards, func(s Shard) bool { return s.Operation != nil })
}

// AddShard puts an empty shard of generation 1 at its place in the order of
// ids and returns it. It returns the one that is there when there is one.
// Pointers to other shards of c are invalid afterwards.
func (c *Cluster) AddShard(id string) *Shard {
	i, found := slices.BinarySearchFunc(c.Shards, id, func(s Shard, id string) int {
		return CompareIDs(s.ID, id)
	})
	if !found {
		c.Shards = slices.Insert(c.Shards, i, Shard{ID: id, Generation: 1})
	}
	return &c.Shards[i]
}

// EvenSlots gives every shard its even share of all slots, in the order of the
// shards. The cluster must hold no data yet.
func (c *Cluster) EvenSlots() {
	for i := range c.Shards {
		c.Shards[i].Slots = slot.Even(i, len(c.Shards))
	}
}

// Node returns the node with this id inside s, or nil.
func (s *Shard) Node(id string) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].ID == id {
			return &s.Nodes[i]
		}
	}
	return nil
}

// MasterNode returns the master inside s, or nil while there is none.
func (s *Shard) MasterNode() *Node {
	if s.Master == "" {
		return nil
	}
	return s.Node(s.Master)
}

// CompareIDs orders ids as people count: numbers inside them compare by
// value, so that "shard-2" comes before "shard-10".
func CompareIDs(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		dx, dy := digits(x), digits(y)
		if dx == 0 || dy == 0 {
			if x[0] != y[0] {
				return cmp.Compare(x[0], y[0])
			}
			x, y = x[1:], y[1:]
			continue
		}
		nx, ny := strings.TrimLeft(x[:dx], "0"), strings.TrimLeft(y[:dy], "0")
		if c := cmp.Or(cmp.Compare(len(nx), len(ny)), cmp.Compare(nx, ny)); c != 0 {
			return c
		}
		x, y = x[dx:], y[dy:]
	}
	// "a-01" and "a-1" count alike and are still two ids.
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a, b))
}

// digits counts the decimal digits text begins with.
func digits(text string) int {
	return len(text) - len(strings.TrimLeft(text, "0123456789"))
}

package topology

import (
	"slices"
	"time"
)

// Maintenance: masters that die, hang or lose their role are not replaced by themselves.
// Those that were started again are looked after, and an admin's failover is done.
type Maintenance struct {
	// Shard, or all of them when empty.
	Shard string    `json:"shard,omitempty"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Reason for people, at most MaxReason bytes.
	Reason string `json:"reason,omitempty"`
}

// Limits of a maintenance.
const (
	MaxMaintenance = 24 * time.Hour
	MaxReason      = 200
)

// MaintenanceOf is the maintenance that a shard is in, the one that ends last; nil for
// none. With "" it is that of all shards.
func (c *Cluster) MaintenanceOf(shard string, now time.Time) (found *Maintenance) {
	for i := range c.Maintenance {
		m := &c.Maintenance[i]
		if (m.Shard == "" || m.Shard == shard) && now.Before(m.Until) && (found == nil || m.Until.After(found.Until)) {
			found = m
		}
	}
	return found
}

// SetMaintenance begins a maintenance in place of the one of the same shard, or ends that
// when Until is not after now. What is over is forgotten.
func (c *Cluster) SetMaintenance(m Maintenance, now time.Time) {
	c.Maintenance = slices.DeleteFunc(slices.Clone(c.Maintenance), func(other Maintenance) bool {
		return other.Shard == m.Shard || !now.Before(other.Until)
	})
	if now.Before(m.Until) {
		c.Maintenance = append(c.Maintenance, m)
		slices.SortFunc(c.Maintenance, func(a, b Maintenance) int { return CompareIDs(a.Shard, b.Shard) })
	}
}

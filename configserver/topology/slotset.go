package topology

import "github.com/basalt-redis/basalt/internal/slot"

// SlotSet is a set of slots as sorted, disjoint ranges.
type SlotSet = slot.Set

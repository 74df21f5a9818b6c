package topology

import "fmt"

// The proxies' seats. Cluster.Seats has the version of each, from 1. A seat is never
// taken away, and its version never goes back: a proxy that knows one of before must
// not get in by it again. Who has which seat is known with the members of the
// cluster; seats beyond those are there for proxies that come.

const (
	// MinSeats is how many seats a cluster has at least.
	MinSeats = 8
	// MaxSeats is how many it has at most: each is an ACL user at every server.
	MaxSeats = 4096
)

// MoreSeats gives a cluster seats for the first time, or doubles them. It returns
// false when there are as many as there may be.
func (c *Cluster) MoreSeats() bool {
	want := min(max(MinSeats, 2*len(c.Seats)), MaxSeats)
	if want <= len(c.Seats) {
		return false
	}
	for len(c.Seats) < want {
		c.Seats = append(c.Seats, 1)
	}
	return true
}

func (c *Cluster) validateSeats() error {
	if len(c.Seats) > MaxSeats {
		return fmt.Errorf("cluster %s: %d seats for proxies, at most %d are possible", c.Name, len(c.Seats), MaxSeats)
	}
	for i, version := range c.Seats {
		if version == 0 {
			return fmt.Errorf("cluster %s: seat %d has version 0, the first is 1", c.Name, i)
		}
	}
	return nil
}

func (c *Cluster) validateNextSeats(next Cluster) error {
	if len(next.Seats) < len(c.Seats) {
		return fmt.Errorf("cluster %s: %d seats after %d", c.Name, len(next.Seats), len(c.Seats))
	}
	for i, version := range c.Seats {
		if next.Seats[i] < version {
			return fmt.Errorf("cluster %s: version %d of seat %d after version %d", c.Name, next.Seats[i], i, version)
		}
	}
	return nil
}

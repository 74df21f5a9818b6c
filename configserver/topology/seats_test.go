package topology

import "testing"

// There are more seats each time, up to the limit, and those that are there stay.
func TestMoreSeats(t *testing.T) {
	c := Cluster{}
	for before := 0; c.MoreSeats(); before = len(c.Seats) {
		if len(c.Seats) <= before || len(c.Seats) < MinSeats || len(c.Seats) > MaxSeats || before > 0 && c.Seats[0] != 7 {
			t.Fatalf("%d seats after %d, the first in version %d", len(c.Seats), before, c.Seats[0])
		}
		c.Seats[0] = 7
	}
	if len(c.Seats) != MaxSeats {
		t.Errorf("%d seats at the end", len(c.Seats))
	}
}

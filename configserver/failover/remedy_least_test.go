package failover

import "testing"

// The command that a blocked shard names loses no more than needs be.
func TestTheRemedyIsTheNodeThatHasMost(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(w *world, n1 *server)
	}{
		{"priority 0", func(w *world, _ *server) { w.shard().Node("n1").Priority = 0 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(2)
			w.write(500)
			w.tick(200 * step)
			w.kill("n0")
			w.tick(10 * step)
			w.restart("n0", 0)
			tc.make(w, w.servers["n1"])
			w.tick(100 * step)
			got := Elect(&w.c, w.shard(), Election{Old: "n0", Since: w.now, Offset: 1500}, &w.o, w.now)
			if got.Chosen() != "" || got.Remedy != "n1" {
				t.Errorf("chosen %q; an admin is told to accept a loss by %q, and --to n1 would lose nothing: %s", got.Chosen(), got.Remedy,
					got.Blocked(&w.c, w.shard()))
			}
		})
	}
}

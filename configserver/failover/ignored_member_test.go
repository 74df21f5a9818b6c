package failover

import "testing"

// A member that runs on with all the data, and may not be promoted for a reason that
// is not its data, is no reason to begin with less: whoever is promoted instead is
// copied by it. Nor does the command that the blocked shard names lose more than needs be.
func TestAMemberThatMayNotBePromotedIsNotOverwritten(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(w *world, n1 *server)
	}{
		{"priority 0", func(w *world, _ *server) { w.shard().Node("n1").Priority = 0 }},
		{"a default user that is on", func(_ *world, n1 *server) { n1.defaultUser.On = true }},
		{"made a master by hand", func(_ *world, n1 *server) {
			n1.master, n1.follows, n1.linkUp = true, "", false
			n1.older, n1.secondOffset, n1.history = "h0", n1.offset+1, "own"
		}},
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
			if !w.shard().Node("n1").InSync || w.servers["n1"].offset != 1500 {
				t.Fatalf("n1 was to be in sync and to have everything: %+v", w.shard().Nodes)
			}
			got := Elect(&w.c, w.shard(), Election{Old: "n0", Since: w.now, Offset: 1500}, &w.o, w.now)
			if got.Chosen() == "n0" {
				t.Errorf("n0, which restarted empty, is promoted, and n1, which has everything, copies it: %+v", got)
			}
			if tc.name == "priority 0" && (got.Chosen() != "" || got.Remedy != "n1") {
				t.Errorf("chosen %q; an admin is told to accept a loss by %q, and --to n1 would lose nothing: %s", got.Chosen(), got.Remedy,
					got.Blocked(&w.c, w.shard()))
			}
		})
	}
}

package failover

import "testing"

// An admin who asks for a failover and does not accept a loss does not give away what
// the old master, which is well, has and the new one has not yet.
func TestAFailoverThatWasAskedForWaitsForWhatTheOldMasterHas(t *testing.T) {
	for _, requested := range []string{"", "n1"} {
		w := newWorld(2)
		w.servers["n1"].slow = true
		w.write(100_000)
		w.tick(10 * step)
		if !w.shard().Node("n1").InSync || w.servers["n1"].offset != 1000 {
			t.Fatal("n1 was to be in sync, and a moment behind")
		}
		w.shard().Master = ""
		got := Elect(&w.c, w.shard(), Election{Old: "n0", Asked: true, Requested: requested, Since: w.now, Begun: w.now, Offset: 101_000}, &w.o, w.now)
		if got.Chosen() == "n1" {
			t.Errorf("requested %q: n1 is promoted at once, without 100000 bytes that n0 has, which answers and takes no more; lost: %q", requested, got.Lost)
		}
	}
}

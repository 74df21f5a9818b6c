package failover

import (
	"strings"
	"testing"
)

// The master is gone for good. What a blocked shard tells to do is a command that
// works, whatever keeps the node that is left from being promoted by itself.
func TestABlockedShardNamesACommandThatWorks(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(w *world, n1 *server)
	}{
		{"priority 0", func(w *world, _ *server) { w.shard().Node("n1").Priority = 0 }},
		{"made a master by hand", func(_ *world, n1 *server) {
			n1.master, n1.follows, n1.linkUp = true, "", false
			n1.older, n1.secondOffset, n1.history = "h0", n1.offset+1, "own"
		}},
		{"never admitted", func(w *world, n1 *server) {
			n := w.shard().Node("n1")
			n.Incarnation, n.InSync, n.InReadSet = "", false, false
			n1.keys = 0
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(2)
			w.kill("n0")
			w.tick(100 * step)
			tc.make(w, w.servers["n1"])
			w.tick(100 * step)
			e := Election{Old: "n0", Since: w.now, Offset: 1000}
			got := Elect(&w.c, w.shard(), e, &w.o, w.now)
			if got.Chosen() != "" {
				return // nothing is blocked
			}
			const command = "basaltctl failover c s --to n1" // with or without --accept-loss
			if text := got.Blocked(&w.c, w.shard()); !strings.Contains(text, command) {
				t.Errorf("no command is named: %s", text)
			}
			e.Asked, e.Requested, e.AcceptLoss = true, "n1", !got.Free
			if got := Elect(&w.c, w.shard(), e, &w.o, w.now); got.Chosen() != "n1" {
				t.Errorf("%s does not help: %+v", command, got)
			}
		})
	}
}

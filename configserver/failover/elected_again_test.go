package failover

import (
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// A node that restarted was chosen and its incarnation committed; then it could not be
// promoted. What it is worth is what it was worth before.
func TestANodeThatWasChosenIsJudgedAsBefore(t *testing.T) {
	for _, tc := range []struct {
		name   string
		make   func(w *world)
		accept bool // at first
		chosen string
	}{
		{"an append-only file has everything", func(w *world) { w.restartWithJournal("n0") }, false, "n0"},
		{"an old snapshot has not", func(w *world) {
			s := w.restart("n0", 5)
			s.older, s.secondOffset, s.offset = "h0", 501, 500
		}, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(2)
			w.kill("n0")
			w.kill("n1")
			w.tick(100 * step)
			tc.make(w)
			w.tick(100 * step)
			e := Election{Old: "n0", Since: w.now.Add(-w.c.Policy.RestartGrace), Begun: w.now, Offset: 1000, AcceptLoss: tc.accept}
			first := Elect(&w.c, w.shard(), e, &w.o, w.now)
			if first.Chosen() != "n0" || !first.Restarted {
				t.Fatalf("n0 was to be chosen: %+v", first)
			}
			w.shard().Master = ""
			// As elect commits it; and an admin's word is for one attempt.
			w.shard().Node("n0").Incarnation = w.o.Nodes["n0"].Info.RunID
			w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Failover, Phase: Electing, OldMaster: "n0", OldMasterOffset: 1000,
				StartedAt: e.Since, Candidates: remember(nil, first.Candidates)}
			again := ElectionOf(w.shard().Operation)
			again.Since, again.Begun = e.Since, w.now
			w.tick(20 * step)
			if got := Elect(&w.c, w.shard(), again, &w.o, w.now); got.Chosen() != tc.chosen {
				t.Errorf("chosen %q, want %q, lost %q: %+v", got.Chosen(), tc.chosen, got.Lost, got)
			}
		})
	}
}

package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// afterDeath is a shard of n0…n3 whose master n0 has just died.
func afterDeath() *world {
	w := newWorld(4)
	w.write(500)
	w.tick(step)
	w.kill("n0")
	w.tick(100 * time.Millisecond)
	return w
}

// TestElectIntact: the old master n0 is dead; n1, n2 and n3 are members.
func TestElectIntact(t *testing.T) {
	for _, tc := range []struct {
		name   string
		make   func(w *world, e *Election)
		chosen string
		// refused maps a node to a part of the reason.
		refused map[string]string
		waiting []string
	}{
		{name: "the lowest id of equals", chosen: "n1", refused: map[string]string{"n0": "does not answer", "n2": "as good as n1"}},
		{name: "the highest offset", make: func(w *world, _ *Election) { w.servers["n2"].offset = 2000 }, chosen: "n2",
			refused: map[string]string{"n1": "500 bytes behind n2"}},
		{name: "the better priority of equals", make: func(w *world, _ *Election) { w.shard().Nodes[3].Priority = 50 }, chosen: "n3",
			refused: map[string]string{"n2": "better priority"}},
		{name: "no priority is worth a write", make: func(w *world, _ *Election) {
			w.servers["n2"].offset = 2000
			w.shard().Nodes[3].Priority = 50
		}, chosen: "n2", refused: map[string]string{"n3": "500 bytes behind n2"}},
		{name: "priority 0 never", make: func(w *world, _ *Election) { w.shard().Nodes[1].Priority = 0 }, chosen: "n2",
			refused: map[string]string{"n1": "priority 0"}},
		{name: "priority 0 when an admin asks", make: func(w *world, e *Election) {
			w.shard().Nodes[1].Priority = 0
			e.Requested = "n1"
		}, chosen: "n1", refused: map[string]string{"n2": "another node was asked for"}},
		{name: "not one that an admin asks for and that lacks something", make: func(w *world, e *Election) {
			w.servers["n2"].offset = 2000
			e.Requested = "n1"
		}, chosen: "n2", refused: map[string]string{"n1": "500 bytes behind n2"}},
		{name: "one that lacks something when an admin accepts that", make: func(w *world, e *Election) {
			w.servers["n2"].offset = 2000
			e.Requested, e.AcceptLoss = "n1", true
		}, chosen: "n1"},
		{name: "not one that restarted, whoever asks", make: func(w *world, e *Election) {
			w.kill("n1")
			w.tick(step)
			w.restart("n1", 10)
			e.Requested = "n1"
		}, chosen: "n2", refused: map[string]string{"n1": "restarted"}},
		{name: "not one that is away", make: func(w *world, _ *Election) { w.kill("n1") }, chosen: "n2", refused: map[string]string{"n1": "does not answer"}},
		{name: "one that is silent and lives is waited for", make: func(w *world, e *Election) {
			w.servers["n1"].hung = true
			w.tick(2 * time.Second)
			e.Begun = w.now
		}, waiting: []string{"n1"}},
		{name: "no longer than the bound", make: func(w *world, e *Election) {
			w.servers["n1"].hung = true
			w.tick(2 * time.Second)
			e.Begun = w.now.Add(-w.c.Policy.ElectionWait)
		}, chosen: "n2", refused: map[string]string{"n1": "does not answer"}},
		{name: "one that is silent and not in sync is not waited for", make: func(w *world, e *Election) {
			w.shard().Node("n1").InSync = false
			w.servers["n1"].hung = true
			w.tick(2 * time.Second)
			e.Begun = w.now
		}, chosen: "n2"},
		{name: "not one that is not in sync and has no more than a member", make: func(w *world, _ *Election) {
			w.shard().Node("n1").InSync = false
		}, chosen: "n2", refused: map[string]string{"n1": "is not in sync"}},
		{name: "one that is not in sync and has more than every member, on the same history", make: func(w *world, _ *Election) {
			w.shard().Node("n1").InSync = false
			w.servers["n1"].offset = 5000
		}, chosen: "n1", refused: map[string]string{"n2": "3500 bytes behind n1"}},
		{name: "not one that is not in sync and says more of another history", make: func(w *world, _ *Election) {
			w.shard().Node("n1").InSync = false
			w.servers["n1"].offset, w.servers["n1"].history = 5000, "other"
		}, chosen: "n2", refused: map[string]string{"n1": "older history"}},
		{name: "one that left the set a moment ago and is silent is waited for", make: func(w *world, e *Election) {
			n := w.shard().Node("n1")
			n.InSync, n.Out = false, &topology.OutOfSync{Since: w.now.Add(-time.Second), Why: "a test"}
			w.servers["n1"].hung = true
			w.tick(2 * time.Second)
			e.Begun = w.now
		}, waiting: []string{"n1"}},
		{name: "not one that was not admitted", make: func(w *world, _ *Election) { w.shard().Nodes[1].Incarnation = "" }, chosen: "n2",
			refused: map[string]string{"n1": "not admitted"}},
		{name: "not one that is loading", make: func(w *world, _ *Election) { w.servers["n1"].loading = true }, chosen: "n2",
			refused: map[string]string{"n1": "loading"}},
		{name: "not one with half a copy", make: func(w *world, _ *Election) { w.servers["n1"].syncing = true }, chosen: "n2",
			refused: map[string]string{"n1": "unfinished"}},
		{name: "not one that never had a copy", make: func(w *world, _ *Election) { w.servers["n1"].offset, w.servers["n1"].history = 0, "own" }, chosen: "n2",
			refused: map[string]string{"n1": "never in sync"}},
		{name: "one that has a copy from before the first write", make: func(w *world, _ *Election) {
			for _, id := range []string{"n1", "n2", "n3"} {
				w.servers[id].offset = 0
			}
		}, chosen: "n1"},
		{name: "not one of an older history", make: func(w *world, _ *Election) { w.servers["n1"].history, w.servers["n1"].offset = "before", 9999 }, chosen: "n2",
			refused: map[string]string{"n1": "older history"}},
		{name: "not one of an older history, when the master was never seen", make: func(w *world, e *Election) {
			delete(w.o.Histories, "s")
			w.shard().Histories = nil
			w.servers["n2"].older, w.servers["n3"].older = "before", "before"
			w.servers["n1"].history, w.servers["n1"].offset = "before", 9999
		}, chosen: "n2", refused: map[string]string{"n1": "older history than that of n2"}},
		{name: "not a master of its own", make: func(w *world, _ *Election) { w.servers["n1"].master = true }, chosen: "n2",
			refused: map[string]string{"n1": "master of its own"}},
		{name: "one that an earlier attempt promoted", make: func(w *world, e *Election) {
			w.servers["n1"].master, w.servers["n1"].older, w.servers["n1"].history = true, "h0", "new"
			e.Promoted = []string{"n1"}
		}, chosen: "n1"},
		{name: "not one whose link was down for long", make: func(w *world, _ *Election) { w.servers["n1"].linkLost = w.now.Add(-2 * time.Minute) }, chosen: "n2",
			refused: map[string]string{"n1": "link to the master had been down"}},
		{name: "links that broke with the master count from then on", make: func(w *world, _ *Election) { w.tick(5 * time.Minute) }, chosen: "n1"},
		{name: "links that broke with the master, which was never seen", make: func(w *world, _ *Election) {
			delete(w.o.Histories, "s")
			w.tick(5 * time.Minute)
			w.servers["n1"].linkLost = w.servers["n1"].linkLost.Add(-2 * time.Minute)
			w.servers["n2"].offset++
		}, chosen: "n2", refused: map[string]string{"n1": "link to the master had been down"}},
		{name: "not a sibling's word that has nothing more to show for it", make: func(w *world, _ *Election) {
			w.servers["n1"].linkLost = w.now.Add(-2 * time.Minute)
			delete(w.o.Histories, "s")
			w.servers["n1"].offset++
		}, chosen: "n1"},
		{name: "the old master when it is back and nobody else can", make: func(w *world, e *Election) {
			e.Asked = true
			w.servers["n0"].up = true
			for _, id := range []string{"n1", "n2", "n3"} {
				w.kill(id)
			}
		}, chosen: "n0"},
		{name: "not the old master when somebody has as much", make: func(w *world, _ *Election) { w.servers["n0"].up = true }, chosen: "n1"},
		{name: "the old master when it is back with more than anybody", make: func(w *world, _ *Election) {
			w.servers["n0"].up, w.servers["n0"].offset = true, 1600
		}, chosen: "n0", refused: map[string]string{"n1": "100 bytes behind n0"}},
		{name: "not the old master when an admin wants it replaced", make: func(w *world, e *Election) {
			w.servers["n0"].up, w.servers["n0"].offset, e.Asked = true, 1600, true
		}, chosen: "n1", refused: map[string]string{"n0": "being replaced"}},
		{name: "another server at the address is not the node", make: func(w *world, _ *Election) {
			s := w.restart("n1", 10)
			s.users = []string{topology.Mark(&w.c, "t", "t-1")}
		}, chosen: "n2", refused: map[string]string{"n1": "another server answers"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := afterDeath()
			e := Election{Old: "n0", Since: w.now, Offset: 1500}
			if tc.make != nil {
				tc.make(w, &e)
			}
			w.refreshAll()
			got := Elect(&w.c, w.shard(), e, &w.o, w.now)
			if got.Chosen() != tc.chosen || len(got.Candidates) != 4 || !slices.Equal(got.Waiting, tc.waiting) {
				t.Errorf("chosen %q, want %q, waiting %q, want %q: %+v", got.Chosen(), tc.chosen, got.Waiting, tc.waiting, got)
			}
			for _, c := range got.Candidates {
				if part := tc.refused[c.Node]; !strings.Contains(c.Refused, part) {
					t.Errorf("%s refused because %q, want %q", c.Node, c.Refused, part)
				}
				if c.Chosen == (c.Refused != "") && tc.chosen != "" {
					t.Errorf("%+v: every node is chosen or refused, never both", c)
				}
			}
		})
	}
}

// refreshAll lets every prober look once more without anything moving.
func (w *world) refreshAll() {
	w.now = w.now.Add(time.Millisecond)
	master := w.shard().Master
	for _, n := range w.shard().Nodes {
		kept := w.o.Histories["s"]
		w.probe(n.ID)
		if n.ID == master && kept.ReplID != "" {
			w.o.Histories["s"] = kept
		}
	}
}

// TestElectRestarted: all three nodes were in sync and were killed at the same time.
func TestElectRestarted(t *testing.T) {
	all := func(keys0, keys1, keys2 int64) func(w *world, e *Election) {
		return func(w *world, _ *Election) {
			w.restart("n0", keys0)
			w.restart("n1", keys1)
			w.restart("n2", keys2)
		}
	}
	out := func(w *world, ids ...string) {
		for _, id := range ids {
			n := w.shard().Node(id)
			n.InSync, n.Out = false, &topology.OutOfSync{Since: w.now, Why: "a test", Offset: 1000, MasterOffset: 1500}
		}
	}
	for _, tc := range []struct {
		name      string
		make      func(w *world, e *Election)
		chosen    string
		restarted bool
		lost      string
		waiting   []string
		remedy    string
	}{
		{name: "the recorded master, back with its append-only file, though others are away", make: func(w *world, _ *Election) {
			out(w, "n1", "n2")
			w.restartWithJournal("n0")
		}, chosen: "n0", restarted: true},
		{name: "not before the grace while other members are away", make: func(w *world, e *Election) {
			w.restartWithJournal("n0")
		}, waiting: []string{"n1", "n2"}},
		{name: "after the grace, though other members are away", make: func(w *world, e *Election) {
			w.restartWithJournal("n0")
			e.Since = w.now.Add(-11 * time.Second)
		}, chosen: "n0", restarted: true},
		{name: "the recorded master of all with append-only files, whatever the number of keys", make: func(w *world, _ *Election) {
			w.restartWithJournal("n0").keys = 1
			w.restartWithJournal("n1")
			w.restartWithJournal("n2")
		}, chosen: "n0", restarted: true},
		{name: "the append-only file of a replica when the recorded master has only a snapshot", make: func(w *world, _ *Election) {
			w.restart("n0", 500)
			w.restartWithJournal("n1")
			w.restart("n2", 0)
		}, chosen: "n1", restarted: true},
		{name: "a snapshot from the last known offset has everything", make: func(w *world, _ *Election) {
			s := w.restart("n0", 5)
			s.older, s.secondOffset = "h0", 1501
			w.restart("n1", 50)
			w.restart("n2", 10)
		}, chosen: "n0", restarted: true},
		{name: "the newest snapshot of those that say how old they are", make: func(w *world, _ *Election) {
			w.restart("n0", 0)
			for id, second := range map[string]int64{"n1": 1201, "n2": 1301} {
				s := w.restart(id, 5)
				s.older, s.secondOffset = "h0", second
			}
		}, chosen: "n2", restarted: true, lost: "the last 200 bytes"},
		{name: "the recorded master of snapshots of unknown age", make: all(5, 50, 10), chosen: "n0", restarted: true, lost: "unknown age"},
		{name: "a snapshot of unknown age before an empty master", make: all(0, 5, 10), chosen: "n1", restarted: true, lost: "unknown age"},
		{name: "nobody by itself when a replica is behind and the master's snapshot is of unknown age", make: func(w *world, _ *Election) {
			out(w, "n1", "n2")
			w.servers["n1"].up = true
			w.restart("n0", 5)
			w.restart("n2", 0)
		}, remedy: "n1"},
		{name: "availability: the replica that is behind before a snapshot of unknown age", make: func(w *world, e *Election) {
			w.c.Policy.Prefer = topology.PreferAvailability
			out(w, "n1", "n2")
			w.servers["n1"].up = true
			w.restart("n0", 5)
			w.restart("n2", 0)
		}, chosen: "n1", lost: "1500 bytes"},
		{name: "the snapshot of unknown age when an admin asks for it", make: func(w *world, e *Election) {
			out(w, "n1", "n2")
			w.servers["n1"].up = true
			w.restart("n0", 5)
			w.restart("n2", 0)
			e.Requested, e.AcceptLoss = "n0", true
		}, chosen: "n0", restarted: true, lost: "unknown age"},
		{name: "the recorded master when nobody has data", make: all(0, 0, 0), chosen: "n0", restarted: true, lost: "everything"},
		{name: "an intact replica that is behind, rather than a master that came back empty", make: func(w *world, _ *Election) {
			out(w, "n1", "n2")
			w.restart("n0", 0)
			w.servers["n1"].up = true
			w.restart("n2", 0)
		}, chosen: "n1", lost: "1500 bytes"},
		{name: "nobody while a member is away and nobody has everything", make: func(w *world, _ *Election) {
			w.restart("n0", 10)
			w.restart("n1", 10)
		}, waiting: []string{"n2"}, remedy: "n0"},
		{name: "however long it is away", make: func(w *world, e *Election) {
			w.restart("n0", 10)
			w.restart("n1", 10)
			e.Since = w.now.Add(-time.Hour)
		}, waiting: []string{"n2"}, remedy: "n0"},
		{name: "nobody while the only member is away, whoever else answers", make: func(w *world, e *Election) {
			out(w, "n1", "n2")
			w.servers["n1"].up = true
			w.restartWithJournal("n2")
			e.Since = w.now.Add(-time.Hour)
		}, waiting: []string{"n0"}, remedy: "n1"},
		{name: "availability: the best that answers, after the bound", make: func(w *world, e *Election) {
			w.c.Policy.Prefer = topology.PreferAvailability
			out(w, "n1", "n2")
			w.servers["n1"].up = true
			e.Since = w.now.Add(-4 * time.Second)
		}, chosen: "n1", lost: "1500 bytes"},
		{name: "availability: not before the bound", make: func(w *world, e *Election) {
			w.c.Policy.Prefer = topology.PreferAvailability
			out(w, "n1", "n2")
			w.servers["n1"].up = true
		}, waiting: []string{"n0", "n2"}},
		{name: "availability: an empty one only after the grace", make: func(w *world, e *Election) {
			w.c.Policy.Prefer = topology.PreferAvailability
			w.restart("n0", 0)
			e.Since = w.now.Add(-4 * time.Second)
		}, waiting: []string{"n1", "n2"}},
		{name: "availability: an empty one after the grace", make: func(w *world, e *Election) {
			w.c.Policy.Prefer = topology.PreferAvailability
			w.restart("n0", 0)
			e.Since = w.now.Add(-11 * time.Second)
		}, chosen: "n0", restarted: true, lost: "everything"},
		{name: "an empty one when an admin accepts the loss", make: func(w *world, e *Election) {
			w.restart("n0", 0)
			w.restart("n1", 0)
			e.Requested, e.AcceptLoss = "n0", true
		}, chosen: "n0", restarted: true, lost: "everything"},
		{name: "not an empty one when an admin only asks for it", make: func(w *world, e *Election) {
			w.restart("n0", 0)
			w.restart("n1", 0)
			e.Requested = "n0"
		}, waiting: []string{"n2"}, remedy: "n0"},
		{name: "the best when an admin accepts the loss and names nobody", make: func(w *world, e *Election) {
			out(w, "n1", "n2")
			w.servers["n2"].up = true
			e.AcceptLoss = true
		}, chosen: "n2", lost: "1500 bytes"},
		{name: "nobody while a master is only hung", make: func(w *world, e *Election) {
			w.servers["n0"].up, w.servers["n0"].hung = true, true
			w.restart("n1", 10)
			w.restart("n2", 10)
			w.o.Nodes["n0"] = health.Node{Probe: health.Probe{Heard: w.now.Add(-time.Minute), Asked: w.now.Add(-time.Minute)}}
			e.Since = w.now.Add(-time.Hour)
		}, waiting: []string{"n0"}, remedy: "n1"},
		{name: "nobody while the recorded master loads", make: func(w *world, e *Election) {
			w.restart("n0", 5).loading = true
			w.restart("n1", 50)
			w.restart("n2", 10)
			e.Since = w.now.Add(-time.Hour)
		}, waiting: []string{"n0"}, remedy: "n1"},
		{name: "the admitted replica and no restarted node", make: func(w *world, _ *Election) {
			w.restartWithJournal("n0")
			w.servers["n1"].up = true
			w.restart("n2", 50)
		}, chosen: "n1"},
		{name: "nobody that was never admitted", make: func(w *world, _ *Election) {
			n := w.shard().Node("n1")
			n.Incarnation, n.InSync = "", false
			w.restart("n0", 0)
			w.restart("n1", 500)
			w.restart("n2", 0)
		}, chosen: "n0", restarted: true, lost: "everything"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(3)
			w.write(500)
			w.tick(step)
			for _, id := range []string{"n0", "n1", "n2"} {
				w.kill(id)
			}
			w.tick(100 * time.Millisecond)
			e := Election{Old: "n0", Since: w.now, Offset: 1500}
			for _, id := range []string{"n1", "n2"} {
				w.servers[id].offset = 0 // what an intact one has is said by the test
			}
			tc.make(w, &e)
			w.tick(step)
			got := Elect(&w.c, w.shard(), e, &w.o, w.now)
			if got.Chosen() != tc.chosen || got.Restarted != tc.restarted || !slices.Equal(got.Waiting, tc.waiting) {
				t.Errorf("chosen %q (restarted %t), want %q (%t), waiting for %q, want %q: %+v", got.Chosen(), got.Restarted, tc.chosen, tc.restarted, got.Waiting, tc.waiting, got)
			}
			if (tc.lost == "") != (got.Lost == "") || !strings.Contains(got.Lost, tc.lost) {
				t.Errorf("lost %q, want %q", got.Lost, tc.lost)
			}
			if tc.remedy != "" {
				if text := got.Blocked(&w.c, w.shard()); got.Remedy != tc.remedy || !strings.Contains(text, "basaltctl failover c s --to "+tc.remedy+" --accept-loss") {
					t.Errorf("remedy %q, want %q: %s", got.Remedy, tc.remedy, text)
				}
			}
		})
	}
}

func TestReadSet(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(w *world)
		want []bool
	}{
		{name: "all", make: func(*world) {}, want: []bool{true, true, true}},
		{name: "not a dead one", make: func(w *world) { w.kill("n1"); w.tick(100 * time.Millisecond) }, want: []bool{true, false, true}},
		{name: "not one the admin took out", make: func(w *world) { w.shard().Nodes[1].Readable = false }, want: []bool{true, false, true}},
		{name: "not one that lags", make: func(w *world) { w.lag(17 << 20) }, want: []bool{true, false, false}},
		{name: "one that lags a little", make: func(w *world) { w.lag(10 << 20) }, want: []bool{true, true, true}},
		{name: "not yet one that was out and lags a little", make: func(w *world) {
			w.shard().Nodes[1].InReadSet = false
			w.lag(10 << 20)
		}, want: []bool{true, false, true}},
		{name: "one that was out and has caught up", make: func(w *world) { w.shard().Nodes[1].InReadSet = false }, want: []bool{true, true, true}},
		{name: "not one that copies", make: func(w *world) {
			w.servers["n1"].linkUp, w.servers["n1"].syncing, w.servers["n1"].follows = false, true, ""
			w.tick(step)
		}, want: []bool{true, false, true}},
		{name: "no change without a master", make: func(w *world) { w.kill("n0"); w.kill("n1"); w.tick(time.Minute) }, want: []bool{true, true, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(3)
			tc.make(w)
			got := ReadSet(&w.c, w.shard(), &w.o, w.now)
			for i := range tc.want {
				if got[i] != tc.want[i] {
					t.Fatalf("read set %v, want %v", got, tc.want)
				}
			}
		})
	}
}

// lag puts the master ahead of its replicas.
func (w *world) lag(bytes int64) {
	h := w.o.Histories["s"]
	h.Offset += bytes
	w.o.Histories["s"] = h
}

func TestMinReplicasNeverStopsWrites(t *testing.T) {
	w := newWorld(3)
	w.c.Policy.MinReplicasToWrite = 2
	if got := MinReplicas(&w.c, w.shard(), &w.o, w.now); got != 2 {
		t.Errorf("all in sync: %d", got)
	}
	w.kill("n1")
	w.tick(100 * time.Millisecond)
	if got := MinReplicas(&w.c, w.shard(), &w.o, w.now); got != 1 {
		t.Errorf("one lost: %d", got)
	}
	w.c.Settings = []topology.Setting{{Name: "min-replicas-to-write", Value: "2"}}
	if got := MinReplicas(&w.c, w.shard(), &w.o, w.now); got != 2 {
		t.Errorf("one lost, and an admin who set it to 2: %d", got)
	}
}

func TestProgress(t *testing.T) {
	w := newWorld(2)
	if lines := Progress(&w.c, &w.o, w.now); len(lines) > 0 {
		t.Errorf("all in sync: %q", lines)
	}
	w.c.WantShards, w.c.WantNodes = 2, 3
	w.servers["n1"].linkUp, w.servers["n1"].syncing, w.servers["n1"].follows = false, true, ""
	w.tick(step)
	text := strings.Join(Progress(&w.c, &w.o, w.now), "\n")
	for _, want := range []string{"1 of 2 shards have nodes", "s: 2 of 3 nodes registered", "n1 is syncing, 0 %"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

func TestBeginRefuses(t *testing.T) {
	w := newWorld(2)
	begin := func() error {
		_, err := w.commit(Begin("s", "1", "a test", nil, true, nil, &w.o, w.now))
		return err
	}
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	if s := w.shard(); s.Master != "" || s.Operation.OldMaster != "n0" || s.Operation.OldMasterOffset != 1000 || len(s.Failovers) != 1 || s.Operation.StartEpoch != w.c.Epoch {
		t.Errorf("shard %+v, operation %+v", s, s.Operation)
	}
	if err := begin(); err == nil {
		t.Error("a second failover began")
	}
	if _, err := w.commit(BeginSwitchover("s", "2", "a test", "n1", nil, nil, w.now)); err == nil {
		t.Error("a switchover began in the middle of a failover")
	}
	if _, err := w.commit(BeginRotation("s", "3", "a test", w.now)); err == nil {
		t.Error("a rotation began in the middle of a failover")
	}
}

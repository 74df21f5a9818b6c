package failover

import (
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

func TestCandidates(t *testing.T) {
	for _, tc := range []struct {
		name   string
		make   func(w *world, e *Election)
		chosen string
		// refused maps a node to a part of the reason.
		refused map[string]string
	}{
		{name: "the lowest id of equals", chosen: "n1", refused: map[string]string{"n0": "being replaced", "n2": "as good as n1"}},
		{name: "the highest offset", make: func(w *world, _ *Election) { w.servers["n2"].offset = 2000 }, chosen: "n2",
			refused: map[string]string{"n1": "500 bytes behind n2"}},
		{name: "the better priority before the offset", make: func(w *world, _ *Election) {
			w.servers["n2"].offset = 2000
			w.shard().Nodes[3].Priority = 50
		}, chosen: "n3", refused: map[string]string{"n2": "better priority"}},
		{name: "priority 0 never", make: func(w *world, _ *Election) { w.shard().Nodes[1].Priority = 0 }, chosen: "n2",
			refused: map[string]string{"n1": "priority 0"}},
		{name: "priority 0 when an admin asks", make: func(w *world, e *Election) {
			w.shard().Nodes[1].Priority = 0
			e.Requested = "n1"
		}, chosen: "n1", refused: map[string]string{"n2": "another node was asked for"}},
		{name: "not one that restarted, whoever asks", make: func(w *world, e *Election) {
			w.kill("n1")
			w.tick(step)
			w.restart("n1", 10)
			e.Requested = "n1"
		}, refused: map[string]string{"n1": "restarted"}},
		{name: "not one that is away", make: func(w *world, _ *Election) { w.kill("n1") }, chosen: "n2", refused: map[string]string{"n1": "does not answer"}},
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
		}, chosen: "n2", refused: map[string]string{"n1": "link to the master had been down"}},
		{name: "the old master when it is back and nobody else can", make: func(w *world, _ *Election) {
			w.servers["n0"].up = true
			for _, id := range []string{"n1", "n2", "n3"} {
				w.kill(id)
			}
		}, chosen: "n0"},
		{name: "not the old master when somebody else can", make: func(w *world, _ *Election) { w.servers["n0"].up = true }, chosen: "n1"},
		{name: "the old master after a switchover that failed", make: func(w *world, e *Election) {
			w.servers["n0"].up, w.servers["n0"].offset = true, 1600
			e.AllowOld = true
		}, chosen: "n0", refused: map[string]string{"n1": "100 bytes behind n0"}},
		{name: "a better priority is no reason to lose what the old master has after a switchover that failed", make: func(w *world, e *Election) {
			w.servers["n0"].up, w.servers["n0"].offset = true, 1600
			w.shard().Nodes[3].Priority = 50
			e.AllowOld = true
		}, chosen: "n0", refused: map[string]string{"n3": "100 bytes behind n0"}},
		{name: "a better priority with everything the old master has after a switchover that failed", make: func(w *world, e *Election) {
			w.servers["n0"].up, w.servers["n0"].offset = true, 1600
			w.shard().Nodes[3].Priority, w.servers["n3"].offset = 50, 1600
			e.AllowOld = true
		}, chosen: "n3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := afterDeath()
			e := Election{Old: "n0"}
			if tc.make != nil {
				tc.make(w, &e)
			}
			w.refreshAll()
			got := Candidates(&w.c, w.shard(), e, &w.o, w.now)
			if Chosen(got) != tc.chosen || len(got) != 4 {
				t.Errorf("chosen %q, want %q: %+v", Chosen(got), tc.chosen, got)
			}
			for _, c := range got {
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

func TestElectRestarted(t *testing.T) {
	for _, tc := range []struct {
		name      string
		make      func(w *world, e *Election)
		chosen    string
		restarted bool
	}{
		{name: "the recorded master with data", make: func(w *world, _ *Election) {
			w.restart("n0", 5)
			w.restart("n1", 50)
			w.restart("n2", 10)
		}, chosen: "n0", restarted: true},
		{name: "the most keys when the recorded master is empty", make: func(w *world, _ *Election) {
			w.restart("n0", 0)
			w.restart("n1", 5)
			w.restart("n2", 10)
		}, chosen: "n2", restarted: true},
		{name: "the recorded master when nobody has data", make: func(w *world, _ *Election) {
			w.restart("n0", 0)
			w.restart("n1", 0)
			w.restart("n2", 0)
		}, chosen: "n0", restarted: true},
		{name: "nobody while a replica is away", make: func(w *world, _ *Election) {
			w.restart("n0", 0)
			w.restart("n1", 0)
		}},
		{name: "data, after the grace, although a replica is away", make: func(w *world, _ *Election) {
			w.restart("n0", 5)
			w.restart("n1", 0)
			w.tick(11 * time.Second)
		}, chosen: "n0", restarted: true},
		{name: "nothing empty, however long a replica is away", make: func(w *world, _ *Election) {
			w.restart("n0", 0)
			w.restart("n1", 0)
			w.tick(time.Hour)
		}, restarted: true},
		{name: "an empty one when an admin insists", make: func(w *world, e *Election) {
			w.restart("n0", 0)
			w.restart("n1", 0)
			e.Requested = "n0"
		}, chosen: "n0", restarted: true},
		{name: "nobody while a master is only hung", make: func(w *world, _ *Election) {
			w.servers["n0"].up, w.servers["n0"].hung = true, true
			w.restart("n1", 10)
			w.restart("n2", 10)
			w.o.Nodes["n0"] = health.Node{Probe: health.Probe{Heard: w.now.Add(-time.Minute), Asked: w.now.Add(-time.Minute)}}
			w.tick(time.Minute)
		}},
		{name: "nobody while the recorded master loads", make: func(w *world, _ *Election) {
			w.restart("n0", 5).loading = true
			w.restart("n1", 50)
			w.restart("n2", 10)
		}},
		{name: "the admitted replica and no restarted node", make: func(w *world, _ *Election) {
			w.restart("n0", 50)
			w.servers["n1"].up = true
			w.restart("n2", 50)
		}, chosen: "n1"},
		{name: "nobody that was never admitted", make: func(w *world, _ *Election) {
			w.shard().Nodes[1].Incarnation = ""
			w.restart("n0", 0)
			w.restart("n1", 500)
			w.restart("n2", 0)
		}, chosen: "n0", restarted: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(3)
			w.write(500)
			w.tick(step)
			for _, id := range []string{"n0", "n1", "n2"} {
				w.kill(id)
			}
			w.tick(100 * time.Millisecond)
			e := Election{Old: "n0"}
			tc.make(w, &e)
			w.tick(step)
			got, restarted := Elect(&w.c, w.shard(), e, &w.o, w.now)
			if Chosen(got) != tc.chosen || restarted != tc.restarted {
				t.Errorf("chosen %q (restarted %t), want %q (%t): %+v", Chosen(got), restarted, tc.chosen, tc.restarted, got)
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
		_, err := w.commit(Begin("s", "1", "a test", "", true, nil, &w.o, w.now))
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

package failover

import (
	"slices"
	"testing"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// What an operation, or one that was rolled back, leaves at servers is not taken for
// a record that is older than they are.
func TestTheRecordIsNotOlder(t *testing.T) {
	next := []string{credentials.ReplicationUser, credentials.ProxyUser(2, credentials.Seat{Number: 0, Version: 1})}
	for name, make := range map[string]func(w *world){
		"a failover grants before it commits": func(w *world) {
			w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Failover, Phase: Promoting, OldMaster: "n0", Candidate: "n1"}
			w.shard().Master = ""
			w.servers["n1"].master, w.servers["n1"].users, w.servers["n2"].users = true, next, next
			w.kill("n0")
		},
		"a rotation grants before it commits": func(w *world) {
			w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Rotation, Phase: Granting, OldMaster: "n0"}
			for _, s := range w.servers {
				s.users = append(s.users, credentials.ProxyUser(2, credentials.Seat{Number: 0, Version: 1}))
			}
		},
		"a replica was fenced by an owner that died": func(w *world) { w.servers["n1"].users = next },
		"such a replica is the only one that answers": func(w *world) {
			w.servers["n1"].users = next
			w.kill("n0")
			w.kill("n2")
		},
		"a server of another cluster took the address": func(w *world) {
			w.boot("n1").users = []string{credentials.ProxyUser(50, credentials.Seat{Number: 0, Version: 1})}
		},
		"a marked server of another cluster took the address": func(w *world) {
			w.servers["n1"].users = []string{credentials.ProxyUser(50, credentials.Seat{Number: 0, Version: 1}), topology.Mark(&topology.Cluster{UID: "other"}, "s", "n1")}
		},
		"the cluster is being deleted": func(w *world) {
			w.c.Phase = topology.Deleting
			w.servers["n1"].users = []string{credentials.ProxyUser(50, credentials.Seat{Number: 0, Version: 1})}
		},
	} {
		w := newWorld(3)
		make(w)
		w.tick(step)
		if why := Newer(&w.c, w.shard(), &w.o, w.now); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
	w := newWorld(3)
	w.c.UID = "u"
	w.boot("n1").users = []string{credentials.ProxyUser(50, credentials.Seat{Number: 0, Version: 1}), topology.Mark(&topology.Cluster{UID: "u"}, "s", "n1")}
	w.tick(step)
	if !slices.Contains(w.codes(), "RecordIsOlder") {
		t.Error("a node that restarted and is marked as ours is not believed")
	}
}

package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// row is one situation and what must be made of it.
type situationTest struct {
	name  string
	nodes int
	make  func(w *world)
	// code must be found about node, with this remedy; no other code of the
	// table may be, except those in also.
	code, node string
	remedy     Remedy
	also       []string
	message    string
}

var situations = []situationTest{
	{name: "RecordIsOlder: another master has the next generation", nodes: 2, make: func(w *world) {
		w.kill("n0")
		w.tick(step)
		w.servers["n1"].master, w.servers["n1"].users = true, []string{credentials.ReplicationUser, credentials.ProxyUser(2, credentials.Seat{Number: 0, Version: 1})}
		w.tick(50 * time.Millisecond)
	}, code: "RecordIsOlder", also: []string{"DeadMaster", "FailoverBlocked", "StaleUsers", "StaleMaster"}, message: "n1 accepts proxies of generation 2, the record of s says 1"},
	{name: "RecordIsOlder: every node has the next generation", nodes: 2, make: func(w *world) {
		for _, s := range w.servers {
			s.users = []string{credentials.ReplicationUser, credentials.ProxyUser(2, credentials.Seat{Number: 0, Version: 1})}
		}
		w.tick(step)
	}, code: "RecordIsOlder", also: []string{"StaleUsers"}, message: "basaltctl topology adopt c"},
	{name: "RecordIsOlder: a much later generation", nodes: 2, make: func(w *world) {
		w.servers["n1"].users = append(w.servers["n1"].users, credentials.ProxyUser(9, credentials.Seat{Number: 0, Version: 1}))
		w.tick(step)
	}, code: "RecordIsOlder", also: []string{"StaleUsers"}, message: "generation 9"},
	{name: "DeadMaster", nodes: 3, make: func(w *world) { w.kill("n0"); w.tick(50 * time.Millisecond) },
		code: "DeadMaster", node: "n0", remedy: Replace, message: "connection refused"},
	{name: "DeadMasterNoReplicas", nodes: 1, make: func(w *world) { w.kill("n0"); w.tick(time.Second) },
		code: "DeadMasterNoReplicas", node: "n0", message: "no other node"},
	{name: "FailoverBlocked", nodes: 2, make: func(w *world) { w.kill("n1"); w.kill("n0"); w.tick(time.Second) },
		code: "FailoverBlocked", node: "n0", also: []string{"DeadReplica"}, message: "waiting for n0, which has everything (does not answer: connection refused) and n1, which was in sync"},
	{name: "FailoverBlocked: a replica that is behind", nodes: 2, make: func(w *world) {
		w.kill("n1")
		w.tick(11 * time.Second)
		w.write(5000)
		w.tick(step)
		w.kill("n0")
		w.servers["n1"].up = true
		w.tick(time.Second)
	}, code: "FailoverBlocked", node: "n0", also: []string{"ReplicaOutOfSync"},
		message: "waiting for n0, which has everything (does not answer: connection refused); n1: is not in sync: 5000 bytes behind, out of sync for 11s; " +
			"start what is missing, or `basaltctl failover c s --to n1 --accept-loss` promotes n1"},
	{name: "FailoverBlocked: in its operation", nodes: 2, make: func(w *world) {
		w.kill("n1")
		w.kill("n0")
		w.tick(time.Second)
		_, _ = w.commit(Begin("s", "1", "a test", nil, true, nil, &w.o, w.now))
		w.shard().Operation.Phase = Electing
	}, code: "FailoverBlocked", node: "n0", message: "s has no master: waiting for n0"},
	{name: "FailoverBlocked: a replica that never was in sync", nodes: 2, make: func(w *world) {
		n1 := w.servers["n1"]
		w.kill("n0")
		w.tick(step)
		n1.offset, n1.history, n1.keys = 0, "own", 0
		w.tick(50 * time.Millisecond)
	}, code: "FailoverBlocked", node: "n0", message: "never in sync"},
	{name: "WrongServerAtAddress", nodes: 2, make: func(w *world) {
		w.kill("n1")
		w.restart("n1", 100).users = []string{topology.Mark(&w.c, "t", "t-0")}
		w.tick(step)
	}, code: "WrongServerAtAddress", node: "n1", message: "it says it is t-0 of t; nothing is done to it"},
	{name: "WrongServerAtAddress: a node of the cluster", nodes: 3, make: func(w *world) {
		w.kill("n1")
		w.restart("n1", 100).runID = w.servers["n2"].runID
		w.tick(step)
	}, code: "WrongServerAtAddress", node: "n1", message: "node n2"},
	{name: "WrongServerAtAddress: data that nobody knows", nodes: 2, make: func(w *world) {
		w.kill("n1")
		w.restart("n1", 100).users = nil
		w.tick(step)
	}, code: "WrongServerAtAddress", node: "n1", message: "restart it with the line \"user basalt-node:c:s:n1 off\""},
	{name: "WrongServerAtAddress: an empty server may be taken", nodes: 2, make: func(w *world) {
		w.kill("n1")
		w.restart("n1", 0).users = nil
		w.tick(step)
	}, code: "ReplicaRestarted", node: "n1", remedy: Admit},
	{name: "WrongServerAtAddress: the master's, while its replica still hears it", nodes: 2, make: func(w *world) {
		w.strangerAt("n0")
	}, code: "WrongServerAtAddress", node: "n0", also: []string{"MasterUnreachableFromConfigserver"}},
	{name: "NodeWithoutMark", nodes: 2, make: func(w *world) {
		w.servers["n1"].appendOnly = true
		w.shard().Node("n1").Unmarked = true
		w.tick(step)
	}, code: "NodeWithoutMark", node: "n1", message: `"user basalt-node:c:s:n1 off"`},
	{name: "ReplicaOlderThanMaster", nodes: 2, make: func(w *world) {
		w.servers["n0"].software = redisadmin.Software{Version: "7.4.1"}
		w.tick(step)
	}, code: "ReplicaOlderThanMaster", node: "n1",
		message: "n1 runs Redis 7.0.15, which cannot load a full copy from its master's Redis 7.4.1 and does not know all that this writes: run Redis 7.4.1 or later there"},
	{name: "ReplicaOlderThanMaster: one that restarted keeps what it has", nodes: 2, make: func(w *world) {
		w.servers["n0"].software = redisadmin.Software{Version: "7.4.1"}
		w.kill("n1")
		w.restart("n1", 100).software = redisadmin.Software{Valkey: true, Version: "8.0.1"}
		w.tick(step)
	}, code: "ReplicaOlderThanMaster", node: "n1", also: []string{"ReplicaRestarted"},
		message: "n1 runs Valkey 8.0.1, which cannot load a full copy from Redis 7.4.1: run Redis 7.4.1 or later there; until then it is left as it is, and follows nobody"},
	{name: "ReplicaOutOfSync", nodes: 2, make: func(w *world) {
		w.servers["n1"].hung = true
		w.tick(11 * time.Second)
		w.servers["n1"].hung = false
		w.servers["n1"].follows = "nowhere:1"
		w.tick(2 * step)
	}, code: "ReplicaOutOfSync", node: "n1", also: []string{"ReplicatesFromWrongMaster"}, message: "was not seen to have everything for 10"},
	{name: "HungMaster", nodes: 3, make: func(w *world) { w.servers["n0"].hung = true; w.tick(4100 * time.Millisecond) },
		code: "HungMaster", node: "n0", remedy: Replace, message: "no answer for 4"},
	{name: "HungMasterNoReplicas", nodes: 1, make: func(w *world) { w.servers["n0"].hung = true; w.tick(4100 * time.Millisecond) },
		code: "HungMasterNoReplicas", node: "n0"},
	{name: "MasterRestarted", nodes: 2, make: func(w *world) { w.kill("n0"); w.tick(step); w.restart("n0", 0); w.tick(step) },
		code: "MasterRestarted", node: "n0", remedy: Replace},
	{name: "MasterRestartedNoCandidate", nodes: 1, make: func(w *world) { w.kill("n0"); w.tick(step); w.restart("n0", 0); w.tick(step) },
		code: "MasterRestartedNoCandidate", node: "n0", remedy: Replace},
	{name: "AllNodesRestarted", nodes: 2, make: func(w *world) {
		w.kill("n0")
		w.kill("n1")
		w.tick(50 * time.Millisecond)
		w.restart("n0", 10)
		w.restart("n1", 10)
		w.tick(step)
	}, code: "AllNodesRestarted", node: "n0", remedy: Replace, also: []string{"ReplicaRestarted"}, message: "lost is what is newer than"},
	{name: "AllNodesRestarted: all empty", nodes: 2, make: func(w *world) {
		w.kill("n0")
		w.kill("n1")
		w.tick(50 * time.Millisecond)
		w.restart("n0", 0)
		w.restart("n1", 0)
		w.tick(step)
	}, code: "AllNodesRestarted", node: "n0", remedy: Replace, also: []string{"ReplicaRestarted"}, message: "lost is everything"},
	{name: "AllNodesRestarted: the master stays away", nodes: 2, make: func(w *world) {
		w.kill("n0")
		w.kill("n1")
		w.tick(50 * time.Millisecond)
		w.restartWithJournal("n1")
		w.tick(11 * time.Second)
	}, code: "AllNodesRestarted", node: "n0", remedy: Replace, also: []string{"ReplicaRestarted"}, message: "n1 is taken as master; it found everything"},
	{name: "AllNodesRestarted: not before the grace is over", nodes: 2, make: func(w *world) {
		w.kill("n0")
		w.kill("n1")
		w.tick(50 * time.Millisecond)
		w.restartWithJournal("n1")
		w.tick(5 * time.Second)
	}, code: "FailoverBlocked", node: "n0", also: []string{"ReplicaRestarted"}},
	{name: "MasterIsReplica", nodes: 2, make: func(w *world) {
		w.servers["n0"].master, w.servers["n0"].follows = false, "elsewhere:1"
		w.tick(step)
	}, code: "MasterIsReplica", node: "n0", remedy: Replace, also: []string{"ReplicaNotReplicating"}},
	{name: "MasterUnreachableFromConfigserver", nodes: 2, make: func(w *world) { w.cut["n0"] = true; w.tick(5 * time.Second) },
		code: "MasterUnreachableFromConfigserver", node: "n0"},
	{name: "MasterUnreachableFromConfigserver: a proxy gets replies", nodes: 2, make: func(w *world) {
		w.cut["n0"] = true
		w.kill("n1")
		w.tick(5 * time.Second)
		w.proxies["p"] = health.ProxySight{Sight: topology.SightOK, At: w.now, ReplyAt: w.now}
		w.tick(step)
	}, code: "MasterUnreachableFromConfigserver", node: "n0", also: []string{"DeadReplica"}},
	{name: "SlowMaster", nodes: 2, make: func(w *world) { w.servers["n0"].hung = true; w.tick(3 * time.Second) },
		code: "SlowMaster", node: "n0"},
	{name: "FailoversExhausted", nodes: 2, make: func(w *world) {
		w.shard().Failovers = []time.Time{w.now.Add(-time.Minute), w.now.Add(-time.Minute), w.now}
		w.kill("n0")
		w.tick(50 * time.Millisecond)
	}, code: "FailoversExhausted", node: "n0", message: "`basaltctl failover c s` makes n1 the master now"},
	{name: "FailoversExhausted: not for one that was started again", nodes: 2, make: func(w *world) {
		w.shard().Failovers = []time.Time{w.now.Add(-time.Minute), w.now.Add(-time.Minute), w.now}
		w.kill("n0")
		w.tick(50 * time.Millisecond)
		w.restart("n0", 0)
		w.tick(3 * step)
	}, code: "MasterRestarted", node: "n0", remedy: Replace, also: []string{"ReplicatesFromWrongMaster", "ReplicaNotReplicating"}},
	{name: "FailoverPaused", nodes: 2, make: func(w *world) {
		w.c.SetMaintenance(topology.Maintenance{Shard: "s", Since: w.now, Until: w.now.Add(time.Hour), Reason: "new disks"}, w.now)
		w.kill("n0")
		w.tick(50 * time.Millisecond)
	}, code: "FailoverPaused", node: "n0", message: "s is in maintenance (new disks): start n0 again", also: []string{"Maintenance"}},
	{name: "FailoverPaused: it is over", nodes: 2, make: func(w *world) {
		w.c.SetMaintenance(topology.Maintenance{Since: w.now, Until: w.now.Add(20 * time.Millisecond)}, w.now)
		w.kill("n0")
		w.tick(50 * time.Millisecond)
	}, code: "DeadMaster", node: "n0", remedy: Replace},
	{name: "FailoverPaused: not for one that was started again", nodes: 2, make: func(w *world) {
		w.c.SetMaintenance(topology.Maintenance{Since: w.now, Until: w.now.Add(time.Hour)}, w.now)
		w.kill("n0")
		w.tick(50 * time.Millisecond)
		w.restart("n0", 0)
		w.tick(3 * step)
	}, code: "MasterRestarted", node: "n0", remedy: Replace, also: []string{"Maintenance", "ReplicatesFromWrongMaster", "ReplicaNotReplicating"}},
	{name: "Maintenance", nodes: 2, make: func(w *world) {
		w.c.SetMaintenance(topology.Maintenance{Since: w.now, Until: w.now.Add(time.Hour)}, w.now)
	}, code: "Maintenance", message: "`basaltctl maintenance off c` ends it"},
	{name: "FailoversExhausted: old ones do not count", nodes: 2, make: func(w *world) {
		w.shard().Failovers = []time.Time{w.now.Add(-time.Hour), w.now.Add(-time.Hour), w.now}
		w.kill("n0")
		w.tick(50 * time.Millisecond)
	}, code: "DeadMaster", node: "n0", remedy: Replace},
	{name: "DeadReplica", nodes: 2, make: func(w *world) { w.kill("n1"); w.tick(50 * time.Millisecond) },
		code: "DeadReplica", node: "n1", also: []string{"ReplicaOutOfSync"}},
	{name: "MasterMoved", nodes: 2, make: func(w *world) {
		w.lookUp()
		w.servers["n0"].at = "10.0.0.9:6379"
		w.servers["n1"].follows = "10.0.0.9:6379" // by whoever moved it
		w.tick(2 * step)
	}, code: "MasterMoved", node: "n0", remedy: Relocate, also: []string{"ReplicatesFromWrongMaster", "ReplicaOutOfSync"},
		message: "n0, which was at 10.0.0.0:6379, answers at 10.0.0.9:6379 now, where n0:6379 leads"},
	{name: "MasterMoved: admitted before names were looked up", nodes: 2, make: func(w *world) {
		w.servers["n0"].at = "10.0.0.9:6379"
		w.probe("n0")
	}, code: "MasterMoved", node: "n0", remedy: Relocate, message: "was at n0:6379"},
	{name: "ReplicaMoved", nodes: 3, make: func(w *world) {
		w.lookUp()
		w.servers["n2"].at = "10.0.0.9:6379"
		w.tick(2 * step)
	}, code: "ReplicaMoved", node: "n2", remedy: Admit, message: "answers at 10.0.0.9:6379 now"},
	{name: "ReplicaMoved: waits for a master that answers", nodes: 3, make: func(w *world) {
		w.lookUp()
		w.cut["n0"] = true
		w.tick(5 * time.Second)
		w.servers["n2"].at = "10.0.0.9:6379"
		w.tick(2 * step)
	}, code: "ReplicaMoved", node: "n2", also: []string{"MasterUnreachableFromConfigserver"}},
	{name: "ReplicaMoved: not by an address that is no name", nodes: 2, make: func(w *world) {
		w.lookUp()
		w.shard().Nodes[1].Address, w.shard().Nodes[1].Resolved = "10.0.0.1:6379", ""
		w.servers["n1"].at, w.servers["n1"].follows = "10.0.0.9:6379", "10.0.0.5:6379"
		w.tick(2 * step)
	}, code: "ReplicatesFromWrongMaster", node: "n1", remedy: Admit, also: []string{"ReplicaOutOfSync"}},
	{name: "ReplicaMoved: another process at another place restarted", nodes: 2, make: func(w *world) {
		w.lookUp()
		w.kill("n1")
		w.tick(step)
		w.restart("n1", 0).at = "10.0.0.9:6379"
		w.tick(step)
	}, code: "ReplicaRestarted", node: "n1", remedy: Admit},
	{name: "NameLeadsElsewhere", nodes: 2, make: func(w *world) {
		w.lookUp()
		w.servers["n0"].astray = "10.0.0.9:6379"
		w.tick(step)
	}, code: "NameLeadsElsewhere", node: "n0", message: "n0 answers at 10.0.0.0:6379, but n0:6379 leads to 10.0.0.9:6379 now"},
	{name: "NameLeadsElsewhere: and the master cannot be seen", nodes: 2, make: func(w *world) {
		w.lookUp()
		w.elsewhere("n0")
	}, code: "MasterUnreachableFromConfigserver", node: "n0"},
	{name: "MasterRestarted: at another place", nodes: 2, make: func(w *world) {
		w.lookUp()
		w.kill("n0")
		w.tick(step)
		w.restart("n0", 0).at = "10.0.0.9:6379"
		w.tick(2 * step)
	}, code: "MasterRestarted", node: "n0", remedy: Replace},
	{name: "ReplicaRestarted", nodes: 2, make: func(w *world) { w.kill("n1"); w.tick(step); w.restart("n1", 0); w.tick(step) },
		code: "ReplicaRestarted", node: "n1", remedy: Admit},
	{name: "ReplicaRestarted: waits while it loads", nodes: 2, make: func(w *world) {
		w.kill("n1")
		w.tick(step)
		w.restart("n1", 0).loading = true
		w.tick(step)
	}, code: "ReplicaRestarted", node: "n1"},
	{name: "ReplicatesFromWrongMaster", nodes: 2, make: func(w *world) { w.servers["n1"].follows = "n9:6379"; w.tick(3 * step) },
		code: "ReplicatesFromWrongMaster", node: "n1", remedy: Admit, also: []string{"ReplicaOutOfSync"}},
	{name: "ReplicaNotReplicating", nodes: 3, make: func(w *world) {
		w.tick(step)
		w.servers["n0"].users = slices.DeleteFunc(w.servers["n0"].users, func(u string) bool { return u == credentials.ReplicationUser })
		w.kill("n2")
		w.tick(100 * time.Millisecond)
	}, code: "ReplicaNotReplicating", node: "n1", remedy: Regrant, also: []string{"StaleUsers", "DeadReplica", "ReplicaOutOfSync"}},
	{name: "ReplicaLagging", nodes: 2, make: func(w *world) {
		h := w.o.Histories["s"]
		h.Offset += w.c.Policy.MaxReadLag + 1
		w.o.Histories["s"] = h
	}, code: "ReplicaLagging", node: "n1"},
	{name: "ReplicaLagging: until half of it is made up", nodes: 2, make: func(w *world) {
		w.shard().Nodes[1].InReadSet = false
		h := w.o.Histories["s"]
		h.Offset += w.c.Policy.MaxReadLag/2 + 1
		w.o.Histories["s"] = h
	}, code: "ReplicaLagging", node: "n1"},
	{name: "StaleMaster", nodes: 2, make: func(w *world) {
		w.shard().Generation = 2
		w.servers["n0"].users = append(w.users(), w.mark("n0"))
		w.servers["n1"].master, w.servers["n1"].linkUp = true, false
		w.tick(3 * step)
	}, code: "StaleMaster", node: "n1", remedy: Admit, also: []string{"StaleUsers", "ReplicaOutOfSync"}},
	{name: "TwoWritableMasters", nodes: 2, make: func(w *world) { w.servers["n1"].master, w.servers["n1"].linkUp = true, false; w.tick(3 * step) },
		code: "TwoWritableMasters", node: "n1", remedy: Admit, also: []string{"ReplicaOutOfSync"}},
	{name: "MisconfiguredNode: default user", nodes: 2, make: func(w *world) { w.servers["n1"].defaultUser.On = true; w.tick(step) },
		code: "MisconfiguredNode", node: "n1", message: "user default off"},
	{name: "MisconfiguredNode: narrow default user", nodes: 2, make: func(w *world) { w.servers["n1"].defaultUser.Narrow = true; w.tick(step) },
		code: "MisconfiguredNode", node: "n1", message: "transactions"},
	{name: "MisconfiguredNode: cluster mode", nodes: 2, make: func(w *world) { w.servers["n1"].mode = "cluster"; w.tick(step) },
		code: "MisconfiguredNode", node: "n1", message: "cluster-enabled no"},
	{name: "NodeRefusesAdmin", nodes: 2, make: func(w *world) { w.servers["n1"].password = false; w.tick(step) },
		code: "NodeRefusesAdmin", node: "n1"},
	{name: "NodeRefusesAdmin: on an open connection", nodes: 2, make: func(w *world) {
		n := w.o.Nodes["n1"]
		n.NotOnFile = true
		w.o.Nodes["n1"] = n
	}, code: "NodeRefusesAdmin", node: "n1", message: "admin-password"},
	{name: "CredentialsNotOnFile", nodes: 2, make: func(w *world) { w.filesLack = "cluster-secret is empty" },
		code: "CredentialsNotOnFile", message: "cluster-secret is empty"},
	{name: "StaleUsers", nodes: 2, make: func(w *world) {
		w.servers["n1"].users = append(w.servers["n1"].users, credentials.ScriptUser(1)) // of before there were seats
		w.tick(step)
	},
		code: "StaleUsers", node: "n1", remedy: Regrant},
	{name: "StaleUsers: of another generation", nodes: 2, make: func(w *world) {
		w.servers["n1"].users = append(w.servers["n1"].users, credentials.ProxyUser(0, credentials.Seat{Version: 1}))
		w.tick(step)
	}, code: "StaleUsers", node: "n1", remedy: Regrant},
	{name: "StaleUsers: a proxy was shut out", nodes: 2, make: func(w *world) {
		w.servers["n0"].users = append(w.users(), w.mark("n0"))
		w.servers["n0"].users[2] = credentials.ProxyUser(1, credentials.Seat{Version: 7})
		w.c.Seats[0] = 7
		w.tick(step)
	}, code: "StaleUsers", node: "n1", remedy: Regrant},
	{name: "StaleUsers: new seats", nodes: 2, make: func(w *world) {
		w.c.Seats = append(w.c.Seats, 1)
		w.servers["n0"].users = append(w.users(), w.mark("n0"))
		w.tick(step)
	}, code: "StaleUsers", node: "n1", remedy: Regrant},
	{name: "FirstNodeNotAdmitted", nodes: 1, make: func(w *world) {
		w.c.Phase = topology.Forming
		w.shard().Master, w.shard().Nodes[0].Incarnation, w.shard().Nodes[0].InReadSet = "", "", false
		w.tick(step)
	}, code: "FirstNodeNotAdmitted", node: "n0", remedy: AdmitMaster},
	{name: "NodeNotAdmitted", nodes: 2, make: func(w *world) {
		w.shard().Nodes[1].Incarnation, w.shard().Nodes[1].InReadSet = "", false
		w.tick(step)
	}, code: "NodeNotAdmitted", node: "n1", remedy: Admit},
	{name: "NodeNotAdmitted: not while the master is a stranger", nodes: 2, make: func(w *world) {
		w.shard().Nodes[1].Incarnation, w.shard().Nodes[1].InReadSet = "", false
		w.kill("n0")
		w.tick(step)
		w.restart("n0", 0).loading = true
		w.tick(step)
	}, code: "NodeNotAdmitted", node: "n1", also: []string{"FailoverBlocked"}},
	{name: "ShardNotServing: nobody is left", nodes: 1, make: func(w *world) { w.kill("n0"); w.tick(time.Second) },
		code: NotServing, also: []string{"DeadMasterNoReplicas"}, message: "NOT SERVING: s (slots 0-16383): master n0 is lost (connection refused"},
	{name: "ShardNotServing: a failover that gets nowhere", nodes: 2, make: func(w *world) {
		w.kill("n0")
		w.tick(time.Second)
		_, _ = w.commit(Begin("s", "1", "a test", nil, false, nil, &w.o, w.now))
		w.shard().Operation.Phase = Promoting
		w.tick(time.Second)
	}, code: NotServing, message: "it has no master: failover, phase promoting, since "},
	{name: "ShardNotServing: a switchover that gets nowhere", nodes: 2, make: func(w *world) {
		w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Switchover, Phase: Freezing, OldMaster: "n0", Candidate: "n1", StartedAt: w.now}
		w.shard().Frozen = true
		w.tick(time.Second)
	}, code: NotServing, message: "it is frozen: switchover, phase freezing, since "},
	{name: "ShardNotServing: not at once in a switchover", nodes: 2, make: func(w *world) {
		w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Switchover, Phase: Freezing, OldMaster: "n0", Candidate: "n1", StartedAt: w.now}
		w.shard().Frozen = true
		w.tick(900 * time.Millisecond)
	}},
	{name: "ShardNotServing: a master that dies in a switchover", nodes: 2, make: func(w *world) {
		w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Switchover, Phase: Freezing, OldMaster: "n0", Candidate: "n1", StartedAt: w.now}
		w.kill("n0")
		w.tick(100 * time.Millisecond)
	}, code: NotServing, message: "master n0 is lost"},
	{name: "ShardNotServing: not while a replica hears the master", nodes: 2, make: func(w *world) {
		w.cut["n0"] = true
		w.tick(5 * time.Second)
	}, code: "MasterUnreachableFromConfigserver", node: "n0"},
}

// lostMaster are the codes by which nobody answers for a shard's slots.
var lostMaster = []string{"FailoversExhausted", "FailoverPaused", "DeadMaster", "HungMaster", "MasterRestarted", "MasterRestartedNoCandidate", "AllNodesRestarted",
	"MasterIsReplica", "FailoverBlocked", "DeadMasterNoReplicas", "HungMasterNoReplicas"}

func TestProblems(t *testing.T) {
	named := map[string]bool{}
	for _, tc := range situations {
		named[tc.code] = true
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(tc.nodes)
			if problems := w.codes(); len(problems) > 0 {
				t.Fatalf("before anything happened: %v", problems)
			}
			tc.make(w)
			found := tc.code == ""
			codes := w.codes()
			down := tc.code == NotServing || slices.ContainsFunc(codes, func(code string) bool { return slices.Contains(lostMaster, code) })
			if down != slices.Contains(codes, NotServing) {
				t.Errorf("a master that is lost and a shard that serves nobody go together: %v", codes)
			}
			for _, p := range w.detect() {
				switch {
				case p.Code == NotServing && tc.code != NotServing:
					if p.Since.IsZero() || p.Since.After(w.now) {
						t.Errorf("since %v", p.Since)
					}
				case p.Code == tc.code && p.Node == tc.node:
					found = true
					if p.Remedy != tc.remedy || !strings.Contains(p.Message, tc.message) {
						t.Errorf("remedy %q, message %q", p.Remedy, p.Message)
					}
				case !slices.Contains(tc.also, p.Code):
					t.Errorf("also found: %s of %s: %s", p.Code, p.Node, p.Message)
				}
			}
			if !found {
				t.Errorf("not found among %v", codes)
			}
		})
	}
	for _, row := range Table {
		if !named[row.Code] {
			t.Errorf("no test is named %s", row.Code)
		}
	}
}

func TestNoFailoverWhileReplicasAreNotAsked(t *testing.T) {
	w := newWorld(2)
	w.kill("n0")
	// The replica was last heard before the master was refused.
	before := w.o.Nodes["n1"]
	w.tick(50 * time.Millisecond)
	w.o.Nodes["n1"] = before
	if codes := w.codes(); len(codes) > 0 {
		t.Errorf("found %v before the replica was asked", codes)
	}
	w.now = w.now.Add(600 * time.Millisecond)
	if codes := w.codes(); !slices.Contains(codes, "DeadMaster") {
		t.Errorf("found %v although the replica never answered", codes)
	}
}

func TestNothingIsReplacedDuringAnOperation(t *testing.T) {
	w := newWorld(2)
	w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Switchover, Phase: Freezing, OldMaster: "n0", Candidate: "n1"}
	w.shard().Frozen = true
	w.kill("n0")
	w.tick(time.Second)
	if codes := w.codes(); !slices.Equal(codes, []string{NotServing}) {
		t.Errorf("found %v; the switchover sees to it", codes)
	}
	w.shard().Operation.Kind = topology.Rotation
	w.shard().Frozen = false
	if codes := w.codes(); !slices.Contains(codes, "DeadMaster") {
		t.Errorf("found %v; a rotation yields", codes)
	}
}

func TestOwnPausesAreNotHeldAgainstAMaster(t *testing.T) {
	w := newWorld(2)
	w.servers["n0"].hung = true
	w.tick(2 * time.Second)
	paused := w.now
	w.now = w.now.Add(10 * time.Second)
	w.o.Pauses = []health.Interval{{From: paused, To: w.now}}
	for _, p := range w.detect() {
		if p.Remedy == Replace {
			t.Errorf("%s: %s", p.Code, p.Message)
		}
	}
	w.tick(2100 * time.Millisecond)
	if codes := w.codes(); !slices.Contains(codes, "HungMaster") {
		t.Errorf("found %v", codes)
	}
}

// A user that may stay for the moment is no problem, and one when the moment is over.
func TestAUserThatLeavesIsNoProblem(t *testing.T) {
	w := newWorld(2)
	leaves := credentials.Seat{Number: 0, Version: 7}
	w.servers["n1"].users = append(w.servers["n1"].users, credentials.ProxyUser(1, leaves))
	w.o.Leaving = []credentials.Seat{leaves}
	w.tick(step)
	if codes := w.codes(); len(codes) > 0 {
		t.Errorf("while it leaves: %v", codes)
	}
	w.o.Leaving = nil
	w.tick(step)
	if codes := w.codes(); !slices.Equal(codes, []string{"StaleUsers"}) {
		t.Errorf("afterwards: %v", codes)
	}
}

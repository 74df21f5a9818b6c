package failover

import (
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// said is three nodes of which n1 was made the master after the record was written.
func said() map[string]Said {
	users := []string{credentials.AdminUser, credentials.ProxyUser(3, credentials.Seat{Number: 0, Version: 1}), credentials.ReplicationUser}
	follows := func(run string) Said {
		return Said{Info: redisadmin.Info{RunID: run, MasterAddress: "n1:6379"}, Users: users, SecretID: "y"}
	}
	return map[string]Said{
		"n0": follows("run0-again"),
		"n1": {Info: redisadmin.Info{RunID: "run2", Master: true, ReplID: "h1"}, Users: users, SecretID: "y", Reached: "10.0.0.1:6379"},
		"n2": follows("run3"),
	}
}

func TestAdopt(t *testing.T) {
	w := newWorld(3)
	w.shard().Operation = &topology.Operation{ID: "1", Kind: topology.Failover, Phase: Fencing}
	w.shard().Nodes[0].Resolved, w.shard().Nodes[1].Resolved = "10.0.0.0:6379", "10.0.0.1:6379"
	a, err := Adopt(&w.c, w.shard(), said())
	if err != nil || len(a.Notes) > 0 || strings.Join(a.Followers, " ") != "n0 n2" {
		t.Fatalf("%+v, %v", a, err)
	}
	a.Into(w.shard())
	s := w.shard()
	if s.Master != "n1" || s.Generation != 3 || s.SecretID != "y" || s.Operation != nil || s.Frozen || len(s.Histories) != 1 || s.Histories[0].ReplID != "h1" {
		t.Errorf("shard %+v", s)
	}
	if n := s.Nodes[0]; n.Incarnation != "run0-again" || n.Resolved != "" || n.InSync || n.InReadSet {
		t.Errorf("a node that restarted: %+v", n)
	}
	if n := s.Nodes[1]; n.Incarnation != "run2" || n.Resolved == "" || !n.InSync || !n.InReadSet || n.History != "h1" {
		t.Errorf("the master: %+v", n)
	}
	if err := w.c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestAdoptWithNotes(t *testing.T) {
	w := newWorld(3)
	heard := said()
	heard["n0"] = Said{Error: "connection refused"}
	n2 := heard["n2"]
	n2.Info.Master, n2.Users = true, []string{credentials.AdminUser}
	heard["n2"] = n2
	a, err := Adopt(&w.c, w.shard(), heard)
	if err != nil || len(a.Notes) != 2 || !strings.Contains(a.Notes[0], "n0 could not be asked (connection refused)") || !strings.Contains(a.Notes[1], "n2 is a master without") {
		t.Fatalf("%+v, %v", a, err)
	}
	a.Into(w.shard())
	if s := w.shard(); s.Nodes[0].Incarnation != "" || s.Nodes[2].Incarnation != "" {
		t.Errorf("nodes that nothing good is known of are admitted: %+v", s.Nodes)
	}
}

func TestAdoptRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(all map[string]Said, node func(id string, f func(s *Said)))
		want   string
	}{
		{"two masters", func(_ map[string]Said, node func(string, func(*Said))) {
			node("n2", func(s *Said) { s.Info.Master = true })
		}, "n1 and n2 are masters"},
		{"no master", func(_ map[string]Said, node func(string, func(*Said))) {
			node("n1", func(s *Said) { s.Info.Master, s.Info.MasterAddress = false, "n2:6379" })
		}, "no node that lets proxies of generation 3 in is a master"},
		{"a follower of somebody else", func(_ map[string]Said, node func(string, func(*Said))) {
			node("n2", func(s *Said) { s.Info.MasterAddress = "elsewhere:6379" })
		}, "n2 follows elsewhere:6379"},
		{"all restarted", func(all map[string]Said, node func(string, func(*Said))) {
			for id := range all {
				node(id, func(s *Said) { s.Users = []string{credentials.AdminUser} })
			}
		}, "restore a newer backup"},
		{"nobody answers", func(all map[string]Said, node func(string, func(*Said))) {
			for id := range all {
				node(id, func(s *Said) { *s = Said{Error: "no answer in time"} })
			}
		}, "start those that are away"},
		{"a secret that is not on file", func(_ map[string]Said, node func(string, func(*Said))) {
			node("n1", func(s *Said) { s.SecretID = "" })
		}, "cluster-secret"},
		{"the master is another cluster's", func(_ map[string]Said, node func(string, func(*Said))) {
			node("n1", func(s *Said) { s.Users = append(s.Users, topology.Mark(&topology.Cluster{UID: "other"}, "s", "n1")) })
		}, "no node that lets proxies of generation 3 in is a master"},
	} {
		w, all := newWorld(3), said()
		tc.change(all, func(id string, f func(s *Said)) {
			one := all[id]
			f(&one)
			all[id] = one
		})
		if a, err := Adopt(&w.c, w.shard(), all); err == nil || !strings.HasPrefix(err.Error(), "s: ") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %+v, %v", tc.name, a, err)
		}
	}
}

package failover

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// Two nodes on one port of different hosts: the one that follows is online, the
// other is not, although its master sees both hosts under one address.
func TestOnlineIsAboutTheNode(t *testing.T) {
	port := redistest.FreePort(t)
	start := func(host string) *redistest.Server {
		return redistest.Start(t, redistest.Options{Address: fmt.Sprintf("%s:%d", host, port)})
	}
	master, follows, idle := redistest.Start(t, redistest.Options{}), start("127.0.0.2"), start("127.0.0.3")
	record := topology.Cluster{Policy: topology.DefaultPolicy(), Shards: []topology.Shard{{ID: "s", Nodes: []topology.Node{
		{ID: "master", Address: master.Address},
		{ID: "follows", Address: follows.Address},
		{ID: "idle", Address: "idle.example:6379", Resolved: idle.Address},
	}}}}
	dial := func(s *redistest.Server) *redisadmin.Conn {
		c, err := redisadmin.Dial(t.Context(), s.Address, []string{s.AdminPassword})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	m, f, i := dial(master), dial(follows), dial(idle)
	for node, c := range map[string]*redisadmin.Conn{"master": m, "follows": f, "idle": i} {
		if err := configure(t.Context(), c, record, node, "replication"); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.GrantReplication(t.Context(), "replication"); err != nil {
		t.Fatal(err)
	}
	if err := f.Follow(t.Context(), master.Address); err != nil {
		t.Fatal(err)
	}
	var info redisadmin.Info
	for begun := time.Now(); len(info.Online) == 0; time.Sleep(10 * time.Millisecond) {
		var err error
		if info, err = m.Replication(t.Context()); err != nil || time.Since(begun) > 20*time.Second {
			t.Fatalf("no replica comes online: %+v, %v", info, err)
		}
	}
	nodes := record.Shards[0].Nodes
	if !online(info, &nodes[1]) || online(info, &nodes[2]) || online(info, &nodes[0]) {
		t.Errorf("online are %v: %s %t, %s %t, the master itself %t", info.Online, nodes[1].Address, online(info, &nodes[1]),
			nodes[2].Endpoint(), online(info, &nodes[2]), online(info, &nodes[0]))
	}
}

func TestAnnounce(t *testing.T) {
	record := topology.Cluster{Shards: []topology.Shard{{Nodes: []topology.Node{
		{ID: "a", Address: "10.0.0.1:7001"},
		{ID: "b", Address: "b.example:7001", Resolved: "10.0.0.2:7001"},
		{ID: "c", Address: "c.example:7001"},
		{ID: "d", Address: "[fd00::1]:7001"},
	}}}}
	for i, want := range [][]string{{"10.0.0.1", "7001"}, {"10.0.0.2", "7001"}, nil, {"fd00::1", "7001"}} {
		n := &record.Shards[0].Nodes[i]
		got := announce(n)
		if want != nil {
			want = []string{"replica-announce-ip", want[0], "replica-announce-port", want[1]}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", n.ID, got, want)
		}
	}
	c := &record.Shards[0].Nodes[2]
	if !online(redisadmin.Info{Online: []string{"10.0.0.3:7001"}}, c) || online(redisadmin.Info{Online: []string{"10.0.0.3:7002"}}, c) {
		t.Error("a node that is known by a name only is not recognised by its port")
	}
	if d := &record.Shards[0].Nodes[3]; !online(redisadmin.Info{Online: []string{"[fd00::1]:7001"}}, d) {
		t.Error("a node with an IPv6 address is not recognised")
	}
}

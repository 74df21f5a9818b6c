package control

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/acl"
)

// An owner that was stopped for longer than its lease, exactly between the last
// look at the lease and a command, goes on with that one command after another
// owner has finished something else. Whatever it is, the present owner puts it
// right, and nothing that was acknowledged and replicated is lost.
func TestTheLateCommandOfAnOldOwnerIsPutRight(t *testing.T) {
	t.Parallel()
	for _, late := range []struct {
		name string
		do   func(r *rig, s *topology.Shard)
	}{
		{"the master follows its replica", func(r *rig, s *topology.Shard) {
			r.follow(s.Master, r.servers[replicaOf(s)].Address)
		}},
		{"the master follows the dead one", func(r *rig, s *topology.Shard) {
			r.follow(s.Master, r.servers["shard-0-0"].Address)
		}},
		{"a replica becomes a master", func(r *rig, s *topology.Shard) {
			r.servers[replicaOf(s)].MustDo("REPLICAOF", "NO", "ONE")
		}},
		{"the replica follows the dead one", func(r *rig, s *topology.Shard) {
			r.follow(replicaOf(s), r.servers["shard-0-0"].Address)
		}},
		{"the master gets users of before and loses those of now", func(r *rig, s *topology.Shard) {
			m := r.servers[s.Master]
			m.MustDo("ACL", "SETUSER", "basalt-proxy-1", "on", ">late", "~*", "+@all")
			m.MustDo("ACL", "DELUSER", credentials.ProxyUser(s.Generation, credentials.Seat{Version: 1}))
			m.MustDo("ACL", "SETUSER", credentials.ProxyUser(s.Generation, credentials.Seat{Number: 1, Version: 9}), "on", ">late", "~*", "+@all")
		}},
		{"the nodes get an application's user of before", func(r *rig, s *topology.Shard) {
			for _, id := range []string{s.Master, replicaOf(s)} {
				r.servers[id].MustDo("ACL", "SETUSER", acl.NodeUser("basalt-proxy-1", "rights"), "on", ">late", "~*", "+@all")
			}
		}},
	} {
		t.Run(late.name, func(t *testing.T) {
			t.Parallel()
			r := settledRig(t, 1, 3, nil)
			p := r.proxy("p1")
			p.fill("shard-0", 50)
			time.Sleep(50 * time.Millisecond)
			r.servers["shard-0-0"].Kill()
			r.eventually("failed over", 5*time.Second, func() bool { return r.shard("shard-0").Generation == 2 })
			p.mustSet("shard-0", "k50", "v")
			s := r.shard("shard-0")
			r.servers[s.Master].MustDo("WAIT", 1, 2000)
			late.do(r, &s)
			r.servers["shard-0-0"].RestartEmpty()
			time.Sleep(100 * time.Millisecond)
			took := p.setUntil("shard-0", "after", "v")
			p.holds("shard-0", 51)
			r.settled("shard-0")
			r.eventually("one master", 10*time.Second, func() bool {
				s := r.shard("shard-0")
				for _, n := range s.Nodes {
					if (r.servers[n.ID].Info("role") == "master") != (n.ID == s.Master) {
						return false
					}
				}
				return s.Operation == nil
			})
			s = r.shard("shard-0")
			r.eventually("exactly the users of now", 10*time.Second, func() bool {
				for _, n := range s.Nodes {
					want := []any{credentials.AdminUser, credentials.ProbeUser, credentials.ReplicationUser, "default", "basalt-node:c:shard-0:" + n.ID}
					for i, version := range r.loop.Topology().Seats {
						want = append(want, credentials.ProxyUser(s.Generation, credentials.Seat{Number: i, Version: version}))
					}
					if !sameMembers(r.servers[n.ID].MustDo("ACL", "USERS").([]any), want) {
						return false
					}
				}
				return true
			})
			r.checkEpochs()
			t.Logf("writes after %v", took)
		})
	}
}

// sameMembers tells if two lists of texts are the same in some order.
func sameMembers(a, b []any) bool {
	order := func(list []any) []any {
		return slices.SortedFunc(slices.Values(list), func(x, y any) int { return strings.Compare(x.(string), y.(string)) })
	}
	return slices.Equal(order(a), order(b))
}

func (r *rig) follow(node, address string) {
	r.t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.servers[node].MustDo("REPLICAOF", host, port)
}

// replicaOf is the replica that lives.
func replicaOf(s *topology.Shard) string {
	return map[string]string{"shard-0-1": "shard-0-2", "shard-0-2": "shard-0-1"}[s.Master]
}

package grpcapi

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/slot"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// decoded is difference as a proxy reads it, nil when there is none.
func decoded(t interface{ Fatal(args ...any) }, sent, next *control.View) *basaltv1.WatchTopologyResponse {
	m, err := difference(sent, next)
	if err != nil {
		t.Fatal(err)
	}
	if m == nil {
		return nil
	}
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	read := &basaltv1.WatchTopologyResponse{}
	if err := proto.Unmarshal(data, read); err != nil {
		t.Fatal(err)
	}
	return read
}

// specified is the specification of difference, for one proxy at a time.
func specified(sent, next *control.View) *basaltv1.WatchTopologyResponse {
	login := func(v *control.View, shard string) *basaltv1.ShardCredential {
		for i := range v.Credentials {
			if v.Credentials[i].Shard == shard && v.Seated() {
				return credentialToProto(&v.Credentials[i], v.Seat)
			}
		}
		return nil
	}
	find := func(v *control.View, shard string) (*basaltv1.Shard, *control.ShardCredential) {
		var s *basaltv1.Shard
		var c *control.ShardCredential
		if i := slices.IndexFunc(v.Cluster.Shards, func(s topology.Shard) bool { return s.ID == shard }); i >= 0 {
			s = shardToProto(&v.Cluster.Shards[i])
		}
		if i := slices.IndexFunc(v.Credentials, func(c control.ShardCredential) bool { return c.Shard == shard }); i >= 0 {
			c = &v.Credentials[i]
		}
		return s, c
	}
	users, passwords := &basaltv1.Users{Users: usersToProto(next.Users)}, &basaltv1.ClientAuth{PasswordSha256: next.ClientPasswordSHA256}
	whole := sent == nil || next.Cluster.Epoch < sent.Cluster.Epoch
	head := topologyHead(&next.Cluster)
	var logins []*basaltv1.ShardCredential
	anew := whole || next.Seated() && (!sent.Seated() || sent.Seat != next.Seat)
	for i := range next.Cluster.Shards {
		id := next.Cluster.Shards[i].ID
		shard, credential := find(next, id)
		if !anew {
			was, old := find(sent, id)
			same := old == nil && credential == nil || old != nil && credential != nil && *old == *credential
			if same && was != nil && proto.Equal(was, shard) {
				continue
			}
		}
		head.Shards = append(head.Shards, shard)
		if l := login(next, id); l != nil {
			logins = append(logins, l)
		}
	}
	if whole {
		return &basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Snapshot{Snapshot: &basaltv1.Snapshot{
			Topology: head, Credentials: logins, ClientAuth: passwords, Users: users, Proxies: proxyList(next)}}}
	}
	delta := &basaltv1.Delta{FromEpoch: sent.Cluster.Epoch, Topology: head, Credentials: logins}
	for i := range sent.Cluster.Shards {
		if shard, _ := find(next, sent.Cluster.Shards[i].ID); shard == nil {
			delta.RemovedShards = append(delta.RemovedShards, sent.Cluster.Shards[i].ID)
		}
	}
	slices.Sort(delta.RemovedShards)
	if !slices.EqualFunc(sent.ClientPasswordSHA256, next.ClientPasswordSHA256, bytes.Equal) {
		delta.ClientAuth = passwords
	}
	if !slices.Equal(sent.Users, next.Users) {
		delta.Users = users
	}
	if !slices.Equal(sent.Proxies, next.Proxies) {
		delta.Proxies = proxyList(next)
	}
	if sent.Cluster.Epoch == next.Cluster.Epoch && len(head.Shards) == 0 && delta.ClientAuth == nil && delta.Users == nil && delta.Proxies == nil {
		return nil
	}
	return &basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Delta{Delta: delta}}
}

// drawCommon is a record after another one.
func drawCommon(t *rapid.T, before *control.Common) *control.Common {
	c := before.Cluster.Clone()
	c.Epoch += uint64(rapid.IntRange(0, 2).Draw(t, "epochs"))
	next := &control.Common{ClientPasswordSHA256: before.ClientPasswordSHA256, Users: before.Users}
	if c.Epoch > before.Cluster.Epoch {
		c.Seats = slices.Clone(c.Seats)
		c.Seats[rapid.IntRange(0, 1).Draw(t, "seat")] += uint32(rapid.IntRange(0, 1).Draw(t, "shut out"))
		for i := range c.Shards {
			s := &c.Shards[i]
			switch rapid.IntRange(0, 4).Draw(t, "change") {
			case 0:
				s.Generation++
			case 1:
				s.Master = rapid.SampledFrom([]string{"", s.ID + "-0", s.ID + "-1"}).Draw(t, "master")
			case 2:
				s.SecretID += "x" // another password, of the same generation
			}
		}
		if rapid.IntRange(0, 4).Draw(t, "remove") == 0 {
			c.Shards = c.Shards[:max(0, len(c.Shards)-1)]
		}
		if rapid.Bool().Draw(t, "add") {
			n := len(c.Shards)
			c.Shards = append(c.Shards, topology.Shard{ID: fmt.Sprintf("shard-%d", n), Generation: 1, Slots: slot.Range(9*n, 9*n+4),
				Nodes: []topology.Node{{ID: fmt.Sprintf("shard-%d-0", n), Address: "127.0.0.1:1"}}})
		}
		if rapid.IntRange(0, 3).Draw(t, "users") == 0 {
			next.Users = []topology.User{{Rules: fmt.Sprint("user default on nopass ", c.Epoch)}}
		}
		if rapid.IntRange(0, 3).Draw(t, "passwords") == 0 {
			next.ClientPasswordSHA256 = [][]byte{{byte(c.Epoch)}}
		}
	}
	next.Cluster = c
	for i := range c.Shards {
		s := &c.Shards[i]
		if i%3 != 2 { // no node of some was admitted yet
			next.Credentials = append(next.Credentials, control.ShardCredential{Shard: s.ID, Generation: s.Generation, Key: s.SecretID,
				ScriptUsername: credentials.ScriptUser(s.Generation), ScriptPassword: s.SecretID})
		}
	}
	return next
}

// Whatever is made once for all proxies, each of them is sent what it would be if it
// were the only one.
func TestEveryProxyIsSentItsOwnDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		commons := []*control.Common{{Cluster: topology.Cluster{Name: "blue", Epoch: 1, Seats: []uint32{1, 1}, Shards: []topology.Shard{{ID: "shard-0", Generation: 1}}}}}
		for range 5 {
			commons = append(commons, drawCommon(t, commons[len(commons)-1]))
		}
		for proxy := range 4 {
			var sent *control.View
			at := 0
			for at < len(commons) {
				next := &control.View{Common: commons[at], Seat: credentials.Seat{Number: proxy % 2, Version: uint32(rapid.IntRange(1, 2).Draw(t, "version"))}}
				if proxy > 1 {
					next.Proxies = []control.Proxy{{ID: "p", Address: fmt.Sprint("127.0.0.1:", 1+at/2)}}
				}
				if is, want := decoded(t, sent, next), specified(sent, next); !proto.Equal(is, want) {
					t.Fatalf("proxy %d at %d:\nis   %v\nwant %v", proxy, at, is, want)
				}
				sent = next
				at += rapid.IntRange(0, 2).Draw(t, "skip")
				if rapid.IntRange(0, 3).Draw(t, "on") > 0 {
					at++
				}
			}
		}
	})
}

// What is the same for all proxies is compared and encoded once.
func TestOneDeltaForAllStreams(t *testing.T) {
	from := &control.Common{Cluster: topology.Cluster{Name: "blue", Epoch: 1, Seats: []uint32{1, 1}}}
	addShards(100)(&from.Cluster)
	to := &control.Common{Cluster: from.Cluster.Clone()}
	to.Cluster.Epoch, to.Cluster.Shards[7].Master = 2, "shard-7-0"
	const streams = 100
	send := func() {
		for i := range streams {
			seat := credentials.Seat{Number: i % 2, Version: 1}
			sent, next := &control.View{Common: from, Seat: seat}, &control.View{Common: to, Seat: seat}
			if d := decoded(t, sent, next).GetDelta(); len(d.GetTopology().GetShards()) != 1 {
				t.Fatalf("%v", d)
			}
		}
	}
	send()
	if again := testing.AllocsPerRun(10, send) / streams; again > 40 {
		t.Errorf("%.0f allocations for one stream more: every shard is looked at again", again)
	}
}

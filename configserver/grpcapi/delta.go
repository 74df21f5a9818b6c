package grpcapi

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// difference is the message that brings a proxy from the view it was sent last
// to the next one: a snapshot when it was sent none, a delta else, and nothing
// when both are the same.
func difference(sent, next *control.View) *basaltv1.WatchTopologyResponse {
	if sent == nil || next.Cluster.Epoch < sent.Cluster.Epoch {
		return snapshot(next)
	}
	delta := &basaltv1.Delta{
		FromEpoch: sent.Cluster.Epoch,
		Topology:  topologyHead(&next.Cluster),
	}
	before := make(map[string]*topology.Shard, len(sent.Cluster.Shards))
	for i := range sent.Cluster.Shards {
		before[sent.Cluster.Shards[i].ID] = &sent.Cluster.Shards[i]
	}
	// All that is about this proxy alone is its seat.
	seated, sameSeat := next.Seated(), sent.Seated() && sent.Seat == next.Seat
	for i := range next.Cluster.Shards {
		shard := shardToProto(&next.Cluster.Shards[i])
		old, known := before[shard.Id]
		delete(before, shard.Id)
		credential, has := credentialOf(next, shard.Id)
		oldCredential, had := credentialOf(sent, shard.Id)
		sameCredential := !seated || sameSeat && has == had && credential == oldCredential
		if known && sameCredential && proto.Equal(shardToProto(old), shard) {
			continue
		}
		delta.Topology.Shards = append(delta.Topology.Shards, shard)
		if has && seated {
			delta.Credentials = append(delta.Credentials, credentialToProto(&credential, next.Seat))
		}
	}
	for id := range before {
		delta.RemovedShards = append(delta.RemovedShards, id)
	}
	slices.Sort(delta.RemovedShards)
	if !slices.EqualFunc(sent.ClientPasswordSHA256, next.ClientPasswordSHA256, bytes.Equal) {
		delta.ClientAuth = clientAuth(next)
	}
	if !slices.Equal(sent.Users, next.Users) {
		delta.Users = &basaltv1.Users{Users: usersToProto(next.Users)}
	}
	if !slices.Equal(sent.Proxies, next.Proxies) {
		delta.Proxies = proxyList(next)
	}
	if sent.Cluster.Epoch == next.Cluster.Epoch && len(delta.Topology.Shards) == 0 && delta.ClientAuth == nil && delta.Proxies == nil && delta.Users == nil {
		return nil
	}
	return &basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Delta{Delta: delta}}
}

func snapshot(view *control.View) *basaltv1.WatchTopologyResponse {
	out := &basaltv1.Snapshot{
		Topology:   topologyToProto(&view.Cluster),
		ClientAuth: clientAuth(view),
		Proxies:    proxyList(view),
		Users:      &basaltv1.Users{Users: usersToProto(view.Users)},
	}
	if view.Seated() {
		for i := range view.Credentials {
			out.Credentials = append(out.Credentials, credentialToProto(&view.Credentials[i], view.Seat))
		}
	}
	return &basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Snapshot{Snapshot: out}}
}

func clientAuth(view *control.View) *basaltv1.ClientAuth {
	return &basaltv1.ClientAuth{PasswordSha256: view.ClientPasswordSHA256}
}

func proxyList(view *control.View) *basaltv1.ProxyList {
	list := &basaltv1.ProxyList{}
	for _, p := range view.Proxies {
		list.Proxies = append(list.Proxies, &basaltv1.Proxy{Id: p.ID, Address: p.Address})
	}
	return list
}

func credentialOf(view *control.View, shard string) (control.ShardCredential, bool) {
	for _, c := range view.Credentials {
		if c.Shard == shard {
			return c, true
		}
	}
	return control.ShardCredential{}, false
}

package grpcapi

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"weak"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/basalt-redis/basalt/configserver/control"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// What proxies are sent.
//
// A cluster may have a thousand shards and a hundred proxies, and nearly all of a
// message is the same for all proxies: only who a proxy logs in as is its own. So what
// is the same is compared and encoded once for each step from one record to another,
// by whoever sends it first (control.Common.Derive); for each proxy it is copied, and
// its logins and the list of proxies are put behind it. In protobuf the fields of a
// message may come in any order, so that is the message.

// numbers of the fields that are put together here.
const (
	responseSnapshot = protowire.Number(1) // of WatchTopologyResponse
	responseDelta    = protowire.Number(2)
	snapshotTopology = protowire.Number(1)
	deltaTopology    = protowire.Number(2)
	topologyShards   = protowire.Number(6)
)

// difference is the message that brings a proxy from the view it was sent last
// to the next one: a snapshot when it was sent none, a delta else, and nothing
// when both are the same.
func difference(sent, next *control.View) (*basaltv1.WatchTopologyResponse, error) {
	if sent == nil || next.Cluster.Epoch < sent.Cluster.Epoch {
		s := snapshotOf(next.Common)
		return message(responseSnapshot, s, &basaltv1.Snapshot{Credentials: logins(next, s.shards), Proxies: proxyList(next)})
	}
	// All that is about this proxy alone is its seat. With another one it logs in
	// anew everywhere.
	s := stepOf(sent.Common, next.Common, next.Seated() && (!sent.Seated() || sent.Seat != next.Seat))
	own := &basaltv1.Delta{Credentials: logins(next, s.shards)}
	if !slices.Equal(sent.Proxies, next.Proxies) {
		own.Proxies = proxyList(next)
	}
	if s.nothing && own.Proxies == nil {
		return nil, s.err
	}
	return message(responseDelta, s, own)
}

// step is what leads from one record to another, for all proxies alike.
type step struct {
	// encoded are the fields of a Delta or a Snapshot; err is why there are none.
	encoded []byte
	err     error
	// shards are those in it, by their place in the record.
	shards []int
	// nothing: there is no difference.
	nothing bool
}

type (
	stepKey struct {
		from  weak.Pointer[control.Common] // which is not kept for this
		whole bool
	}
	snapshotKey struct{}
	shardsKey   struct{}
)

func snapshotOf(to *control.Common) *step {
	return to.Derive(snapshotKey{}, func() any {
		s := &step{}
		for i := range to.Cluster.Shards {
			s.shards = append(s.shards, i)
		}
		s.encoded, s.err = withTopology(snapshotTopology, to, s.shards, &basaltv1.Snapshot{
			ClientAuth: clientAuth(to), Users: &basaltv1.Users{Users: usersToProto(to.Users)},
		})
		return s
	}).(*step)
}

// stepOf is the step from one record to another. With whole, all shards are in it.
func stepOf(from, to *control.Common, whole bool) *step {
	return to.Derive(stepKey{weak.Make(from), whole}, func() any { return makeStep(from, to, whole) }).(*step)
}

func makeStep(from, to *control.Common, whole bool) *step {
	s := &step{}
	delta := &basaltv1.Delta{FromEpoch: from.Cluster.Epoch}
	if from != to {
		if s.shards, delta.RemovedShards, s.err = changedShards(from, to); s.err != nil {
			return s
		}
	}
	if whole {
		s.shards = s.shards[:0]
		for i := range to.Cluster.Shards {
			s.shards = append(s.shards, i)
		}
	}
	if !slices.EqualFunc(from.ClientPasswordSHA256, to.ClientPasswordSHA256, bytes.Equal) {
		delta.ClientAuth = clientAuth(to)
	}
	if !slices.Equal(from.Users, to.Users) {
		delta.Users = &basaltv1.Users{Users: usersToProto(to.Users)}
	}
	s.nothing = from.Cluster.Epoch == to.Cluster.Epoch && len(s.shards) == 0 && delta.ClientAuth == nil && delta.Users == nil
	s.encoded, s.err = withTopology(deltaTopology, to, s.shards, delta)
	return s
}

// changedShards are the places of the shards that are others than before, or to which
// proxies log in as others, and the ids of those that are gone.
func changedShards(from, to *control.Common) (changed []int, removed []string, err error) {
	type shard struct {
		encoded    []byte
		credential control.ShardCredential
	}
	was, is := encodedShards(from), encodedShards(to)
	if err := errors.Join(was.err, is.err); err != nil {
		return nil, nil, err
	}
	before := make(map[string]shard, len(was.shards))
	for i, encoded := range was.shards {
		before[from.Cluster.Shards[i].ID] = shard{encoded: encoded}
	}
	for _, c := range from.Credentials {
		before[c.Shard] = shard{before[c.Shard].encoded, c}
	}
	now := make(map[string]control.ShardCredential, len(to.Credentials))
	for _, c := range to.Credentials {
		now[c.Shard] = c
	}
	for i, encoded := range is.shards {
		id := to.Cluster.Shards[i].ID
		if b := before[id]; !bytes.Equal(b.encoded, encoded) || b.credential != now[id] {
			changed = append(changed, i)
		}
		delete(before, id)
	}
	return changed, slices.Sorted(maps.Keys(before)), nil
}

// encoded are the shards of a record as fields of a Topology.
type encoded struct {
	shards [][]byte
	err    error
}

// encodedShards encodes shards so that the same shard is encoded the same.
func encodedShards(of *control.Common) *encoded {
	return of.Derive(shardsKey{}, func() any {
		e := &encoded{shards: make([][]byte, len(of.Cluster.Shards))}
		for i := range of.Cluster.Shards {
			var shard []byte
			if shard, e.err = encode(shardToProto(&of.Cluster.Shards[i])); e.err != nil {
				break
			}
			e.shards[i] = appendField(nil, topologyShards, shard)
		}
		return e
	}).(*encoded)
}

// withTopology encodes a message whose field number is a topology with some of its
// shards.
func withTopology(number protowire.Number, of *control.Common, shards []int, rest proto.Message) ([]byte, error) {
	topology, err := encode(topologyHead(&of.Cluster))
	all := encodedShards(of)
	after, restErr := encode(rest)
	if err := errors.Join(err, all.err, restErr); err != nil {
		return nil, err
	}
	for _, i := range shards {
		topology = append(topology, all.shards[i]...)
	}
	return append(appendField(nil, number, topology), after...), nil
}

// message is a response whose field number is a message with the fields of a step and
// those of own.
func message(number protowire.Number, s *step, own proto.Message) (*basaltv1.WatchTopologyResponse, error) {
	fields, err := encode(own)
	if err := errors.Join(s.err, err); err != nil {
		return nil, err
	}
	body := slices.Concat(s.encoded, fields)
	m := &basaltv1.WatchTopologyResponse{}
	// What a message does not know it keeps, and encodes as it is.
	m.ProtoReflect().SetUnknown(appendField(make([]byte, 0, len(body)+8), number, body))
	return m, nil
}

func appendField(to []byte, number protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, number, protowire.BytesType), message)
}

func encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// logins are who a proxy logs in as at some shards; none without a seat.
func logins(view *control.View, shards []int) (list []*basaltv1.ShardCredential) {
	if !view.Seated() {
		return nil
	}
	at := 0
	for _, i := range shards { // both are in the order of the shards
		id := view.Cluster.Shards[i].ID
		next := slices.IndexFunc(view.Credentials[at:], func(c control.ShardCredential) bool { return c.Shard == id })
		if next < 0 {
			continue // no node was admitted yet
		}
		at += next
		list = append(list, credentialToProto(&view.Credentials[at], view.Seat))
	}
	return list
}

func clientAuth(of *control.Common) *basaltv1.ClientAuth {
	return &basaltv1.ClientAuth{PasswordSha256: of.ClientPasswordSHA256}
}

func proxyList(view *control.View) *basaltv1.ProxyList {
	list := &basaltv1.ProxyList{}
	for _, p := range view.Proxies {
		list.Proxies = append(list.Proxies, &basaltv1.Proxy{Id: p.ID, Address: p.Address})
	}
	return list
}

package configclient

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/basalt-redis/basalt/internal/slot"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/routing"
)

// state is the topology as the stream has told it so far, secrets included. It
// exists only in memory and is never logged whole.
type state struct {
	topology    *basaltv1.Topology // without shards
	shards      []*basaltv1.Shard
	credentials map[string]*basaltv1.ShardCredential
	clientAuth  *basaltv1.ClientAuth
	users       *basaltv1.Users     // nil from a Configserver that does not know users
	proxies     *basaltv1.ProxyList // not part of what is routed by
}

// fromSnapshot takes a whole topology of the named cluster.
func fromSnapshot(s *basaltv1.Snapshot, cluster string) (state, error) {
	t := s.GetTopology()
	switch {
	case t == nil:
		return state{}, fmt.Errorf("snapshot without a topology")
	case t.GetCluster() != cluster:
		return state{}, fmt.Errorf("snapshot of cluster %q, asked for %q", t.GetCluster(), cluster)
	case t.GetEpoch() == 0:
		return state{}, fmt.Errorf("snapshot without an epoch")
	}
	next := state{topology: head(t), shards: t.GetShards(), credentials: map[string]*basaltv1.ShardCredential{}, clientAuth: s.GetClientAuth(), users: s.GetUsers(), proxies: s.GetProxies()}
	for _, c := range s.GetCredentials() {
		next.credentials[c.GetShard()] = c
	}
	return next, nil
}

// apply returns the state after a delta; the one before stays as it is. The
// error means that the delta belongs to another epoch: only a new snapshot
// helps.
func (s state) apply(d *basaltv1.Delta) (state, error) {
	t := d.GetTopology()
	switch from, have := d.GetFromEpoch(), s.epoch(); {
	case t == nil:
		return s, fmt.Errorf("delta without a topology")
	case s.topology == nil:
		return s, fmt.Errorf("delta before any snapshot")
	case from != have:
		return s, fmt.Errorf("delta from epoch %d, but epoch %d is the newest here", from, have)
	case t.GetEpoch() < have:
		return s, fmt.Errorf("delta to epoch %d, but epoch %d is the newest here", t.GetEpoch(), have)
	case t.GetCluster() != s.topology.GetCluster():
		return s, fmt.Errorf("delta of cluster %q, asked for %q", t.GetCluster(), s.topology.GetCluster())
	}
	next := state{topology: head(t), clientAuth: s.clientAuth, users: s.users, proxies: s.proxies, credentials: make(map[string]*basaltv1.ShardCredential, len(s.credentials))}
	changed := make(map[string]*basaltv1.Shard, len(t.GetShards()))
	for _, shard := range t.GetShards() {
		changed[shard.GetId()] = shard
	}
	removed := make(map[string]bool, len(d.GetRemovedShards()))
	for _, id := range d.GetRemovedShards() {
		removed[id] = true
	}
	for _, shard := range s.shards {
		id := shard.GetId()
		if now, ok := changed[id]; ok {
			shard = now
			delete(changed, id)
		}
		if !removed[id] {
			next.shards = append(next.shards, shard)
		}
	}
	for _, shard := range t.GetShards() { // new ones, in their order
		if changed[shard.GetId()] != nil {
			next.shards = append(next.shards, shard)
		}
	}
	for id, c := range s.credentials {
		if !removed[id] {
			next.credentials[id] = c
		}
	}
	for _, c := range d.GetCredentials() {
		next.credentials[c.GetShard()] = c
	}
	if d.ClientAuth != nil {
		next.clientAuth = d.GetClientAuth()
	}
	if d.Users != nil {
		next.users = d.GetUsers()
	}
	if d.Proxies != nil {
		next.proxies = d.GetProxies()
	}
	return next, nil
}

// head is a topology without its shards.
func head(t *basaltv1.Topology) *basaltv1.Topology {
	return &basaltv1.Topology{
		Cluster: t.GetCluster(), Epoch: t.GetEpoch(), CommittedAt: t.GetCommittedAt(), Reason: t.GetReason(),
		Phase: t.GetPhase(), ReadPolicy: t.GetReadPolicy(), Uid: t.GetUid(),
		CrossSlot: t.GetCrossSlot(), Pubsub: t.GetPubsub(),
	}
}

func (s state) epoch() uint64 { return s.topology.GetEpoch() }

func (s state) deleting() bool {
	return s.topology.GetPhase() == basaltv1.ClusterPhase_CLUSTER_PHASE_DELETING
}

// table compiles the state for the event loops under the given revision; users
// are those of the state, compiled.
//
// A shard without a credential is held as if it had no master: its servers
// would refuse every command of a proxy that is not logged in, and requests
// should wait rather than fail for what the next epoch will most likely bring.
func (s state) table(revision uint64, users *acl.Users, log *slog.Logger) (*routing.Table, error) {
	c := routing.Cluster{Name: s.topology.GetCluster(), Epoch: revision, Users: users}
	switch s.topology.GetPhase() {
	case basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING:
		c.Phase = routing.Serving
	case basaltv1.ClusterPhase_CLUSTER_PHASE_DELETING:
		c.Phase = routing.Deleting
	default:
		c.Phase = routing.Forming
	}
	if s.topology.GetReadPolicy() == basaltv1.ReadPolicy_READ_POLICY_READ_SET {
		c.ReadPolicy = routing.ReadReadSet
	}
	c.CrossSlot = s.topology.GetCrossSlot() == basaltv1.CrossSlot_CROSS_SLOT_ONE_SHARD
	c.SpreadChannels = s.topology.GetPubsub() == basaltv1.PubSub_PUB_SUB_SPREAD
	for _, shard := range s.shards {
		r, err := s.shard(shard, log)
		if err != nil {
			return nil, err
		}
		c.Shards = append(c.Shards, r)
	}
	for _, sum := range s.clientAuth.GetPasswordSha256() {
		if len(sum) != sha256.Size {
			return nil, fmt.Errorf("epoch %d: the sum of a client password has %d bytes, want %d", s.epoch(), len(sum), sha256.Size)
		}
		c.ClientPasswords = append(c.ClientPasswords, [sha256.Size]byte(sum))
	}
	return routing.Build(c)
}

func (s state) shard(shard *basaltv1.Shard, log *slog.Logger) (routing.Shard, error) {
	r := routing.Shard{ID: shard.GetId(), Master: shard.GetMaster(), Frozen: shard.GetFrozen(), Generation: shard.GetGeneration(), Term: shard.GetTerm()}
	for _, sr := range shard.GetSlots() {
		first, last := sr.GetStart(), sr.GetEnd()
		if first > last || last >= slot.Count {
			return r, fmt.Errorf("epoch %d: %s owns slots %d to %d", s.epoch(), r.ID, first, last)
		}
		owned := slot.Range(int(first), int(last))
		r.Slots.Union(&owned)
	}
	for _, n := range shard.GetNodes() {
		// What the Configserver looked up and admitted, not what a name means here.
		r.Nodes = append(r.Nodes, routing.Node{
			ID: n.GetId(), Address: cmp.Or(n.GetEndpoint(), n.GetAddress()), Incarnation: n.GetIncarnation(), InReadSet: n.GetInReadSet(),
		})
	}
	if credential, ok := s.credentials[r.ID]; ok {
		r.Username, r.Password = credential.GetUsername(), credential.GetPassword()
		r.ScriptUsername, r.ScriptPassword = credential.GetScriptUsername(), credential.GetScriptPassword()
		if r.ScriptUsername == "" { // a Configserver whose proxies share one user
			r.ScriptUsername, r.ScriptPassword = r.Username, r.Password
		}
	} else if r.Master != "" {
		log.Error("no credential for a shard, holding its requests", "shard", r.ID, "epoch", s.epoch())
		r.Master, r.Frozen = "", true
	}
	return r, nil
}

// same tells if both route and log in the same way; the reason may differ.
func (s state) same(o state) bool {
	if s.topology == nil || s.epoch() != o.epoch() || s.topology.GetPhase() != o.topology.GetPhase() ||
		s.topology.GetReadPolicy() != o.topology.GetReadPolicy() || s.topology.GetCrossSlot() != o.topology.GetCrossSlot() ||
		s.topology.GetPubsub() != o.topology.GetPubsub() ||
		!proto.Equal(s.clientAuth, o.clientAuth) || !proto.Equal(s.users, o.users) || len(s.credentials) != len(o.credentials) {
		return false
	}
	for id, c := range s.credentials {
		if !proto.Equal(c, o.credentials[id]) {
			return false
		}
	}
	return slices.EqualFunc(s.shards, o.shards, func(a, b *basaltv1.Shard) bool { return proto.Equal(a, b) })
}

// phaseName is the phase in the words of the design.
func phaseName(p basaltv1.ClusterPhase) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "CLUSTER_PHASE_"))
}

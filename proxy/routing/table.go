// Package routing is the immutable picture of one epoch by which the proxy
// routes: which shard owns a slot, who is its master, who may be read, and
// with which credentials. It does no I/O; a Table is never changed after
// Build, so event loops share it without locks.
package routing

import (
	"crypto/sha256"
	"fmt"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/acl"
)

// Phase is where the cluster is in its life.
type Phase uint8

// Phases of a cluster.
const (
	// Forming: slots without an owner are held for.
	Forming Phase = iota
	// Serving: every slot has an owner.
	Serving
	// Deleting: every command is refused at once.
	Deleting
)

// ReadPolicy says where reads of clients go that did not send READONLY.
type ReadPolicy uint8

// Read policies.
const (
	// ReadMaster sends them to masters.
	ReadMaster ReadPolicy = iota
	// ReadReadSet sends them to the nodes of the read set; they may be stale.
	ReadReadSet
)

// NoShard is the owner of a slot that no shard owns.
const NoShard = 0xffff

// MaxShards is the most shards one cluster has.
const MaxShards = 1024

// Cluster is what Build takes: one epoch in plain values.
type Cluster struct {
	Name  string
	Epoch uint64
	Phase Phase
	// ReadPolicy is for clients that did not send READONLY.
	ReadPolicy ReadPolicy
	// CrossSlot: while one shard owns every slot, requests may have keys of several.
	CrossSlot bool
	// SpreadChannels: a message of an ordinary channel is published at the master of
	// the channel's slot, not at the one for all channels.
	SpreadChannels bool
	// Shards in the order of their ids.
	Shards []Shard
	// Users are what clients may log in as. When nil, there is only the default
	// user, with all rights and ClientPasswords.
	Users *acl.Users
	// ClientPasswords are the SHA-256 sums of the passwords clients may use;
	// none means that no password is needed. Users knows better.
	ClientPasswords [][sha256.Size]byte
}

// Shard is one master and its replicas.
type Shard struct {
	// ID, "shard-0".
	ID string
	// Slots it owns.
	Slots slot.Set
	// Master is a node id, empty while there is none: requests are then held.
	Master string
	// Frozen shards hold every request.
	Frozen bool
	// Nodes, master included.
	Nodes []Node
	// Term counts the incarnations that became master, from 1; 0 when nobody counts.
	Term uint64
	// Generation of the credentials that follow.
	Generation uint64
	// Username and Password log the proxy in to every node of the shard. An
	// empty Username logs in as nobody (servers without ACL).
	Username, Password string
	// ScriptUsername begins the names of the servers' users that stand for users of
	// applications (acl.NodeUser), and ScriptPassword is theirs.
	ScriptUsername, ScriptPassword string
}

// Node is one server.
type Node struct {
	// ID, unique in the cluster: "shard-0-0".
	ID string
	// Address is where the proxy connects to, "ip:port", or "host:port" when the
	// Configserver says no more. At another address a node is another target, also
	// with the same incarnation.
	Address string
	// Incarnation is the admitted run_id; when set, a server with another
	// run_id at this address is treated as fenced.
	Incarnation string
	// InReadSet: it may serve reads.
	InReadSet bool
}

// Table is one epoch, compiled for look-ups. It is read-only.
//
// Invariants: Owner entries are NoShard or an index into Shards; a shard's
// Master is -1 or an index into its Nodes; ReadSet entries are indexes of
// admitted nodes.
type Table struct {
	// Owner is the index of the shard that owns each slot, or NoShard.
	Owner [slot.Count]uint16
	// Epoch of this table.
	Epoch uint64
	// Name of the cluster.
	Name       string
	Phase      Phase
	ReadPolicy ReadPolicy
	// OneShard owns every slot. CrossSlot: it does, and requests may have keys of several
	// slots.
	OneShard, CrossSlot bool
	Shards              []TableShard
	// channels is the slot to whose master messages of all ordinary channels go; -1
	// when each channel has its own.
	channels int
	// Users are what clients may log in as; never nil.
	Users *acl.Users
}

// TableShard is a Shard with its references resolved.
type TableShard struct {
	Shard
	// MasterIndex is the index of the master in Nodes, or -1.
	MasterIndex int
	// ReadSet are indexes into Nodes of the nodes that may be read.
	ReadSet []int
	// Midst is the slot in the midst of those that it owns, -1 without any.
	Midst int
}

// Held tells if requests for the shard must wait: it is frozen or has no
// master.
func (s *TableShard) Held() bool { return s.Frozen || s.MasterIndex < 0 }

// ChannelSlot is the slot whose master a message of an ordinary channel is published
// at. Every proxy knows the same one for an epoch. Where all channels have one
// master, so that all messages have one order, it is that of the first shard that is
// not without one: pub/sub stands still for a switchover, and not for a shard that is
// dead.
func (t *Table) ChannelSlot(channel []byte) int {
	if t.channels < 0 {
		return int(slot.Of(channel))
	}
	return t.channels
}

// PatternSlot is the slot whose master is told how many clients patterns have.
func (t *Table) PatternSlot() int { return max(t.channels, 0) }

// placeChannels chooses the slot for all channels.
func (t *Table) placeChannels(spread bool) {
	if spread {
		t.channels = -1
		return
	}
	first := -1
	for i := range t.Shards {
		s := &t.Shards[i]
		if s.Midst < 0 {
			continue
		}
		if s.MasterIndex >= 0 || s.Frozen {
			t.channels = s.Midst
			return
		}
		if first < 0 {
			first = s.Midst
		}
	}
	t.channels = max(first, 0)
}

// Build compiles and checks one epoch. The error names the shard or node that
// contradicts the rest.
func Build(c Cluster) (*Table, error) {
	if len(c.Shards) > MaxShards {
		return nil, fmt.Errorf("epoch %d: %d shards, at most %d are allowed", c.Epoch, len(c.Shards), MaxShards)
	}
	t := &Table{
		Epoch: c.Epoch, Name: c.Name, Phase: c.Phase, ReadPolicy: c.ReadPolicy,
		Shards: make([]TableShard, len(c.Shards)), Users: c.Users,
	}
	if t.Users == nil {
		t.Users = acl.OnlyDefault(c.ClientPasswords)
	}
	for i := range t.Owner {
		t.Owner[i] = NoShard
	}
	nodes := map[string]bool{}
	for i, s := range c.Shards {
		ts := &t.Shards[i]
		ts.Shard, ts.MasterIndex, ts.Midst = s, -1, -1
		before := s.Slots.Len() / 2
		ts.Nodes = append([]Node(nil), s.Nodes...)
		for n := range slot.Count {
			if !s.Slots.Has(n) {
				continue
			}
			if t.Owner[n] != NoShard {
				return nil, fmt.Errorf("epoch %d: slot %d is owned by %s and by %s", c.Epoch, n, t.Shards[t.Owner[n]].ID, s.ID)
			}
			if t.Owner[n] = uint16(i); before == 0 {
				ts.Midst = n
			}
			before--
		}
		for j, n := range s.Nodes {
			if nodes[n.ID] {
				return nil, fmt.Errorf("epoch %d: node %s is listed twice", c.Epoch, n.ID)
			}
			nodes[n.ID] = true
			if n.ID == s.Master {
				ts.MasterIndex = j
			}
			if n.InReadSet {
				ts.ReadSet = append(ts.ReadSet, j)
			}
		}
		if s.Master != "" && ts.MasterIndex < 0 {
			return nil, fmt.Errorf("epoch %d: master %s of %s is not one of its nodes", c.Epoch, s.Master, s.ID)
		}
		if s.Slots.Len() == slot.Count {
			t.OneShard, t.CrossSlot = true, c.CrossSlot
		}
	}
	t.placeChannels(c.SpreadChannels)
	return t, nil
}

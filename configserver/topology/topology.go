// Package topology is the pure model of a cluster: who owns which slot, who is
// master, who may be read, and what is being done about it. It does no I/O and
// reads no clock. A Cluster is a value: take one, change a Clone, Validate it,
// and let the store commit it against the epoch it came from.
package topology

import (
	"encoding/json"
	"time"
)

// Phase is where a cluster is in its life.
type Phase string

// Phases of a cluster, in order.
const (
	Forming  Phase = "forming"
	Serving  Phase = "serving"
	Deleting Phase = "deleting"
)

// ReadPolicy says which nodes answer reads of clients that did not say READONLY.
type ReadPolicy string

// Read policies.
const (
	ReadMaster  ReadPolicy = "master"
	ReadReadSet ReadPolicy = "read-set"
)

// CrossSlot says what becomes of commands, scripts and transactions over several slots
// that proxies cannot take apart.
type CrossSlot string

// Policies for them.
const (
	// CrossOneShard serves them while one shard owns every slot.
	CrossOneShard CrossSlot = "one-shard"
	// CrossRefuse refuses them: CROSSSLOT.
	CrossRefuse CrossSlot = "refuse"
)

// PubSub says where messages of ordinary channels are published.
type PubSub string

// Where they can be published.
const (
	// PubSubOrdered is at one master for all of them.
	PubSubOrdered PubSub = "ordered"
	// PubSubSpread is at the master of each channel's slot.
	PubSubSpread PubSub = "spread"
)

// Preference is what goes first when no node that was in sync can be promoted.
type Preference string

// Preferences.
const (
	// PreferData: the shard waits for such a node, or for an admin's word.
	PreferData Preference = "data"
	// PreferAvailability: after a bound the best node that answers is promoted.
	PreferAvailability Preference = "availability"
)

// Cluster is everything that is committed about one cluster, as one record:
// its topology and the operations that are changing it.
//
// Invariants (Validate): slots of different shards never overlap; a serving
// cluster covers all 16384; a master is a node of its shard with an admitted
// incarnation, and in sync; only admitted nodes are in the read set; node ids and
// addresses are unique; a shard without a master, when serving, has an operation.
type Cluster struct {
	Name string `json:"name"`
	// UID is random and made at creation: it tells a cluster from one of the
	// same name before it, and is part of every proxy's password.
	UID string `json:"uid,omitempty"`
	// Epoch is the version of this record, +1 at every commit, 1 at creation.
	Epoch       uint64    `json:"epoch"`
	CommittedAt time.Time `json:"committedAt"`
	// Reason says for people why this epoch was committed.
	Reason    string    `json:"reason"`
	CreatedAt time.Time `json:"createdAt"`
	Phase     Phase     `json:"phase"`
	// WantShards and WantNodes are what the admin asked for; the cluster leaves
	// Forming when every shard has that many nodes in sync.
	WantShards int     `json:"wantShards"`
	WantNodes  int     `json:"wantNodes"`
	Policy     Policy  `json:"policy"`
	Shards     []Shard `json:"shards"`
	// ClientSecretIDs name the client passwords in force (see credentials), so
	// that a rotation is an epoch like any other change.
	ClientSecretIDs []string `json:"clientSecretIDs,omitempty"`
	// Settings are parameters of the servers' configuration that every node has,
	// by name; SettingsEpoch is the epoch that changed them last.
	Settings      []Setting `json:"settings,omitempty"`
	SettingsEpoch uint64    `json:"settingsEpoch,omitempty"`
	// Users are the applications' users, by name (see users.go). The default user
	// is among them only when something about it was set. OwnPasswords: its
	// passwords were, too, and those that ClientSecretIDs name are of no meaning.
	Users        []User `json:"users,omitempty"`
	OwnPasswords bool   `json:"ownPasswords,omitempty"`
	// Maintenance says where masters that are lost are not replaced for a while.
	Maintenance []Maintenance `json:"maintenance,omitempty"`
	// Seats are the versions of the proxies' seats (see seats.go), none in records
	// of before.
	Seats []uint32 `json:"seats,omitempty"`
}

// Policy holds the thresholds of one cluster, all set (see DefaultPolicy).
type Policy struct {
	ReadPolicy    ReadPolicy    `json:"readPolicy"`
	ProbeInterval time.Duration `json:"probeInterval"`
	RefusedProbes int           `json:"refusedProbes"`
	HungAfter     time.Duration `json:"hungAfter"`
	// MaxBusy takes the place of HungAfter, if it is longer, for a master that is silent
	// behind a command that may take long.
	MaxBusy            time.Duration `json:"maxBusy"`
	AckTimeout         time.Duration `json:"ackTimeout"`
	MaxFailovers       int           `json:"maxFailovers"`
	FailoverPeriod     time.Duration `json:"failoverPeriod"`
	MaxReplicaAge      time.Duration `json:"maxReplicaAge"`
	MinReplicasToWrite int           `json:"minReplicasToWrite"`
	// MaxReadLag is the lag in bytes beyond which a replica leaves the read set.
	MaxReadLag   int64         `json:"maxReadLag"`
	RestartGrace time.Duration `json:"restartGrace"`
	Prefer       Preference    `json:"prefer"`
	ElectionWait time.Duration `json:"electionWait"`
	// MaxReplicaLag is the lag in bytes beyond which a replica is not in sync.
	MaxReplicaLag int64 `json:"maxReplicaLag"`
	// KeepDiverged is 0 when diverged data is not kept.
	KeepDiverged time.Duration `json:"keepDiverged"`
	CrossSlot    CrossSlot     `json:"crossSlot"`
	PubSub       PubSub        `json:"pubsub"`
}

// UnmarshalJSON reads a policy; what a record of before does not name has its
// default.
func (p *Policy) UnmarshalJSON(data []byte) error {
	type plain Policy
	filled := plain(DefaultPolicy())
	if err := json.Unmarshal(data, &filled); err != nil {
		return err
	}
	*p = Policy(filled)
	return nil
}

// DefaultPolicy is the policy of a cluster that was created without one.
func DefaultPolicy() Policy {
	return Policy{
		ReadPolicy:         ReadMaster,
		ProbeInterval:      100 * time.Millisecond,
		RefusedProbes:      3,
		HungAfter:          4 * time.Second,
		MaxBusy:            30 * time.Second,
		AckTimeout:         500 * time.Millisecond,
		MaxFailovers:       3,
		FailoverPeriod:     10 * time.Minute,
		MaxReplicaAge:      10 * time.Second,
		MinReplicasToWrite: 0,
		MaxReadLag:         16 << 20,
		RestartGrace:       10 * time.Second,
		Prefer:             PreferData,
		ElectionWait:       3 * time.Second,
		MaxReplicaLag:      16 << 20,
		KeepDiverged:       10 * time.Minute,
		CrossSlot:          CrossOneShard,
		PubSub:             PubSubOrdered,
	}
}

// Shard is one master and its replicas.
type Shard struct {
	ID    string  `json:"id"`
	Slots SlotSet `json:"slots,omitzero"`
	// Master is a node id, or empty while there is none: proxies then hold.
	Master string `json:"master,omitempty"`
	Nodes  []Node `json:"nodes,omitempty"`
	// Generation is the credential version the nodes accept from proxies, from
	// 1; SecretID names the cluster secret its password is derived from.
	Generation uint64 `json:"generation"`
	SecretID   string `json:"secretID,omitempty"`
	// Term counts the incarnations that became master, from 1 (see Cluster.RenewTerms);
	// 0 in records of before.
	Term uint64 `json:"term,omitempty"`
	// Frozen: proxies hold every request for the shard.
	Frozen    bool       `json:"frozen,omitempty"`
	Operation *Operation `json:"operation,omitempty"`
	// Failovers are the times of recent automatic failovers, oldest first, for
	// the limit per period.
	Failovers []time.Time `json:"failovers,omitempty"`
	// Histories are the replication histories that the shard's masters wrote,
	// oldest first, at most MaxHistories. The last is the present master's.
	Histories []History `json:"histories,omitempty"`
}

// History is a stretch of a shard's stream of writes, written by one master.
type History struct {
	// ReplID is the master_replid.
	ReplID string `json:"replID"`
	// Start is the offset in bytes at which it continues the one before: what a
	// node has of that one beyond it is no part of the shard's data.
	Start int64 `json:"start"`
}

// Node is one redis-server.
type Node struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	// Incarnation is the run_id that was admitted; empty when none is. A node
	// whose live run_id differs restarted and is fenced until admitted again.
	Incarnation string `json:"incarnation,omitempty"`
	// Readable is the admin's word; InReadSet is what proxies obey.
	Readable  bool `json:"readable"`
	InReadSet bool `json:"inReadSet"`
	// Priority: lower is preferred as master, 0 means never.
	Priority int `json:"priority"`
	// Discard is the run_id of a server whose data an admin said may be discarded,
	// whoever it was, when it is admitted as this node.
	Discard string `json:"discard,omitempty"`
	// Resolved is the "ip:port" that Address meant when Incarnation was admitted;
	// empty while none was, and where Address is that already.
	Resolved string `json:"resolved,omitempty"`
	// History is the ReplID of the shard's history under which the incarnation was
	// admitted or followed last.
	History string `json:"history,omitempty"`
	// InSync: a member of the in-sync set. Only members are promoted without an
	// admin's word.
	InSync bool `json:"inSync,omitempty"`
	// Out says since when and why a node is not in sync that was before.
	Out *OutOfSync `json:"out,omitempty"`
	// Unmarked: its server did not say by its configuration which node it is.
	Unmarked bool `json:"unmarked,omitempty"`
	// Diverged is what the node had written alone, if that was found.
	Diverged *Diverged `json:"diverged,omitempty"`
}

// OutOfSync is what was known of a node when it left the in-sync set.
type OutOfSync struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
	// Offset is how much of the stream it had at least, and MasterOffset how much
	// its master had, in bytes; -1 unknown.
	Offset       int64 `json:"offset"`
	MasterOffset int64 `json:"masterOffset"`
}

// Diverged is data of a node that the shard's master does not have.
type Diverged struct {
	FoundAt time.Time `json:"foundAt"`
	// Bytes of the stream of writes that only the node had; -1 unknown.
	Bytes int64 `json:"bytes"`
	// File in the node's folder that holds the data as it was; empty when it could
	// not be kept, for the reason in Error.
	File  string `json:"file,omitempty"`
	Error string `json:"error,omitempty"`
	// Run is the incarnation that had it. Target is the file that it is being written
	// to, DBFile the server's own dbfilename, SavedBefore when the server had saved
	// last before that, by its clock (rdb_last_save_time); -1 before it is known.
	Run         string `json:"run"`
	Target      string `json:"target"`
	DBFile      string `json:"dbFile"`
	SavedBefore int64  `json:"savedBefore"`
	// Until is when File may be written over; zero while the node has not copied
	// the master's data.
	Until time.Time `json:"until,omitzero"`
}

// OperationKind names a persisted state machine.
type OperationKind string

// Operations.
const (
	Failover   OperationKind = "failover"
	Switchover OperationKind = "switchover"
	Rotation   OperationKind = "rotation"
)

// Operation is a persisted state machine on one shard; the phases belong to
// the package that runs it.
type Operation struct {
	ID        string        `json:"id"`
	Kind      OperationKind `json:"kind"`
	Phase     string        `json:"phase"`
	Cause     string        `json:"cause"`
	StartedAt time.Time     `json:"startedAt"`
	// StartEpoch is the epoch in which the shard lost its master or was frozen.
	StartEpoch uint64 `json:"startEpoch"`
	OldMaster  string `json:"oldMaster,omitempty"`
	// Candidate is empty until one was chosen; Requested is the admin's choice.
	Candidate string `json:"candidate,omitempty"`
	Requested string `json:"requested,omitempty"`
	// Asked: an admin asked for it; the old master is to be replaced even if it is
	// well. AcceptLoss: a node that was not in sync may be promoted.
	Asked      bool `json:"asked,omitempty"`
	AcceptLoss bool `json:"acceptLoss,omitempty"`
	// Skip: the next generation was given away already, by a rotation that it replaced.
	Skip bool `json:"skip,omitempty"`
	// Lost says what is lost by the choice of the candidate; empty when nothing is
	// known to be.
	Lost string `json:"lost,omitempty"`
	// Unacked are proxies that did not ack in time, at most MaxUnacked; MoreUnacked
	// counts the others. Fenced: they were shut out.
	Unacked     []string `json:"unacked,omitempty"`
	MoreUnacked int      `json:"moreUnacked,omitempty"`
	Fenced      bool     `json:"fenced,omitempty"`
	// Phases already left, for the report.
	Phases   []PhaseTime `json:"phases,omitempty"`
	Evidence []Evidence  `json:"evidence,omitempty"`
	// Candidates as they were judged when one was chosen.
	Candidates []Candidate `json:"candidates,omitempty"`
	// OldMasterOffset is the last known offset of the old master in bytes, -1
	// when unknown.
	OldMasterOffset int64 `json:"oldMasterOffset"`
}

// Next is the generation after one, as far as this operation goes.
func (o *Operation) Next(generation uint64) uint64 {
	if o != nil && o.Skip {
		generation++
	}
	return generation + 1
}

// PhaseTime says when a phase began and how long it took.
type PhaseTime struct {
	Name      string        `json:"name"`
	StartedAt time.Time     `json:"startedAt"`
	Duration  time.Duration `json:"duration"`
}

// Sight is what one vantage point saw of a node.
type Sight string

// Sights.
const (
	SightUnknown Sight = ""
	SightOK      Sight = "ok"
	SightRefused Sight = "refused"
	SightTimeout Sight = "timeout"
	SightFenced  Sight = "fenced"
)

// Evidence is what one vantage point saw when an operation was begun.
type Evidence struct {
	VantagePoint string `json:"vantagePoint"`
	Sight        Sight  `json:"sight"`
	Detail       string `json:"detail,omitempty"`
}

// Candidate is one node that was considered for master.
type Candidate struct {
	Node     string `json:"node"`
	Offset   int64  `json:"offset"`
	Priority int    `json:"priority"`
	Chosen   bool   `json:"chosen,omitempty"`
	Refused  string `json:"refused,omitempty"`
	// Restarted: it was chosen by what it had found on its disk.
	Restarted bool `json:"restarted,omitempty"`
}

// Severity of an event.
type Severity string

// Severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Event is one thing that happened to a cluster; the store numbers it.
type Event struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Cluster  string    `json:"cluster"`
	// Kind is CamelCase and stable: "FailoverFinished".
	Kind     string   `json:"kind"`
	Severity Severity `json:"severity"`
	Shard    string   `json:"shard,omitempty"`
	Node     string   `json:"node,omitempty"`
	Message  string   `json:"message"`
	Epoch    uint64   `json:"epoch"`
	Report   *Report  `json:"report,omitempty"`
	// By is who asked for it at the API: an address; empty when nobody did.
	By string `json:"by,omitempty"`
}

// Report tells everything about one failover or switchover.
type Report struct {
	Operation
	Shard     string `json:"shard"`
	NewMaster string `json:"newMaster,omitempty"`
	// OffsetGap is the bytes the old master had written that the new one never
	// got; -1 when unknown.
	OffsetGap int64  `json:"offsetGap"`
	EndEpoch  uint64 `json:"endEpoch"`
	Succeeded bool   `json:"succeeded"`
	Error     string `json:"error,omitempty"`
}

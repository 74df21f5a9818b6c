package control

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// API is one cluster's loop as the gRPC layer sees it. All methods are safe to
// call from any goroutine; the loop's own goroutine does the work.
// Errors: *topology.PreconditionError (say what to do first),
// *topology.InvalidError (names the field), store.ErrNotFound for an unknown
// shard or node, store.ErrLeaseLost, ErrStopped, context errors.
type API interface {
	// Topology returns the newest committed record; it does not block.
	Topology() topology.Cluster
	// Status is what the loop sees now; it does not block on the network.
	Status() Status
	// Outages are the shards that serve nobody now, as the loop sees it.
	Outages(ctx context.Context) ([]Outage, error)
	// UpdatePolicy commits a policy.
	UpdatePolicy(ctx context.Context, p topology.Policy) (topology.Cluster, error)
	// SetConfig sets parameters of the servers' configuration on every node and
	// keeps them with the cluster. A *topology.RefusalError says why not.
	SetConfig(ctx context.Context, settings []topology.Setting) (topology.Cluster, error)
	// UnsetConfig keeps parameters no longer. The nodes have them until they start
	// again.
	UnsetConfig(ctx context.Context, names []string) (topology.Cluster, error)
	// RegisterNode adds a node to a shard, which it makes if the cluster is
	// still forming and wants more shards.
	RegisterNode(ctx context.Context, shard string, n topology.Node, discardData bool) (topology.Cluster, error)
	// DeregisterNode takes a replica out and fences it.
	DeregisterNode(ctx context.Context, node string) (topology.Cluster, error)
	// SetReadable sets the admin's word on a node.
	SetReadable(ctx context.Context, node string, readable bool) (topology.Cluster, error)
	// Switchover and Failover return when the operation ended either way; the
	// report says how.
	Switchover(ctx context.Context, shard, candidate string) (topology.Report, error)
	Failover(ctx context.Context, shard string, wish failover.Wish) (topology.Report, error)
	// PlanFailover says what Failover would do, or why not.
	PlanFailover(ctx context.Context, shard string, wish failover.Wish) (FailoverPlan, error)
	// SetMaintenance pauses automatic failover of a shard, or of all (""), for as long
	// as given; 0 ends that.
	SetMaintenance(ctx context.Context, shard string, length time.Duration, reason string) (topology.Cluster, error)
	// Rotate puts the credentials now on file into force; it returns the
	// generation of each shard.
	Rotate(ctx context.Context) (map[string]uint64, error)
	// Users are the applications' users as they are in force.
	Users() []topology.User
	// SetUser and DeleteUsers change users and return when every proxy obeys, or
	// was shut out at the servers; a *topology.PreconditionError says that a change
	// is committed and not obeyed everywhere yet. SetUser fails with an *acl.Error
	// when a modifier is wrong. DeleteUsers makes the default user what it is at
	// first.
	SetUser(ctx context.Context, name string, modifiers []string) (topology.Cluster, error)
	DeleteUsers(ctx context.Context, names []string) (deleted int, c topology.Cluster, err error)
	// Delete fences the nodes and removes the cluster.
	Delete(ctx context.Context) error
	// Barrier waits until every member acked the epoch (0: the newest) or was
	// fenced, or ctx is about to end; it returns who did, or an *UnackedError.
	Barrier(ctx context.Context, epoch uint64) (uint64, []string, error)
	// ForgetProxy shuts a proxy out that is away, and returns when nobody waits for it
	// any more.
	ForgetProxy(ctx context.Context, id string) error
	// AdoptTopology takes over what servers say when the record is older than they
	// are, or only tells what that would be. A *topology.PreconditionError says what is
	// contradictory.
	AdoptTopology(ctx context.Context, planOnly bool) (Adoption, error)
	// Connect makes a proxy a member and returns its side of the stream.
	Connect(ctx context.Context, hello Hello) (ProxyStream, error)
}

// UnackedError: a barrier ended without the acks of all proxies.
type UnackedError struct {
	Epoch uint64
	// Proxies say of each one that is missing who it is and why, at most
	// topology.MaxUnacked; More counts the others.
	Proxies []string
	More    int
}

func (e *UnackedError) Error() string {
	who := strings.Join(e.Proxies, "; ")
	if e.More > 0 {
		who += fmt.Sprintf("; and %d more", e.More)
	}
	return fmt.Sprintf("epoch %d is not obeyed by everybody: %s", e.Epoch, who)
}

// Hello is what a proxy says of itself.
type Hello struct {
	ID      string
	Address string
	Version string
	// Epoch is what the proxy obeys, of the cluster with this UID; empty from a proxy
	// that does not know it.
	Epoch uint64
	UID   string
	// Alone: it tells clients of no other proxy, and need not know of any.
	Alone bool
}

// ProxyStream is the Configserver's end of one proxy's stream.
type ProxyStream interface {
	// Updates delivers the newest view after each commit. Views coalesce: a slow
	// proxy skips epochs. It closes when the loop stops or another stream of the
	// same proxy replaced this one.
	Updates() <-chan View
	// Ack records that the proxy obeys the epoch.
	Ack(epoch uint64)
	// Report records what the proxy saw of nodes.
	Report(sights []NodeSight)
	// Load records how busy the proxy is.
	Load(l Load)
	// Goodbye removes the member.
	Goodbye(ctx context.Context) error
	// Close ends the stream; the proxy stays a member.
	Close()
}

// View is what one proxy must obey, with the secrets it needs for it.
type View struct {
	*Common
	// Seat is the proxy's.
	Seat credentials.Seat
	// Proxies are those connected now, in order of their ids; none for a proxy that
	// need not know of others.
	Proxies []Proxy
}

// Common is what a view of a record has for all proxies alike. It never changes.
type Common struct {
	Cluster     topology.Cluster
	Credentials []ShardCredential
	// ClientPasswordSHA256 are the default user's passwords; empty: none needed.
	ClientPasswordSHA256 [][]byte
	// Users are in force instead of Cluster.Users.
	Users []topology.User

	derived sync.Map // by key: func() any
}

// Derive returns what derive makes of the view. It is made once for each key and kept
// as long as the view: what costs as much as there are shards is not done again for
// every proxy. It must not be changed.
func (c *Common) Derive(key any, derive func() any) any {
	once, _ := c.derived.LoadOrStore(key, sync.OnceValue(derive))
	return once.(func() any)()
}

// Seated tells if the proxy has its seat. One that has not gets no credentials: it
// keeps those it knows, by which no server lets it in.
func (v *View) Seated() bool {
	return v.Seat.Number < len(v.Cluster.Seats) && v.Cluster.Seats[v.Seat.Number] == v.Seat.Version
}

// Proxy is where clients reach a proxy.
type Proxy struct{ ID, Address string }

// ShardCredential is how proxies log in to the nodes of one shard.
type ShardCredential struct {
	Shard      string
	Generation uint64
	// Key makes the password of each proxy (Login); none is told of it.
	Key string
	// ScriptUsername and ScriptPassword are for users of applications with limits,
	// which all proxies share.
	ScriptUsername, ScriptPassword string
}

// Login is the user of the proxy that has a seat, and its password.
func (c *ShardCredential) Login(seat credentials.Seat) (username, password string) {
	return credentials.ProxyUser(c.Generation, seat), credentials.SeatPassword(c.Key, seat)
}

// NodeSight is what a proxy saw of a node.
type NodeSight struct {
	Node  string
	Sight topology.Sight
	// SinceReply is negative when no reply ever arrived.
	SinceReply time.Duration
	Error      string
	// Behind is a command that may take long and that the node may be executing, ""
	// for none; SinceBehind is how long ago the proxy sent it.
	Behind      string
	SinceBehind time.Duration
}

// Load is how busy a proxy is.
type Load struct {
	Clients  uint64
	Commands uint64
	Busy     float64
	// CrossSlot counts its requests over several slots.
	CrossSlot []CrossSlotRequests
}

// CrossSlotRequests counts requests over several slots of one command and one name of
// clients: since the proxies started, and how many a second lately.
type CrossSlotRequests struct {
	Command, ClientName string
	Requests            uint64
	PerSecond           float64
}

// FailoverPlan is what a failover would do.
type FailoverPlan struct {
	Master      string
	MasterLives bool
	// Candidate is empty when others are waited for first.
	Candidate string
	// Lost is known to be lost by the choice; Bytes are what the candidate lacks, -1
	// unknown.
	Lost  string
	Bytes int64
}

// Status is what the loop sees.
type Status struct {
	Cluster  topology.Cluster
	Nodes    []NodeStatus
	Proxies  []ProxyStatus
	Problems []Problem
	// Outages are the shards that serve nobody, by shard.
	Outages []Outage
	// Progress says what is missing until the cluster serves; empty when it does.
	Progress string
	// CrossSlot counts requests over several slots at all proxies, the most frequent first.
	CrossSlot []CrossSlotRequests
}

// NodeStatus is one node as last observed; offsets, lags, keys and memory are
// -1 when unknown.
type NodeStatus struct {
	Shard       string
	Node        topology.Node
	Role        string // "master", "replica", "fenced"
	Incarnation string // live run_id
	Offset      int64  // bytes
	Lag         int64  // bytes behind the master
	Sight       topology.Sight
	Health      string
	Version     string
	Keys        int64
	UsedMemory  int64
	LinkUp      bool
	LastOK      time.Time
}

// ProxyStatus is one member.
type ProxyStatus struct {
	ID         string
	Address    string
	Version    string
	AckedEpoch uint64
	Connected  bool
	Clients    uint64
	// AwaySince is when its stream ended, zero while it is open; Serving: it has
	// connections to masters all the same.
	AwaySince time.Time
	Serving   bool
	// ShutOut: it lost its seat. OpenTo are the shards whose servers were not told so
	// yet.
	ShutOut bool
	OpenTo  []string
}

// Problem is a row of the problem table that matches now.
type Problem struct {
	Code    string
	Shard   string
	Node    string
	Message string
	// Since is when it began, as far as the loop has seen.
	Since time.Time
}

// Outage is a shard that serves nobody.
type Outage struct {
	Shard string
	Slots topology.SlotSet
	Since time.Time
	// Why, and what to do, for people.
	Why string
}

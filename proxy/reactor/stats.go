package reactor

import (
	"time"

	"github.com/basalt-redis/basalt/proxy/session"
)

// LatencyBuckets is the number of buckets of a latency histogram.
const LatencyBuckets = 26

// LatencyBound returns the upper bound of bucket i: 1 µs << i. The last bucket
// has no bound.
func LatencyBound(i int) time.Duration { return time.Microsecond << i }

// Stats is a snapshot of the engine's counters since it started.
type Stats struct {
	// Epoch that was applied last; AckedEpoch is the newest all loops obey.
	Epoch, AckedEpoch uint64
	// Clients connected now, accepted ever, refused because of MaxClients, and
	// closed because they did not read their replies.
	Clients                                          int
	ClientsAccepted, ClientsRejected, ClientsTooSlow uint64
	// ClientsBlocked is how many clients have a command that waits: for data or
	// replicas (BLPOP, WAIT), or for the end of a CLIENT PAUSE.
	ClientsBlocked int
	// ClientsTimed is how many of these wait for some time at most, ClientsTracking how
	// many clients track keys.
	ClientsTimed, ClientsTracking int
	// ClientsEvicted counts clients closed because they held most of a memory
	// budget that was full.
	ClientsEvicted uint64
	// ClientBytesIn were read from clients, ClientBytesOut written to them.
	ClientBytesIn, ClientBytesOut uint64
	// Pinned is how many clients use a server connection of their own now.
	Pinned int
	// ProtocolErrors counts clients closed for malformed or oversized requests.
	ProtocolErrors uint64
	// Commands by command.Spec.ID; entries of commands never called are zero.
	Commands []CommandStats
	// UnknownCommands counts requests refused by the command table.
	UnknownCommands uint64
	// OwnErrors counts error replies that no server made, by their code.
	OwnErrors map[string]uint64
	// Crossings counts requests over several slots, served or refused.
	Crossings map[session.Crossing]uint64
	// Nodes in the order of the routing table.
	Nodes []NodeStats
	// Held requests now, their bytes, and how many were ever held and how many
	// of those were refused after HoldTimeout or for lack of room.
	Held                   int
	HeldBytes              int64
	HeldTotal, HeldRefused uint64
	// MemoryBytes taken by requests, replies and subscriptions of all clients.
	MemoryBytes int64
	// PubSub is what clients listen to.
	PubSub PubSubStats
	// Loops in order.
	Loops []LoopStats
}

// PubSubStats counts subscriptions and messages.
type PubSubStats struct {
	// Subscribers are clients that listen to anything now, Subscriptions what
	// they listen to, summed up.
	Subscribers, Subscriptions int
	// Channels, Patterns and ShardChannels that anybody listens to.
	Channels, Patterns, ShardChannels int
	// Links are the connections for them that have everything.
	Links int
	// Messages that came from servers, and Deliveries of them to clients.
	Messages, Deliveries uint64
	// TooSlow counts subscribers closed because they did not read their messages.
	TooSlow uint64
}

// CommandStats counts one command.
type CommandStats struct {
	// Calls answered, how many of the answers were errors, and how many of these did not
	// come as far as being executed.
	Calls, Errors, Rejected uint64
	// TotalTime is the sum of all latencies, from parsed to answered.
	TotalTime time.Duration
	// Latency counts answers by LatencyBound.
	Latency [LatencyBuckets]uint64
}

// NodeStats is the traffic with one node.
type NodeStats struct {
	// Node id, its shard and its address.
	Node, Shard, Address string
	// Master of its shard in the newest epoch.
	Master bool
	// Connections that are logged in.
	Connections int
	// InFlight requests that were sent and not answered.
	InFlight int
	// Requests ever sent, and Reconnects: connections opened beyond the first.
	Requests, Reconnects uint64
	// Sight is what was seen last.
	Sight Sight
}

// LoopStats is the load of one event loop.
type LoopStats struct {
	// Clients it owns.
	Clients int
	// Busy is the time it was not waiting for events, Wakeups how often it woke.
	Busy    time.Duration
	Wakeups uint64
	// Commands it answered.
	Commands uint64
}

// SlowEntry is one slow command.
type SlowEntry struct {
	// ID rises by one with each slow command.
	ID uint64
	// Time it was parsed, and how long it took until answered.
	Time     time.Time
	Duration time.Duration
	// Client is the address of the client, Name what it set with CLIENT SETNAME.
	Client, Name string
	// Args, at most 32 of at most 128 bytes, as Redis truncates them.
	Args []string
}

package reactor

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// Sight is what the proxy saw of a node: one vantage point of the failure
// detector.
type Sight = backend.Sight

// Sights, as in the proto.
const (
	// SightUnknown: nothing was tried yet.
	SightUnknown = backend.SightUnknown
	// SightOK: replies arrive (again).
	SightOK = backend.SightOK
	// SightRefused: a connection was refused or reset.
	SightRefused = backend.SightRefused
	// SightTimeout: requests stay unanswered, or connecting times out.
	SightTimeout = backend.SightTimeout
	// SightFenced: the node refuses the credentials, or is not the admitted
	// incarnation.
	SightFenced = backend.SightFenced
)

// Config of an Engine. Zero values take the default named at the field.
type Config struct {
	// Loops is the number of event loops; DefaultLoops().
	Loops int
	// MaxClients is the most clients connected at once; 10000. One more gets
	// "-ERR max number of clients reached".
	MaxClients int
	// MaxPinned is the most server connections that may serve a single client
	// each at once, as WATCH and blocking commands need; 2000. Servers limit their
	// connections, too (10000), and all proxies share that.
	MaxPinned int
	// FailBlocked: when a master is replaced by a failover, blocked clients get the
	// error of a command that was in flight. Otherwise they stay blocked.
	FailBlocked bool
	// Limits of one request; resp.DefaultLimits.
	Limits resp.Limits
	// ClientReplyBufferBytes is how much may wait to be read by one client
	// before it is closed; 1 GiB.
	ClientReplyBufferBytes int64
	// ClientPubSubBufferBytes is the same for a client that is subscribed to
	// anything; 32 MiB, as in Redis.
	ClientPubSubBufferBytes int64
	// MemoryBudgetBytes is how much requests and replies of all clients may
	// take together; 1 GiB. Beyond it, the loops stop reading from clients, and
	// close those that keep it from getting better.
	MemoryBudgetBytes int64
	// HoldTimeout is how long a request waits for a master; 10 s.
	HoldTimeout time.Duration
	// HoldMaxBytes is how much may be held at once; 256 MiB. Requests beyond
	// it are refused with CLUSTERDOWN.
	HoldMaxBytes int64
	// NodeTimeout is how long a request may stay unanswered, or connecting may
	// take, before SightTimeout is reported; 1 s.
	NodeTimeout time.Duration
	// SlowLogThreshold: commands that took as long or longer are kept; 10 ms.
	// Negative keeps none.
	SlowLogThreshold time.Duration
	// SlowLogLength is how many slow commands are kept; 128.
	SlowLogLength int
	// ClusterMode tells clients that this is a Redis Cluster of proxies.
	ClusterMode bool
	// Scripts remembers the sources of scripts; one that forgets them with the
	// process when nil.
	Scripts *scripts.Library
	// Logger; slog.Default() when nil.
	Logger *slog.Logger

	// OnAck is called, from one goroutine, when every loop obeys an epoch
	// (invariant 3). Epochs may be skipped; they only rise.
	OnAck func(epoch uint64)
	// OnSight is called, from one goroutine, when what the proxy sees of a
	// node changes, and again every second while there is fresh evidence, good
	// or bad. sinceReply is how long ago a reply last arrived, negative when
	// none ever did; behind is what may keep a node that is silent busy.
	OnSight func(node string, sight Sight, sinceReply time.Duration, behind Behind, err error)

	// GatherMaxBytes is how long the answers of all shards to one command of
	// administration may be together; 64 MiB.
	GatherMaxBytes int
	// EnableDebug passes DEBUG on to the servers.
	EnableDebug bool

	// Users changes users for ACL SETUSER and ACL DELUSER, outside of the loops;
	// without it these are refused.
	Users acl.Keeper

	// The next five run outside of the loops, so they may call Stats.

	// Command answers COMMAND and its subcommands: it appends a reply in the
	// given protocol version (2 or 3) to dst.
	Command func(dst []byte, args [][]byte, proto int) []byte
	// Cluster answers CLUSTER, when ClusterMode is set; local is the address that
	// the client is connected to.
	Cluster func(dst []byte, args [][]byte, proto int, local netip.AddrPort) []byte
	// ConfigGet answers CONFIG GET; server are names and values of what a server
	// says, in turn.
	ConfigGet func(dst []byte, args [][]byte, proto int, server []string) []byte
	// ConfigSet does CONFIG SET, and appends the reply. It is called once at a time.
	ConfigSet func(dst []byte, args [][]byte) []byte
	// Info merges the INFO texts of the shards' masters (nil for a shard that
	// gave none) and appends the whole text, not yet a RESP string, to dst.
	Info func(dst []byte, args [][]byte, shards [][]byte) []byte
}

// Package session is one client of the proxy: its protocol state, the order of
// its replies, and the commands that the proxy answers itself. It does not
// know epoll or connections to servers; its loop does.
package session

import (
	"bytes"
	"sync/atomic"

	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/pubsub"
	"github.com/basalt-redis/basalt/proxy/resp"
	"github.com/basalt-redis/basalt/proxy/routing"
	"github.com/basalt-redis/basalt/proxy/scripts"
	"github.com/basalt-redis/basalt/proxy/software"
)

// Shared is what all clients of one loop have in common. It belongs to the
// loop's thread.
type Shared struct {
	// Now is the loop's clock in nanoseconds, read once per wake-up.
	Now int64
	// Pool and Requests are the loop's memory.
	Pool     buffer.Pool
	Requests backend.Requests
	// Table is the epoch the loop routes by; never nil.
	Table *routing.Table
	// Limits of requests.
	Limits resp.Limits
	// ReplyLimit is how many bytes may wait to be read by one client.
	ReplyLimit int
	// Large are the slots that hold something large; never nil.
	Large *LargeSlots
	// OverBudget: memory is short, clients are not read. Roomy: there is plenty.
	OverBudget, Roomy bool
	// Pause is what CLIENT PAUSE holds back now; Postponed is how many clients of
	// the loop wait for its end.
	Pause     Pause
	Postponed int
	// Busy is the error of the servers while all of them execute scripts that take
	// too long, else nil.
	Busy []byte
	// Blocked counts clients that wait for a blocking command.
	Blocked int
	// Errors counts error replies that no server made, by their code.
	Errors map[string]uint64
	// TimedOut counts blocked clients with a time limit.
	TimedOut int
	// Crossings counts requests over several slots.
	Crossings map[Crossing]uint64
	// Monitored: some client of the proxy monitors.
	Monitored bool
	// BytesIn were read from clients, BytesOut written to them.
	BytesIn, BytesOut uint64
	// Software is what clients are told that the servers are; never nil.
	// ClusterMode: they are told of a Redis Cluster.
	Software    *atomic.Pointer[software.Software]
	ClusterMode bool
	// Router carries requests.
	Router Router
	// Hub has the subscriptions of the loop's clients; PubSubLimit is how many
	// bytes may wait to be read by a client that has some.
	Hub         *pubsub.Hub
	PubSubLimit int
	// inquiries of this wake-up, and earlier ones that are not answered.
	inquiries map[inquiryKey]*inquiry
	// Scripts are the sources that the proxy remembers.
	Scripts *scripts.Library

	known     knownScripts
	functions *pausedFunctions
	sha       [40]byte // scratch of EVALSHA

	// Diverted counts the requests for bulk that took an ordinary connection.
	Diverted uint64
	// Invalidations has the loop's clients that track keys.
	Invalidations Invalidations

	// identities of users with limits, by name.
	identities map[string]*backend.Identity

	// Debug: DEBUG is passed on. GatherTimeout is how long, in nanoseconds, the
	// shards may take to answer a command of administration, and GatherLimit how
	// many bytes their answers may have together; 0 is for no bound.
	Debug         bool
	GatherTimeout int64
	GatherLimit   int
	gathering     []*merge
	// Merging is how many bytes of answers wait for those of other shards, outside
	// of Pool.
	Merging int64

	// Denied is where refusals of users are noted.
	Denied *acl.Log

	rights acl.Scratch
	args   [][]byte // scratch of the parser
	text   []byte   // scratch of replies
	keys   []int    // scratch: where the keys are
	inner  []byte   // scratch of inline requests
	marked []byte   // scratch of tracked requests

	// asking is the request that is being handled, if it is one that no server gets
	// as it is.
	asking []byte

	scatter scatter // scratch of split commands
	splits  *split  // free ones
}

// Router is the loop, as its clients see it.
type Router interface {
	// Route sends a request to the server it is for, or holds it. raw is copied.
	Route(r *backend.Request, raw []byte)
	// RouteChunk does the same with a request that fills a chunk, which it
	// takes over.
	RouteChunk(r *backend.Request, chunk *buffer.Chunk)
	// Bulk tells if there is a connection for bulk to the shard of a slot, in a
	// protocol version and a database; with a slot below 0, if to any shard.
	Bulk(slot int, proto, db uint8) bool
	// Pin takes a server connection to the master of a slot for one client; the
	// second result is an error line when there are too many.
	Pin(slot int, proto uint8) (Pinned, []byte)
	// Block sends a command that may block over a connection of its own; the
	// second result is an error line when there are too many.
	Block(b *Blocked) (Blocking, []byte)
	// Control asks the masters of all shards something on connections that nothing
	// else uses, which are closed afterwards: raw goes to each, and done is called
	// with their replies, in the order of the table's shards. A shard that does not
	// answer has an error line for a reply. It returns an error line when too many
	// such connections are in use.
	Control(proto uint8, raw []byte, done func(replies [][]byte)) []byte
	// Loaded is what is known of the scripts at the server that a request goes to;
	// nil when that cannot be said now.
	Loaded(r *backend.Request) Loaded
	// Async runs work outside of the loop, and done in it afterwards.
	Async(work, done func())
	// FlushClient asks for a call of Client.Flush at the end of the wake-up.
	FlushClient(c *Client)
	// Resume asks for a call of Client.Resume at the end of the wake-up, Yield
	// for one in the next wake-up, after others had their turn.
	Resume(c *Client)
	Yield(c *Client)
	// Count counts an answered command; kind is the first byte of its reply.
	Count(c *Client, r *backend.Request, kind byte)
	// Local answers a command that needs more than the client: COMMAND, CONFIG,
	// CLIENT LIST. It completes r at once or later by c.Complete; args are valid
	// during the call.
	Local(c *Client, r *backend.Request, args [][]byte)
	// MayBePrivate tells if there is room for connections of a client's own to all
	// shards, or the error line; EndPrivate closes them behind what is in flight.
	// HearPrivately opens all and has servers tell of all changes on them.
	MayBePrivate() []byte
	EndPrivate(as *backend.Identity)
	HearPrivately(as *backend.Identity, done func())
	// Monitor answers MONITOR by Client.StartMonitoring, or by an error, when it is
	// known if the servers send their lines; Unmonitor ends what that began. Show
	// gives a line to all monitoring clients of the proxy.
	Monitor(c *Client, r *backend.Request)
	Unmonitor(c *Client)
	Show(line []byte)
	// Parameters completes r, a CONFIG GET, from names and values of a server.
	Parameters(c *Client, r *backend.Request, args [][]byte, server []string)
	// ResetStats sets the proxy's own counters back to zero, and then calls done.
	ResetStats(done func())
	// SeenSlow are the commands that took long, as the proxy saw them; ForgetSlow
	// forgets them. SlowFrom sets from how many microseconds on they are kept, none
	// when it is negative, and then calls done.
	SeenSlow() []fanout.Seen
	ForgetSlow()
	SlowFrom(micros int64, done func())
	// Histograms completes r, a LATENCY HISTOGRAM of commands by these names, or of
	// all without any, from the replies of the shards.
	Histograms(c *Client, r *backend.Request, names, replies [][]byte)
	// Info completes r, an INFO, from the texts of the shards; missing are the ids of
	// those that did not answer.
	Info(c *Client, r *backend.Request, args, shards [][]byte, missing []string)
	// Away tells if a shard, an index into the table's, has had no master that takes
	// requests for as long as Patience.
	Away(shard int) bool
	// ChangeUsers has the Configserver change a user by modifiers (ACL SETUSER), or
	// delete users (ACL DELUSER), and completes r when every proxy obeys.
	ChangeUsers(c *Client, r *backend.Request, names, modifiers []string)
	// Refused counts a request that is in no command table, Malformed a client
	// that is closed because of its bytes, Attacked one that is closed because
	// they are those of an HTTP request (cross-protocol scripting).
	Refused(c *Client)
	Malformed(c *Client)
	Attacked(c *Client)
}

// part makes a request of the proxy's own that is needed to answer another. It
// takes the same connections, so that the client's order stays.
func (s *Shared) part(whole *backend.Request, owner backend.Owner) *backend.Request {
	r := s.Requests.Get()
	r.Owner, r.Spec, r.Start = owner, whole.Spec, s.Now
	r.Proto, r.DB, r.Bulk, r.As = whole.Proto, whole.DB, whole.Bulk, whole.As
	return r
}

// Collect adds a piece to what r has of its reply. With the last one it returns
// the reply, in memory of its own, and puts r back: what is needed of r must be
// read before.
func (s *Shared) Collect(r *backend.Request, piece []byte, last bool) []byte {
	r.Out.Append(&s.Pool, piece)
	if !last {
		return nil
	}
	reply := r.Out.Bytes()
	r.Out.Reset(&s.Pool)
	s.Requests.Put(r)
	return reply
}

// CloneArgs copies arguments, which are the loop's memory, for an answer that
// comes later.
func CloneArgs(args [][]byte) [][]byte {
	own := make([][]byte, len(args))
	for i, a := range args {
		own[i] = bytes.Clone(a)
	}
	return own
}

// ownerOf returns the shard of a slot, or -1.
func (s *Shared) ownerOf(slot int) int {
	if o := s.Table.Owner[slot]; o != routing.NoShard {
		return int(o)
	}
	return -1
}

// replyMode is what CLIENT REPLY set.
type replyMode uint8

const (
	replyOn replyMode = iota
	replyOff
	replySkip // only the next command
	// replyInside is not set by a client: an execution takes the replies.
	replyInside
)

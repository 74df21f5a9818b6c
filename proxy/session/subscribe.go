package session

import (
	"strings"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/pubsub"
)

// Subscribers.
//
// A SUBSCRIBE or UNSUBSCRIBE takes its place in the order of requests like any
// other, but nothing runs beside it: it waits for all earlier requests, and
// later ones wait until it is answered, which is when the servers confirmed
// (package pubsub). So what follows it in a pipeline finds the client in the
// state that Redis would have it in.
//
// Messages are appended to the output as they come, between two replies. Only a
// reply of which a part is out already must not be torn: messages wait in
// subscriptions.late until it ends.
//
// In RESP2 a client that listens to anything is confined to a few commands. In
// RESP3 it may do everything. CLIENT REPLY OFF and SKIP silence neither messages
// nor confirmations, as in Redis.

// subscriptions are those of one client.
type subscriptions struct {
	member *pubsub.Member
	// monitor: it gets a line for each command (monitor.go).
	monitor bool
	// late are messages that wait for the end of a reply.
	late buffer.Queue
}

// Subscribed tells if the client listens to anything.
func (c *Client) Subscribed() bool { return c.subs != nil && c.subs.member.Total() > 0 }

// listens is the number of names of a kind that the client listens to.
func (c *Client) listens(k pubsub.Kind) int64 {
	if c.subs == nil {
		return 0
	}
	return int64(c.subs.member.Count(k))
}

// confinedNow tells if the client may use a few commands only.
func (c *Client) confinedNow() bool { return c.proto == 2 && c.Subscribed() }

// confinement is what Redis says to a client that may use a few commands only
// and sends another, or that monitors and sends one about data; else nil.
func (c *Client) confinement(spec *command.Spec, args [][]byte) []byte {
	if c.confinedNow() {
		switch spec.Name {
		case "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe", "ping", "quit", "reset":
		default:
			return []byte("-ERR Can't execute '" + spec.Name + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n")
		}
	}
	if c.refusedToMonitor(spec, args) {
		return lineReplica
	}
	return nil
}

// pongAsMessage answers PING of a confined client, which expects messages only.
func pongAsMessage(dst []byte, args [][]byte) []byte {
	dst = redcon.AppendBulkString(redcon.AppendArray(dst, 2), "pong")
	if len(args) == 2 {
		return redcon.AppendBulk(dst, args[1])
	}
	return redcon.AppendBulkString(dst, "")
}

// pubSub serves the commands of publish and subscribe. It returns false when
// the request must wait, as handle does; else it uses up the chunk.
func (c *Client) pubSub(spec *command.Spec, args [][]byte, raw []byte, chunk *buffer.Chunk) bool {
	kind, listen := pubsub.Channel, true
	switch spec.Name {
	case "publish":
		c.publish(spec, pubsub.Channel, args, raw, chunk)
		return true
	case "spublish":
		c.publish(spec, pubsub.Shard, args, raw, chunk)
		return true
	case "subscribe":
	case "unsubscribe":
		listen = false
	case "psubscribe":
		kind = pubsub.Pattern
	case "punsubscribe":
		kind, listen = pubsub.Pattern, false
	case "ssubscribe":
		kind = pubsub.Shard
	case "sunsubscribe":
		kind, listen = pubsub.Shard, false
	default:
		c.askPubSub(spec, args)
		c.release(chunk)
		return true
	}
	if c.first != nil {
		c.stalled, c.barrier = true, true
		return false
	}
	c.subscribe(spec, kind, listen, args[1:])
	c.show(spec, args)
	c.release(chunk)
	return true
}

// subscribe begins to listen to names, or ends that.
func (c *Client) subscribe(spec *command.Spec, kind pubsub.Kind, listen bool, names [][]byte) {
	r := c.begin(spec)
	r.Silent = false
	if c.subs == nil {
		c.subs = &subscriptions{member: pubsub.NewMember(c)}
	}
	user := c.user
	done := func(reply []byte) {
		if c.Complete(r, reply); c.user != user && !c.Closed {
			c.checkChannels() // its rights changed while the servers were asked
		}
	}
	if listen {
		if len(names) > subscribeStep {
			names = cloneAll(names)
		}
		c.subscribeSome(r, kind, names, done)
	} else {
		own := cloneAll(names)
		c.sh.Hub.Depart(c.subs.member, kind, own)
		c.sh.Hub.Delivered(c.subs.member, kind, func() {
			if c.Closed {
				done(nil)
				return
			}
			c.sh.Hub.Unsubscribe(c.subs.member, kind, own, done)
		})
	}
	if c.first != nil {
		// What follows waits for the answer.
		c.stalled, c.barrier = true, true
	}
}

// subscribeStep is how many names a client begins to listen to before others have
// their turn.
const subscribeStep = 1024

// subscribeSome begins to listen to some names and confirms that, then to the
// rest.
func (c *Client) subscribeSome(r *backend.Request, kind pubsub.Kind, names [][]byte, done func(reply []byte)) {
	step := names[:min(len(names), subscribeStep)]
	c.sh.Hub.Subscribe(c.subs.member, kind, step, func(reply []byte) {
		rest := names[len(step):]
		if len(rest) == 0 || c.Closed || reply == nil || reply[0] == '-' {
			done(reply)
			return
		}
		c.Reply(r, reply, false, reply[0])
		c.sh.Hub.Later(func() {
			if c.Closed {
				done(nil)
				return
			}
			c.subscribeSome(r, kind, rest, done)
		})
	})
}

// cloneAll copies names, which are the loop's memory.
func cloneAll(names [][]byte) [][]byte {
	size := 0
	for _, name := range names {
		size += len(name)
	}
	own, text := make([][]byte, len(names)), make([]byte, 0, size)
	for i, name := range names {
		text = append(text, name...)
		own[i] = text[len(text)-len(name) : len(text) : len(text)]
	}
	return own
}

// unsubscribeAll ends all subscriptions, without a word to the client.
func (c *Client) unsubscribeAll() {
	if s := c.subs; s != nil {
		c.subs = nil
		if s.monitor {
			c.sh.Router.Unmonitor(c)
		}
		c.sh.Hub.Leave(s.member)
		s.late.Reset(&c.sh.Pool)
	}
}

// Push gives the client a message of one of its subscriptions.
func (c *Client) Push(m *pubsub.Message) {
	if c.Closed || c.ending {
		return
	}
	if r := c.first; r != nil && r.Streamed {
		m.AppendTo(&c.subs.late, int(c.proto))
		return
	}
	c.out.Reserve(&c.sh.Pool, outputRoom)
	m.AppendTo(&c.out, int(c.proto))
	c.wrote()
}

// takeLate sends the messages that came within a reply.
func (c *Client) takeLate() {
	if c.subs.late.Len() > 0 {
		c.out.Take(&c.sh.Pool, &c.subs.late)
	}
}

// askPubSub serves PUBSUB.
func (c *Client) askPubSub(spec *command.Spec, args [][]byte) {
	switch {
	case spec.Name == "pubsub|help":
		c.answer(spec, pubSubHelp)
	case len(args) > 3 && strings.HasSuffix(spec.Name, "channels"):
		c.answer(spec, command.ErrorLine("unknown subcommand or wrong number of arguments for '", args[1], "'. Try PUBSUB HELP."))
	default:
		c.countSubscribers(spec, args)
	}
}

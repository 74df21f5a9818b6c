package session

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/buffer"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/fanout"
	"github.com/basalt-redis/basalt/proxy/pubsub"
	"github.com/basalt-redis/basalt/proxy/resp"
)

// publication is a PUBLISH in flight whose number of receivers must be
// corrected: the owner of the request that went to the server.
type publication struct {
	client *Client
	whole  *backend.Request
	kind   pubsub.Kind
}

// publish sends a message to the master of the channel's slot. While nobody
// listens through this proxy, the server's answer is the right one.
func (c *Client) publish(spec *command.Spec, kind pubsub.Kind, args [][]byte, raw []byte, chunk *buffer.Chunk) {
	sh := c.sh
	at := int(slot.Of(args[1]))
	var r *backend.Request
	if sh.Hub.Directory().Empty() {
		r = c.forward(spec, at)
	} else {
		p := &publication{client: c, whole: c.begin(spec), kind: kind}
		p.whole.Relayed = true
		r = sh.part(p.whole, p)
		r.Slot = int32(at)
	}
	if chunk != nil {
		sh.Router.RouteChunk(r, chunk)
		return
	}
	if raw[0] != '*' {
		raw = sh.encode(args)
	}
	sh.Router.Route(r, raw)
}

// Reply takes the server's number.
func (p *publication) Reply(r *backend.Request, piece []byte, last bool, _ byte) {
	c := p.client
	sh := c.sh
	r.Out.Append(&sh.Pool, piece)
	if !last {
		return
	}
	reply := r.Out.Bytes()
	var channel []byte
	if n, err := fanout.Integer(reply); err == nil {
		if args, err := resp.Args(r.Raw(), nil); err == nil && len(args) == 3 {
			channel = args[1]
			n = sh.Hub.Directory().Receivers(p.kind, string(channel), n)
			reply = redcon.AppendInt(nil, n)
		}
	}
	if channel != nil && !c.Closed && c.Subscribed() {
		// Its own message comes before the reply, as from a single server.
		sh.Hub.After(channel, func() { c.Complete(p.whole, reply) })
	} else {
		c.Complete(p.whole, reply)
	}
	r.Out.Reset(&sh.Pool)
	sh.Requests.Put(r)
}

// Fail passes an error on.
func (p *publication) Fail(r *backend.Request, line []byte) {
	r.Out.Reset(&p.client.sh.Pool)
	p.Reply(r, line, true, '-')
}

// countSubscribers serves the PUBSUB subcommands that ask all shards. Channels
// and patterns are subscribed at every shard, so the shard that counts most
// knows all of them, even while another is being connected again; shard channels
// are subscribed at one.
func (c *Client) countSubscribers(spec *command.Spec, args [][]byte) {
	sh := c.sh
	if len(sh.Table.Shards) == 0 {
		c.answer(spec, noShards)
		return
	}
	switch spec.Name {
	case "pubsub|channels", "pubsub|shardchannels":
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) { return unite(dst, m.replies) })
	case "pubsub|numpat":
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) {
			var most int64
			for _, reply := range m.replies {
				n, err := fanout.Integer(reply)
				if err != nil {
					return dst, err
				}
				most = max(most, n)
			}
			return redcon.AppendInt(dst, most), nil
		})
	default:
		kind := pubsub.Channel
		if spec.Name == "pubsub|shardnumsub" {
			kind = pubsub.Shard
		}
		c.survey(spec, args, func(m *merge, dst []byte) ([]byte, error) {
			return sh.subscribers(dst, kind, m.replies)
		})
	}
}

// subscribers joins the replies to NUMSUB, pairs of a channel and a number in
// the order of the request.
func (s *Shared) subscribers(dst []byte, kind pubsub.Kind, replies [][]byte) ([]byte, error) {
	var names []string
	var most []int64
	for shard, reply := range replies {
		elements, err := fanout.Elements(reply)
		if err != nil || len(elements)%2 != 0 || shard > 0 && len(elements) != 2*len(names) {
			return dst, fanout.ErrReply
		}
		for i := 0; i < len(elements); i += 2 {
			n, err := fanout.Integer(elements[i+1])
			if err != nil {
				return dst, err
			}
			if shard > 0 {
				most[i/2] = max(most[i/2], n)
				continue
			}
			name, err := fanout.Bulk(elements[i])
			if err != nil {
				return dst, err
			}
			names, most = append(names, string(name)), append(most, n)
		}
	}
	dst = redcon.AppendArray(dst, 2*len(names))
	for i, name := range names {
		dst = redcon.AppendBulkString(dst, name)
		dst = redcon.AppendInt(dst, s.Hub.Directory().Subscribers(kind, name, most[i]))
	}
	return dst, nil
}

// unite joins arrays of names, each name once.
func unite(dst []byte, replies [][]byte) ([]byte, error) {
	var all [][]byte
	for _, reply := range replies {
		elements, err := fanout.Elements(reply)
		if err != nil {
			return dst, err
		}
		all = append(all, elements...)
	}
	slices.SortFunc(all, bytes.Compare)
	all = slices.CompactFunc(all, bytes.Equal)
	dst = redcon.AppendArray(dst, len(all))
	for _, element := range all {
		dst = append(dst, element...)
	}
	return dst, nil
}

// pubSubHelp is PUBSUB HELP of Redis 7.0.
var pubSubHelp = helpLines(
	"PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"CHANNELS [<pattern>]",
	"    Return the currently active channels matching a <pattern> (default: '*').",
	"NUMPAT",
	"    Return number of subscriptions to patterns.",
	"NUMSUB [<channel> ...]",
	"    Return the number of subscribers for the specified channels, excluding",
	"    pattern subscriptions(default: no channels).",
	"SHARDCHANNELS [<pattern>]",
	"    Return the currently active shard level channels matching a <pattern> (default: '*').",
	"SHARDNUMSUB [<shardchannel> ...]",
	"    Return the number of subscribers for the specified shard level channel(s)",
	"HELP",
	"    Prints this help.",
)

func helpLines(lines ...string) []byte {
	reply := append(strconv.AppendInt([]byte("*"), int64(len(lines)), 10), "\r\n"...)
	for _, line := range lines {
		reply = append(append(append(reply, '+'), line...), "\r\n"...)
	}
	return reply
}

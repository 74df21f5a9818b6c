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

// publisher is a Client as the owner of a PUBLISH or SPUBLISH, whose number of
// receivers must be corrected. publication is that of one in an execution.
type (
	publisher   Client
	publication struct {
		client *Client
		inner  backend.Owner
	}
)

// publishedAt is the slot whose master takes messages of a channel.
func (s *Shared) publishedAt(kind pubsub.Kind, channel []byte) int {
	if kind == pubsub.Channel {
		return s.Table.ChannelSlot(channel)
	}
	return int(slot.Of(channel))
}

// publish sends a message to the master that takes those of the channel.
func (c *Client) publish(spec *command.Spec, kind pubsub.Kind, args [][]byte, raw []byte, chunk *buffer.Chunk) {
	sh := c.sh
	r := c.forward(spec, sh.publishedAt(kind, args[1]))
	if c.mode == replyInside {
		r.Owner = &publication{client: c, inner: r.Owner}
	} else {
		r.Owner = (*publisher)(c)
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
func (o *publisher) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	c := (*Client)(o)
	if last && kind == ':' {
		args, _ := resp.FirstArgs(r.Raw(), c.sh.args[:0], 2)
		c.published(r, c, args, piece)
		return
	}
	c.Reply(r, piece, last, kind)
}

// Fail ends the request.
func (o *publisher) Fail(r *backend.Request, line []byte) { (*Client)(o).Fail(r, line) }

// Reply takes the server's number.
func (p *publication) Reply(r *backend.Request, piece []byte, last bool, kind byte) {
	if last && kind == ':' {
		args, _ := resp.FirstArgs(r.Raw(), nil, 2)
		p.client.published(r, p.inner, args, piece)
		return
	}
	p.inner.Reply(r, piece, last, kind)
}

// Fail ends the request.
func (p *publication) Fail(r *backend.Request, line []byte) { p.inner.Fail(r, line) }

// published passes the number of receivers on to whom the request belongs. args are
// the command and the channel, piece is the last of the server's reply.
func (c *Client) published(r *backend.Request, owner backend.Owner, args [][]byte, piece []byte) {
	sh := c.sh
	counted, err := fanout.Integer(whole(r, piece))
	dir := sh.Hub.Directory()
	if err != nil || len(args) < 2 || counted == 0 && dir.Empty() {
		owner.Reply(r, piece, true, ':')
		return
	}
	kind := pubsub.Channel
	if r.Spec.Name == "spublish" {
		kind = pubsub.Shard
	}
	n, others := dir.Receivers(kind, args[1], counted)
	listens := !c.Closed && c.Subscribed()
	r.Out.Reset(&sh.Pool)
	if !others && !listens {
		sh.text = redcon.AppendInt(sh.text[:0], n)
		owner.Reply(r, sh.text, true, ':')
		return
	}
	channel := bytes.Clone(args[1])
	r.Keep(bytes.Clone(r.Raw()))
	r.Owner = owner
	done := func() {
		if r.Owner == nil { // the client left
			sh.Requests.Put(r)
			return
		}
		r.Owner.Reply(r, redcon.AppendInt(nil, n), true, ':')
	}
	after := func() {
		if !c.Closed && c.Subscribed() {
			// Its own message comes before the reply, as from a single server.
			sh.Hub.After(kind, channel, done)
			return
		}
		done()
	}
	if !others {
		after()
		return
	}
	sh.elsewhere(r, kind, channel, func(more int64) {
		n += more
		after()
	})
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
		c.survey(spec, args, func(m *merge, _ []byte) ([]byte, error) {
			return nil, c.subscribers(m.whole, kind, m.replies)
		})
	}
}

// subscribers joins the replies to NUMSUB, pairs of a channel and a number in
// the order of the request, and completes whole with them and what the servers of the
// channels know of clients beyond the loops.
func (c *Client) subscribers(whole *backend.Request, kind pubsub.Kind, replies [][]byte) error {
	sh := c.sh
	var names []string
	var most []int64
	for shard, reply := range replies {
		elements, err := fanout.Elements(reply)
		if err != nil || len(elements)%2 != 0 || shard > 0 && len(elements) != 2*len(names) {
			return fanout.ErrReply
		}
		for i := 0; i < len(elements); i += 2 {
			n, err := fanout.Integer(elements[i+1])
			if err != nil {
				return err
			}
			if shard > 0 {
				most[i/2] = max(most[i/2], n)
				continue
			}
			name, err := fanout.Bulk(elements[i])
			if err != nil {
				return err
			}
			names, most = append(names, string(name)), append(most, n)
		}
	}
	places := map[int][]int{} // indexes of names by the shard that is asked
	for i, name := range names {
		if n, others := sh.Hub.Directory().Subscribers(kind, name, most[i]); others {
			owner := sh.ownerOf(sh.publishedAt(kind, []byte(name)))
			places[owner] = append(places[owner], i)
		} else {
			most[i] = n
		}
	}
	missing := len(places) + 1
	done := func() {
		if missing--; missing > 0 {
			return
		}
		reply := redcon.AppendArray(nil, 2*len(names))
		for i, name := range names {
			reply = redcon.AppendInt(redcon.AppendBulkString(reply, name), most[i])
		}
		c.Complete(whole, reply)
	}
	for _, indexes := range places {
		asked := make([]string, len(indexes))
		for j, i := range indexes {
			asked[j] = names[i]
		}
		q := sh.Hub.Directory().InquireSubscribers(kind, asked)
		sh.inquire(whole, sh.publishedAt(kind, []byte(asked[0])), q, func() {
			for j, i := range indexes {
				n, _ := sh.Hub.Directory().Subscribers(kind, names[i], most[i])
				most[i] = n + q.Elsewhere(j)
			}
			done()
		})
	}
	done()
	return nil
}

// unite joins arrays of names, each name once, without those of the proxies' own.
func unite(dst []byte, replies [][]byte) ([]byte, error) {
	var all [][]byte
	for _, reply := range replies {
		elements, err := fanout.Elements(reply)
		if err != nil {
			return dst, err
		}
		for _, element := range elements {
			if name, err := fanout.Bulk(element); err != nil || !bytes.HasPrefix(name, []byte(pubsub.Internal)) {
				all = append(all, element)
			}
		}
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

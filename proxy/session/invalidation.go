package session

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/fanout"
)

// Invalidations are what the clients of one loop that track are waiting for
// (tracking.go). They belong to the loop's thread.
type Invalidations struct {
	// Max is how many keys are remembered. Beyond it one is given up, and the
	// clients under it are told that it changed, as Redis does.
	Max int
	// Broadcast has the loop ask the servers to tell of all changes, and calls
	// done when they do. Quiet ends that.
	Broadcast func(done func())
	Quiet     func()

	// dropped: all clients that read were told to forget everything, and read
	// nothing since. FLUSHALL is told by every shard.
	dropped bool
	clients map[*Client]struct{}
	// hearing counts those that are told of all changes over the connections for
	// subscriptions.
	hearing int
	keys    map[string][]*Client
}

// Clients is how many clients track.
func (v *Invalidations) Clients() int { return len(v.clients) }

// Keys is how many keys are remembered.
func (v *Invalidations) Keys() int { return len(v.keys) }

func (v *Invalidations) join(c *Client) {
	if _, here := v.clients[c]; here {
		return
	}
	if v.clients == nil {
		v.clients, v.keys = map[*Client]struct{}{}, map[string][]*Client{}
	}
	v.clients[c], v.dropped = struct{}{}, false
	c.bcast = c.tracking.bcast
}

// hear notes if a client is told of all changes over the connections for subscriptions.
func (v *Invalidations) hear(c *Client, so bool) {
	switch {
	case c.hears == so:
	case so:
		c.hears = true
		v.hearing++
	default:
		c.hears = false
		if v.hearing--; v.hearing == 0 {
			v.Quiet()
		}
	}
}

// leave forgets a client; the keys it is under forget it when they change.
func (v *Invalidations) leave(c *Client) {
	if _, here := v.clients[c]; !here {
		return
	}
	delete(v.clients, c)
	c.bcast = false
	v.hear(c, false)
	if len(v.clients) == 0 {
		v.keys = map[string][]*Client{}
	}
}

// remember enters a client under a key.
func (v *Invalidations) remember(key string, c *Client) {
	under := v.keys[key]
	if slices.Contains(under, c) {
		return
	}
	if under == nil && len(v.keys) >= v.Max {
		for other := range v.keys { // any
			v.Invalidate([]byte(other))
			break
		}
	}
	if len(under) == cap(under) {
		// Those that left would be kept for as long as the key does not change.
		under = slices.DeleteFunc(under, func(c *Client) bool { return c.tracking == nil })
	}
	v.keys[key] = append(under, c)
}

// Invalidate tells the clients under a key that it changed.
func (v *Invalidations) Invalidate(key []byte) {
	if len(v.clients) == 0 {
		return
	}
	push := invalidation(key)
	under, known := v.keys[string(key)]
	delete(v.keys, string(key))
	if known {
		for _, c := range under {
			c.invalidate(push, false)
		}
		return
	}
	for c := range v.clients {
		if !c.apart() {
			c.invalidate(push, false)
		}
	}
}

// Moved tells clients to forget everything, because keys are at other masters now.
func (v *Invalidations) Moved() {
	v.Drop(false)
	for c := range v.clients {
		if t := c.tracking; t != nil && t.own != nil && !c.bcast {
			(*privately)(c).Ended()
		}
	}
}

// Drop tells clients to forget everything: those that read, because a server
// forgot what they read or has no keys any more, or those in BCAST mode, because
// changes may have been missed.
func (v *Invalidations) Drop(bcast bool) {
	if len(v.clients) == 0 {
		return
	}
	if !bcast {
		if v.dropped {
			return
		}
		clear(v.keys)
		v.dropped = true
	}
	for c := range v.clients {
		switch t := c.tracking; {
		case t == nil:
		case bcast && (!c.hears || t.missed): // trackAll tells it
		case !bcast && c.apart():
		default:
			c.invalidate(invalidateAll, bcast)
		}
	}
}

// changed tells the clients in BCAST mode of keys, in a message for each of
// their prefixes.
func (v *Invalidations) changed(keys [][]byte) {
	var mine [][]byte
	for c := range v.clients {
		if !c.hears || c.tracking == nil {
			continue
		}
		for _, prefix := range c.tracking.prefixes {
			mine = mine[:0]
			for _, key := range keys {
				if strings.HasPrefix(string(key), prefix) {
					mine = append(mine, key)
				}
			}
			if len(mine) > 0 {
				c.invalidate(invalidation(mine...), true)
			}
		}
	}
}

// Pushed takes a whole push of a server connection; one in BCAST mode says bcast.
// It returns false when the push is about something else.
func (v *Invalidations) Pushed(push []byte, bcast bool) bool {
	elements, err := fanout.Elements(push)
	if err != nil || len(elements) != 2 {
		return false
	}
	if kind, err := fanout.Bulk(elements[0]); err != nil || string(kind) != "invalidate" {
		return false
	}
	list, err := fanout.Elements(elements[1])
	if err != nil {
		v.Drop(bcast) // null: FLUSHALL or FLUSHDB
		return true
	}
	keys := make([][]byte, 0, len(list))
	for _, e := range list {
		if key, err := fanout.Bulk(e); err == nil {
			keys = append(keys, key)
		}
	}
	if bcast {
		v.changed(keys)
		return true
	}
	for _, key := range keys {
		v.Invalidate(key)
	}
	return true
}

// InvalidateBegin is what an invalidation begins with; its keys follow, or null for
// all of them.
var InvalidateBegin = []byte(">2\r\n$10\r\ninvalidate\r\n")

var invalidateAll = slices.Concat(InvalidateBegin, []byte("_\r\n"))

func invalidation(keys ...[]byte) []byte {
	dst := redcon.AppendArray(bytes.Clone(InvalidateBegin), len(keys))
	for _, key := range keys {
		dst = redcon.AppendBulk(dst, key)
	}
	return dst
}

// maxAfter bounds the invalidations that wait behind the replies to one client.
// Beyond it the client is told to forget everything.
const maxAfter = 1 << 20

// invalidate passes a push on, behind the replies that it must not overtake.
//
// In BCAST mode it came on another connection than the replies. It goes out at
// once, and again behind what is being read: the server may have read before the
// change.
func (c *Client) invalidate(push []byte, bcast bool) {
	if c.Closed || c.ending || c.tracking == nil || c.proto != 3 || c.bcast != bcast || bcast && !c.tracking.ready {
		return
	}
	var torn, behind *backend.Request
	if c.first != nil && c.first.Streamed {
		torn = c.first
	}
	waiting := len(push)
	for r := c.first; r != nil; r = r.Following {
		waiting += len(r.After)
		if r.Registered || bcast && r.Spec != nil && (mayRead(r.Spec) || r.Spec.Name == "exec") {
			behind = r
		}
	}
	if waiting > maxAfter {
		push = invalidateAll
		for r := c.first; r != nil; r = r.Following {
			forgetAll(r)
		}
	}
	switch {
	case torn != nil && (bcast || behind == nil):
		follow(torn, push)
	case bcast || behind == nil:
		c.out.Reserve(&c.sh.Pool, outputRoom)
		c.out.Append(&c.sh.Pool, push)
		c.wrote()
	}
	if behind != nil && (behind != torn || !bcast) {
		follow(behind, push)
	}
}

// follow lets a push go out behind a reply.
func follow(r *backend.Request, push []byte) {
	if len(r.After)+len(push) > maxAfter {
		forgetAll(r)
		push = invalidateAll
	}
	r.After = append(r.After, push...)
}

// forgetAll puts one message in the place of those that wait behind a reply: to
// forget everything.
func forgetAll(r *backend.Request) {
	if len(r.After) > len(invalidateAll) {
		r.After = bytes.Clone(invalidateAll)
	}
}

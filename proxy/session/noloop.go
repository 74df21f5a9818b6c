package session

import (
	"bytes"
	"slices"

	"github.com/basalt-redis/basalt/proxy/backend"
)

// CLIENT TRACKING with NOLOOP.
//
// Goal: a client that changes a key which it has read is not told, as it knows; of
// everybody else's changes it is told, always.
//
//  1. Only the server can tell who changed a key, and only by the connection. So a
//     client with NOLOOP in RESP3 has connections of its own, one to each shard
//     that it uses: an identity (identity.go) that is private. They log in with
//     TRACKING ON OPTIN NOLOOP, and all that the client reads and writes goes
//     over them, in order: transactions, scripts and the parts of MGET as well.
//  2. What they push is for this client, so there is no table. A reply that waits for
//     its turn is overtaken by no push (Client.invalidate).
//  3. When one ends, or a master is replaced, the client is told to forget
//     everything. So it is when another CLIENT TRACKING leaves NOLOOP out: the
//     connections are closed then, as by CLIENT TRACKING OFF and RESET, and when the
//     client leaves. What it sent before is answered: what is in flight there, and what
//     still waits for such a connection over those that all share.
//  4. In BCAST mode there are such connections to all masters from the beginning, in
//     the database of that time, and servers tell of all changes on them.
//  5. They count as pinned connections. When there are too many, CLIENT TRACKING is
//     refused, and later a command that needs one more.
//
// Of some changes of its own the client is told all the same, one message too many:
// those by commands that block, behind WATCH, in another database, and by scripts of
// users with limits, for these use other connections; and those of keys that it read
// over other connections, before NOLOOP or by such scripts.

// apart tells if the client is told over its own connections only.
func (c *Client) apart() bool {
	return c.tracking != nil && c.tracking.own != nil && !c.shared
}

// private is the identity of the client's own connections, if it is to have any.
func (c *Client) private() *backend.Identity {
	t := c.tracking
	if t == nil || c.proto != 3 {
		return nil
	}
	if t.own == nil && t.noloop && !t.bcast {
		t.own = &backend.Identity{Private: true, Listener: (*privately)(c)}
	}
	return t.own
}

// keepPrivate goes on with connections from before another CLIENT TRACKING.
func (c *Client) keepPrivate(old *tracking) {
	if t := c.tracking; t.noloop && slices.Equal(t.prefixes, old.own.Prefixes) {
		t.own, t.dropped = old.own, old.dropped
		return
	}
	if c.endPrivate(old); c.bcast {
		c.tracking.missed = true
		return
	}
	c.tellUntold()
}

// tellUntold tells the client of what servers forgot when it could not be told.
func (c *Client) tellUntold() {
	if c.untold && c.proto == 3 && !c.bcast {
		c.untold = false
		c.invalidate(invalidateAll, false)
	}
}

// endPrivate closes the connections of the client's own. The servers forget what it
// read there: when it tracks again, it is told so.
func (c *Client) endPrivate(old *tracking) {
	if own := old.own; own != nil {
		own.Listener, c.untold = nil, c.untold || !old.bcast
		c.sh.Router.EndPrivate(own)
	}
}

// sawPrivately notes that a tracked request was answered.
func (c *Client) sawPrivately(r, whole *backend.Request) {
	if r.As != c.tracking.own {
		c.unkept(whole, r.Raw()) // its connection is about to be closed
		return
	}
	whole.Registered, c.tracking.dropped = true, false
}

// privately is a Client as the listener of its own connections.
type privately Client

// Pushed passes an invalidation on.
func (p *privately) Pushed(push []byte) {
	c := (*Client)(p)
	switch {
	case c.tracking == nil || !bytes.HasPrefix(push, InvalidateBegin):
	case bytes.Equal(push, invalidateAll):
		p.Ended() // FLUSHALL, which every shard tells
	default:
		c.invalidate(push, c.bcast)
	}
}

// Ended tells the client to forget everything.
func (p *privately) Ended() {
	c := (*Client)(p)
	if c.tracking == nil || c.tracking.dropped {
		return
	}
	c.tracking.dropped = !c.bcast
	c.untold = c.untold || c.proto != 3 && !c.bcast
	c.invalidate(invalidateAll, c.bcast)
}

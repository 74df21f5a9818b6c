package backend

// Identity is on whose behalf a connection of a side lane is used. Requests
// without one (Request.As is nil) take the lanes that all clients of a loop share;
// those of an identity take lanes of its own, which are opened when they are needed
// and closed when they are not.
//
// An Identity is told from others by its address. What it holds is the last part of
// the login of its connections: they log in as the proxy first, like all others,
// then become what the identity says, and take requests only when the server
// confirmed that. So no request can run as anybody else.
type Identity struct {
	// User has the rights of the requests at the servers: the part of the name of
	// their user that follows ScriptUsername (acl.NodeUser); "" for the proxy's own.
	// It may change: connections keep what they logged in as (Target.User).
	User string
	// Private: it is of one client that does not want to hear of its own changes
	// (CLIENT TRACKING with NOLOOP): servers do not tell a connection of what came
	// over itself.
	Private bool
	// Prefixes, if there are any, are those of keys of which servers tell every change
	// (BCAST), on the private connections in database DB.
	Prefixes []string
	DB       uint8
	// Listener hears what servers push on private connections. While there is one,
	// they are kept though they carry nothing.
	Listener Listener
}

// Listener is who tracks keys over private connections.
type Listener interface {
	// Pushed takes a whole push, which is only valid during the call.
	Pushed(push []byte)
	// Ended: a connection ended, and with it the server's memory of what was read
	// through it.
	Ended()
}

// IsPrivate tells if it is that of one client; a nil Identity is not.
func (i *Identity) IsPrivate() bool { return i != nil && i.Private }

// Hears tells if servers tell of every change on a connection to a target of the
// identity.
func (i *Identity) Hears(t *Target) bool {
	return i != nil && len(i.Prefixes) > 0 && t.DB == i.DB && t.Proto == 3
}

// IsKept tells if its connections are kept though they carry nothing.
func (i *Identity) IsKept() bool { return i != nil && i.Listener != nil }

// IsOver tells if it is that of one client, which does not want it any more.
func (i *Identity) IsOver() bool { return i.IsPrivate() && i.Listener == nil }

// LaneKey tells the lanes to one server apart: At is a Lane.
type LaneKey struct {
	As *Identity
	At int
}

// LaneKey tells which lane the request takes.
func (r *Request) LaneKey() LaneKey { return LaneKey{r.As, r.Lane()} }

// LaneKey of connections to the target.
func (t *Target) LaneKey() LaneKey { return LaneKey{t.As, t.Lane()} }

// A UserError ends a login to a server that does not have the user of the
// identity, or not yet. It lets the proxies in, so it is not fenced.
type UserError struct{ text string }

func (e *UserError) Error() string {
	return "the server does not know the user of the side lane: " + e.text
}

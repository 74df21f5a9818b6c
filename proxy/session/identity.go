package session

import (
	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
)

// Identities: as whom a server runs what a client sends.
//
// Requests run with the proxies' rights, for the proxy has checked them. Of a script
// it sees the arguments only, so the scripts of a user with limits run as a user of
// the servers that has the same limits, over connections of their own
// (backend.Identity).
//
// A client's requests take one identity at a time. It changes over only when nothing
// of it is in flight, for requests on two connections could overtake each other: a
// request for the other one waits for the earlier ones (barrier), and so does
// everything behind it. This is what happens with bulk, too (bulk.go).
//
// A client that tracks with NOLOOP has an identity of its own (noloop.go).

// shares tells that all it may send takes the lanes that everybody shares.
func (c *Client) shares() bool { return c.limits == nil && c.as == nil && c.tracking == nil }

// changeOver prepares for a request's identity. It returns false when the request
// must wait for the earlier ones; the client is then stalled.
func (c *Client) changeOver(spec *command.Spec) bool {
	as := c.identity(spec)
	if as == c.as {
		return true
	}
	if c.first != nil {
		c.stalled, c.barrier = true, true
		return false
	}
	c.as, c.bulk.now = as, false
	return true
}

// identity is on whose behalf a command is to be sent.
func (c *Client) identity(spec *command.Spec) *backend.Identity {
	switch {
	case c.limits == nil:
		return c.private()
	case spec.Kind == command.Script, spec.Name == "exec" && c.inMulti() && c.tx.scripted:
		return c.sh.identityOf(c.user)
	}
	return c.private()
}

// identityOf is the identity of a user with limits.
func (s *Shared) identityOf(u *acl.User) *backend.Identity {
	as := s.identities[u.Name()]
	if as == nil {
		if s.identities == nil {
			s.identities = map[string]*backend.Identity{}
		}
		as = &backend.Identity{User: u.Limits.Rights}
		s.identities[u.Name()] = as
	}
	return as
}

// nobody is what an identity is when its user was deleted. No server has a user of
// this name.
const nobody = "deleted"

// RenameUsers follows a change of users and returns the identities that have other
// rights now. What waits for their connections is sent with the new rights.
func (s *Shared) RenameUsers() (changed []*backend.Identity) {
	for name, as := range s.identities {
		now := nobody
		switch u := s.Table.Users.Find([]byte(name)); {
		case u == nil:
			delete(s.identities, name)
		case u.Limits == nil:
			now = ""
		default:
			now = u.Limits.Rights
		}
		if now != as.User {
			as.User = now
			changed = append(changed, as)
		}
	}
	return changed
}

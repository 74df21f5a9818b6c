package session

import (
	"time"

	rules "github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/proxy/acl"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/pubsub"
	"github.com/basalt-redis/basalt/proxy/resp"
)

// Who a client is, and what it may do (package acl). Every request comes through
// handle, which asks forbidden when the client's user has limits; what MULTI
// queued is looked at again at EXEC when those changed, and commands that are
// answered behind the transaction when their turn comes.
//
// What was let in before a change of users is carried out: a request in flight,
// or one that waits for a master. Redis cannot call a command back either.

const (
	noPermission    = "NOPERM this user has no permissions to "
	changedInExec   = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason: "
	deniedSortStart = "ERR "
	deniedSortEnd   = " option of SORT denied due to insufficient ACL permissions."
)

// User is the name of the user that the client is logged in as.
func (c *Client) User() string { return c.user.Name() }

func (c *Client) become(u *acl.User) { c.user, c.limits = u, u.Limits }

// becomeDefault makes the client what it is when it connects.
func (c *Client) becomeDefault() {
	users := c.sh.Table.Users
	c.become(users.Default)
	c.authed = users.Open
}

// login checks a user and a password; command is the word that the client used.
func (c *Client) login(command, user, password []byte) []byte {
	u := c.sh.Table.Users.Find(user)
	if u == nil || !u.Rules.Opens(password) {
		c.noteDenied(acl.DeniedAuth, string(command), string(user))
		return lineWrongPass
	}
	c.become(u)
	c.authed = true
	return lineOK
}

// forbidden is the error line of a request that the client's user may not make.
// For others it is line: why the request is refused anyway, or nil.
func (c *Client) forbidden(spec *command.Spec, args [][]byte, line []byte) []byte {
	switch verdict := c.check(spec, args); verdict {
	case acl.Allowed:
		return line
	case acl.DeniedCommand:
		return []byte("-" + noPermission + "run the '" + spec.Name + "' command\r\n")
	case acl.DeniedKey:
		return []byte("-" + noPermission + "access one of the keys used as arguments\r\n")
	case acl.DeniedChannel:
		return []byte("-" + noPermission + "access one of the channels used as arguments\r\n")
	default:
		return otherDenial(verdict)
	}
}

// forbiddenInExec is forbidden for a command of a transaction when EXEC runs it.
func (c *Client) forbiddenInExec(spec *command.Spec, args [][]byte) []byte {
	if c.limits == nil {
		return nil
	}
	var reason string
	switch verdict := c.check(spec, args); verdict {
	case acl.Allowed:
		return nil
	case acl.DeniedCommand:
		reason = "no permission to execute the command or subcommand"
	case acl.DeniedKey:
		reason = "no permission to touch the specified keys"
	case acl.DeniedChannel:
		reason = "no permission to access one of the channels used as arguments"
	default:
		return otherDenial(verdict)
	}
	return []byte("-" + changedInExec + reason + "\r\n")
}

func otherDenial(verdict acl.Verdict) []byte {
	option := "GET"
	if verdict == acl.DeniedBy {
		option = "BY"
	}
	return []byte("-" + deniedSortStart + option + deniedSortEnd + "\r\n")
}

// check asks the limits, and notes a denial.
func (c *Client) check(spec *command.Spec, args [][]byte) acl.Verdict {
	verdict, at := c.limits.Check(spec, args, &c.sh.rights)
	switch verdict {
	case acl.Allowed, acl.DeniedBy, acl.DeniedGet:
	case acl.DeniedKey, acl.DeniedChannel:
		c.noteDenied(verdict, string(args[at]), c.user.Name())
	default:
		c.noteDenied(verdict, spec.Name, c.user.Name())
	}
	return verdict
}

func (c *Client) noteDenied(reason acl.Verdict, object, user string) {
	context := "toplevel"
	if c.inMulti() || c.inside != nil {
		context = "multi"
	}
	c.sh.Denied.Add(acl.Entry{Reason: reason, Context: context, Object: object, User: user, At: time.Now(), Client: string(c.Describe(nil))})
}

// UsersChanged makes the client obey the users of a new table: it is closed when
// its user is gone, or may not listen any more to what the client listens to.
func (c *Client) UsersChanged() {
	now := c.sh.Table.Users.Find([]byte(c.user.Name()))
	before := c.user
	switch {
	case now == before:
	case now == nil || now.Created != before.Created:
		c.become(c.sh.Table.Users.Default)
		if c.authed = false; c.removing {
			c.End() // it is told that the user was removed, by itself
		} else {
			c.Close()
		}
	default:
		c.become(now)
		if c.Subscribed() && !now.KeepsChannels(before) {
			c.checkChannels()
		}
	}
}

// checkChannels closes a client that listens to what its user may not.
func (c *Client) checkChannels() {
	if c.limits == nil || c.subs == nil {
		return
	}
	allowed := true
	c.subs.member.Each(func(k pubsub.Kind, name string) {
		allowed = allowed && c.user.MayListen(name, k == pubsub.Pattern)
	})
	if !allowed {
		c.Close()
	}
}

// recheck looks at the commands of a transaction again, since the user's limits
// changed after they were queued. What is not allowed now is not sent: an error
// stands in its place in the reply of EXEC. The result is an error line when
// EXEC must fail as a whole.
func (c *Client) recheck(t *transaction) []byte {
	var queued []byte
	if t.block != nil {
		queued = t.block.B[len(rawMulti):]
	}
	kept := queued[:0]
	asides := t.asides
	t.asides, t.sent = nil, 0
	var args [][]byte
	for i := range t.count {
		var a *aside
		if len(asides) > 0 && asides[0].at == i {
			a, asides = &asides[0], asides[1:]
			if a.own < 0 {
				t.asides = append(t.asides, *a) // checked when its turn comes
				continue
			}
		}
		n, err := new(resp.Scanner).Scan(queued, &c.sh.Limits, true)
		if err == nil {
			args, err = resp.Args(queued[:n], args[:0])
		}
		if err != nil {
			return lineExecAbort // it was well-formed when it was queued
		}
		raw := queued[:n]
		queued = queued[n:]
		spec, line := command.Lookup(args)
		if line == nil {
			line = c.forbiddenInExec(spec, args)
		}
		switch {
		case line != nil:
			t.asides = append(t.asides, aside{spec: spec, at: i, own: -1, line: line})
			if len(t.asides) > maxAsides {
				return lineExecAbort
			}
			continue
		case a != nil:
			a.own = t.sent
			t.asides = append(t.asides, *a)
		}
		kept = append(kept, raw...)
		t.sent++
	}
	switch {
	case t.block == nil:
	case t.sent == 0 && t.pin == nil:
		c.sh.Pool.Put(t.block)
		t.block = nil
	default:
		t.block.B = t.block.B[:len(rawMulti)+len(kept)]
	}
	return nil
}

// changeUsers serves ACL SETUSER and ACL DELUSER, which the Configserver carries
// out. What is wrong with the request itself is answered at once.
func (c *Client) changeUsers(spec *command.Spec, args [][]byte) {
	names := make([]string, 0, 1)
	var modifiers []string
	if spec.Name == "acl|deluser" {
		own := false
		for _, name := range args[2:] {
			if names = append(names, string(name)); string(name) == rules.DefaultUser {
				c.answer(spec, []byte("-ERR The 'default' user cannot be removed\r\n"))
				return
			}
			own = own || string(name) == c.user.Name()
		}
		if reason := rules.TooMany(names); reason != "" {
			c.answer(spec, command.ErrorLine(reason, nil, ""))
			return
		}
		c.removing = c.removing || own
	} else {
		var line []byte
		if modifiers, line = c.validModifiers(args); line != nil {
			c.answer(spec, line)
			return
		}
		names = append(names, string(args[2]))
	}
	r := c.begin(spec)
	c.sh.Router.ChangeUsers(c, r, names, modifiers)
	// What follows may be meant for the new users.
	c.waitForAll()
}

// validModifiers applies the modifiers of an ACL SETUSER to the user as it is
// known here. It returns them merged and without passwords, or an error line.
func (c *Client) validModifiers(args [][]byte) (modifiers []string, line []byte) {
	name := string(args[2])
	if !rules.ValidName(name) {
		return nil, []byte("-ERR Usernames can't contain spaces or null characters\r\n")
	}
	words := make([]string, 0, len(args))
	for _, a := range args[3:] {
		words = append(words, string(a))
	}
	if reason := rules.TooMany(words); reason != "" {
		return nil, command.ErrorLine(reason, nil, "")
	}
	user := rules.NewUser(name)
	if known := c.sh.Table.Users.Find(args[2]); known != nil {
		user = known.Rules.Clone()
	}
	modifiers, err := rules.Merge(words)
	if err == nil {
		err = user.Apply(modifiers)
	}
	if err != nil {
		return nil, command.ErrorLine(err.Error(), nil, "")
	}
	return rules.Hashed(modifiers), nil
}

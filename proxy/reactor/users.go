package reactor

import (
	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/session"
)

var lineManyUsers = []byte("-ERR too many changes of users wait for the Configserver, this one was not made; retry later\r\n")

var lineNoKeeper = []byte("-ERR this proxy was built without a keeper of users\r\n")

// ChangeUsers asks the keeper of the users, and answers with what it says. Changes
// are made one after the other: several of one transaction stay in their order.
func (l *loop) ChangeUsers(c *session.Client, r *backend.Request, names, modifiers []string) {
	keeper := l.eng.cfg.Users
	if keeper == nil {
		c.Complete(r, lineNoKeeper)
		return
	}
	remove := r.Spec.Name == "acl|deluser"
	size := 0
	for _, words := range [][]string{names, modifiers} {
		for _, word := range words {
			size += len(word)
		}
	}
	if !l.eng.users.add(size, func() {
		reply := []byte("+OK\r\n")
		var err error
		if remove {
			var n int
			n, err = keeper.DeleteUsers(names)
			reply = redcon.AppendInt(nil, int64(n))
		} else {
			err = keeper.SetUser(names[0], modifiers)
		}
		if err != nil {
			reply = command.ErrorLine(err.Error(), nil, "")
		}
		l.post(func() { c.Complete(r, reply) })
	}) {
		c.Complete(r, lineManyUsers)
	}
}

package reactor

import (
	"github.com/tidwall/redcon"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/session"
)

var lineNoKeeper = []byte("-ERR this proxy was built without a keeper of users\r\n")

// ChangeUsers asks the keeper of the users, and answers with what it says.
func (l *loop) ChangeUsers(c *session.Client, r *backend.Request, names, modifiers []string) {
	keeper := l.eng.cfg.Users
	if keeper == nil {
		c.Complete(r, lineNoKeeper)
		return
	}
	remove := r.Spec.Name == "acl|deluser"
	go func() {
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
	}()
}

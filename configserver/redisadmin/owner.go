package redisadmin

import (
	"context"
	"fmt"
	"strings"

	"github.com/basalt-redis/basalt/configserver/credentials"
)

// mayChange comes right before every command that changes the server.
func (c *Conn) mayChange(ctx context.Context) error {
	if err := c.Begin(ctx); err != nil {
		return err
	}
	if c.Guard != nil {
		return c.Guard()
	}
	return nil
}

// Begin does what First says, if that was not done on this connection yet. Whoever
// has time calls it before there is any need.
func (c *Conn) Begin(ctx context.Context) error {
	first := c.First
	if first == nil {
		return nil
	}
	c.First = nil // it may send commands that change the server
	err := first(ctx)
	if err != nil {
		c.First = first
	}
	return err
}

// SetName names the connection, so that others can tell whose it is.
func (c *Conn) SetName(ctx context.Context, name string) error {
	if err := c.conn.Do(ctx, "CLIENT", "SETNAME", name).Err(); err != nil {
		return fmt.Errorf("%s: CLIENT SETNAME: %w", c.Address, err)
	}
	return nil
}

// KillOthers closes the administrator's connections whose names begin with prefix,
// except those of this name. The server executes nothing any more that it got, or
// gets, on one of them. It tells how many there were.
func (c *Conn) KillOthers(ctx context.Context, prefix, name string) (int, error) {
	list, err := c.conn.Do(ctx, "CLIENT", "LIST", "TYPE", "normal").Text()
	if err != nil {
		return 0, fmt.Errorf("%s: CLIENT LIST: %w", c.Address, err)
	}
	var kill [][]any
	for _, id := range adminsOf(list, prefix, name) {
		kill = append(kill, []any{"CLIENT", "KILL", "ID", id})
	}
	if len(kill) == 0 {
		return 0, nil
	}
	return len(kill), c.pipeline(ctx, kill...)
}

// adminsOf picks, from the text of CLIENT LIST, the ids of the administrator's
// connections whose names begin with prefix and are not name.
func adminsOf(list, prefix, name string) (ids []string) {
	for line := range strings.Lines(list) {
		var id, called, user string
		for field := range strings.FieldsSeq(line) {
			key, value, _ := strings.Cut(field, "=")
			switch key {
			case "id":
				id = value
			case "name":
				called = value
			case "user":
				user = value
			}
		}
		if user == credentials.AdminUser && strings.HasPrefix(called, prefix) && called != name {
			ids = append(ids, id)
		}
	}
	return ids
}

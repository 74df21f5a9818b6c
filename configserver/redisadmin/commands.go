package redisadmin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Read asks INFO anew.
func (c *Conn) Read(ctx context.Context) (Info, error) {
	text, err := c.conn.Info(ctx).Result()
	if err != nil {
		return Info{}, fmt.Errorf("%s: INFO: %w", c.Address, err)
	}
	c.Info = ParseInfo(text)
	return c.Info, nil
}

// Replication asks INFO replication and merges it into what is known.
func (c *Conn) Replication(ctx context.Context) (Info, error) {
	text, err := c.conn.Info(ctx, "replication").Result()
	if err != nil {
		return Info{}, fmt.Errorf("%s: INFO replication: %w", c.Address, err)
	}
	c.Info = c.Info.Merge(ParseInfo(text))
	return c.Info, nil
}

// Follow makes the server a replica of address. Its data will be replaced by
// the master's unless they share history.
func (c *Conn) Follow(ctx context.Context, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	return c.pipeline(ctx, []any{"REPLICAOF", host, port})
}

// Promote makes the server a master; a master stays one. A replica keeps its
// data and its history, so that its siblings can follow it without a full copy.
func (c *Conn) Promote(ctx context.Context) error {
	return c.pipeline(ctx, []any{"REPLICAOF", "NO", "ONE"})
}

// Config sets parameters, in order of name, value, name, value.
func (c *Conn) Config(ctx context.Context, pairs ...string) error {
	commands := make([][]any, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		commands = append(commands, []any{"CONFIG", "SET", pairs[i], pairs[i+1]})
	}
	return c.pipeline(ctx, commands...)
}

// SetConfig sets parameters with one CONFIG SET: all of them or, when the
// server refuses one, none. refusal is then the server's error as it said it,
// "" when it took them.
func (c *Conn) SetConfig(ctx context.Context, settings []topology.Setting) (refusal string, err error) {
	if err := c.mayChange(ctx); err != nil {
		return "", err
	}
	args := []any{"CONFIG", "SET"}
	for _, s := range settings {
		args = append(args, s.Name, s.Value)
	}
	err = c.conn.Do(ctx, args...).Err()
	var reply redis.Error
	if errors.As(err, &reply) && !errors.Is(err, redis.Nil) {
		return reply.Error(), nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: CONFIG SET: %w", c.Address, err)
	}
	return "", nil
}

// Parameter reads one parameter of the configuration.
func (c *Conn) Parameter(ctx context.Context, name string) (string, error) {
	values, err := c.conn.ConfigGet(ctx, name).Result()
	if err != nil {
		return "", fmt.Errorf("%s: CONFIG GET: %w", c.Address, err)
	}
	return values[name], nil
}

// BackgroundSave begins to write an RDB file, as dbfilename says, or puts it off until
// a rewrite of the append-only file has ended.
func (c *Conn) BackgroundSave(ctx context.Context) error {
	return c.pipeline(ctx, []any{"BGSAVE", "SCHEDULE"})
}

// PauseWrites holds every write, expiry and eviction for at most d, so that
// the replication offset stands still.
func (c *Conn) PauseWrites(ctx context.Context, d time.Duration) error {
	return c.pipeline(ctx, []any{"CLIENT", "PAUSE", strconv.FormatInt(d.Milliseconds(), 10), "WRITE"})
}

// Unpause ends PauseWrites.
func (c *Conn) Unpause(ctx context.Context) error {
	return c.pipeline(ctx, []any{"CLIENT", "UNPAUSE"})
}

// Users lists the ACL users.
func (c *Conn) Users(ctx context.Context) ([]string, error) {
	users, err := c.conn.Do(ctx, "ACL", "USERS").StringSlice()
	if err != nil {
		return nil, fmt.Errorf("%s: ACL USERS: %w", c.Address, err)
	}
	return users, nil
}

// DefaultUser asks what the default user is.
func (c *Conn) DefaultUser(ctx context.Context) (DefaultUser, error) {
	lines, err := c.conn.Do(ctx, "ACL", "LIST").StringSlice()
	if err != nil {
		return DefaultUser{}, fmt.Errorf("%s: ACL LIST: %w", c.Address, err)
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "user default ") {
			return DefaultUserOf(line), nil
		}
	}
	return DefaultUser{}, nil
}

// GrantReplication switches the replicas' user on, with exactly these passwords.
func (c *Conn) GrantReplication(ctx context.Context, passwords ...string) error {
	args := []any{"ACL", "SETUSER", credentials.ReplicationUser, "reset", "on", "resetchannels", "-@all", "+psync", "+replconf", "+ping"}
	for _, p := range passwords {
		args = append(args, "#"+hash(p))
	}
	return c.pipeline(ctx, args)
}

// SetMark makes the server say which node it is, and nothing else.
func (c *Conn) SetMark(ctx context.Context, mark string) error {
	users, err := c.Users(ctx)
	if err != nil {
		return err
	}
	var commands [][]any
	for _, u := range users {
		if topology.IsMark(u) && u != mark {
			commands = append(commands, []any{"ACL", "DELUSER", u})
		}
	}
	if mark != "" && !slices.Contains(users, mark) {
		commands = append(commands, []any{"ACL", "SETUSER", mark, "reset"})
	}
	if len(commands) == 0 {
		return nil
	}
	return c.pipeline(ctx, commands...)
}

// AllowAdmin makes the server accept one more admin password.
func (c *Conn) AllowAdmin(ctx context.Context, password string) error {
	return c.pipeline(ctx, []any{"ACL", "SETUSER", credentials.AdminUser, "on", "#" + hash(password)})
}

// OnlyAdmin makes the server accept this admin password and no other. The
// connection stays logged in.
func (c *Conn) OnlyAdmin(ctx context.Context, password string) error {
	return c.pipeline(ctx, []any{"ACL", "SETUSER", credentials.AdminUser, "resetpass", "#" + hash(password)})
}

// Revoke shuts users out: it switches them off, closes their connections and
// forgets them. Users that do not exist are skipped.
func (c *Conn) Revoke(ctx context.Context, users ...string) error {
	existing, err := c.Users(ctx)
	if err != nil {
		return err
	}
	return c.revoke(ctx, slices.DeleteFunc(slices.Clone(users), func(u string) bool { return !slices.Contains(existing, u) }))
}

// revoke is Revoke for users that exist.
func (c *Conn) revoke(ctx context.Context, users []string) error {
	if len(users) == 0 {
		return nil
	}
	return c.pipeline(ctx, revocation(users)...)
}

// revocation are the commands that shut users out. Those of applications may be
// thousands; DELUSER alone closes their connections, too, a moment later.
func revocation(users []string) (commands [][]any) {
	if len(users) == 0 {
		return nil
	}
	all := []any{"ACL", "DELUSER"}
	for _, user := range users {
		all = append(all, user)
		if !credentials.IsProxyUser(user) || !strings.Contains(user, ":") {
			commands = append(commands, []any{"ACL", "SETUSER", user, "off"}, []any{"CLIENT", "KILL", "USER", user})
		}
	}
	return append(commands, all)
}

// RevokeUsers removes users of applications, and closes their connections.
func (c *Conn) RevokeUsers(ctx context.Context, users []string) error { return c.revoke(ctx, users) }

// Keys counts the keys in all databases.
func (c *Conn) Keys(ctx context.Context) (int64, error) {
	text, err := c.conn.Info(ctx, "keyspace").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("%s: INFO keyspace: %w", c.Address, err)
	}
	return max(0, ParseInfo(text).Keys), nil
}

func hash(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}

// RevokeReplication shuts replicas out.
func (c *Conn) RevokeReplication(ctx context.Context) error {
	return c.Revoke(ctx, credentials.ReplicationUser)
}

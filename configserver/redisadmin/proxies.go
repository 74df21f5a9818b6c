package redisadmin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/basalt-redis/basalt/configserver/credentials"
)

// Proxies are the users by which proxies log in to the servers of one shard: one for
// each seat of the cluster (credentials.ProxyUser), and those of applications.
type Proxies struct {
	Generation uint64
	// Seats are the versions of the seats. Held are the numbers of those that proxies
	// have; when set, the users of others are granted later: a user has so many rules
	// that a server is busy with it for a tenth of a millisecond.
	Seats []uint32
	Held  []int
	// Key makes the passwords of seats (credentials.SeatKey); Scripts is that of the
	// users of applications.
	Key, Scripts string
	// Leaving are seats of before that may stay where they are, for a moment. They
	// are not granted.
	Leaving []credentials.Seat
	// Users are those of applications that are granted. A server may have others of
	// the generation (MatchUsers), unless Alone: then those must go, too.
	Users []NodeUser
	Alone bool
}

// Match tells if a server lets proxies of the generation in at all, and if it has
// exactly the users that it should have, without those of applications.
func (p *Proxies) Match(users []string) (letsIn, exact bool) {
	found := 0
	exact = true
	for _, user := range users {
		switch {
		case !credentials.IsProxyUser(user):
		case p.isSeat(user):
			found++
		case !p.stays(user):
			exact = false
		}
	}
	return found > 0, exact && found == len(p.Seats)
}

// isSeat tells if a user is that of a seat in its present version.
func (p *Proxies) isSeat(user string) bool {
	seat, ok := credentials.SeatOf(user, p.Generation)
	return ok && seat.Number < len(p.Seats) && p.Seats[seat.Number] == seat.Version
}

// stays tells if a user of proxies that is not of a seat may be there.
func (p *Proxies) stays(user string) bool {
	if strings.HasPrefix(user, credentials.ScriptUser(p.Generation)+":") {
		return !p.Alone
	}
	seat, ok := credentials.SeatOf(user, p.Generation)
	return ok && slices.Contains(p.Leaving, seat)
}

// stale picks the users of proxies that must go; all of them when p is nil.
func (p *Proxies) stale(users []string) (stale []string) {
	for _, user := range users {
		if credentials.IsProxyUser(user) && (p == nil || !p.isSeat(user) && !p.stays(user)) {
			stale = append(stale, user)
		}
	}
	return stale
}

// missing are the commands that make the users of seats that a server does not have.
func (p *Proxies) missing(users []string) (commands [][]any) {
	has := make([]bool, len(p.Seats))
	for _, user := range users {
		if p.isSeat(user) {
			seat, _ := credentials.SeatOf(user, p.Generation)
			has[seat.Number] = true
		}
	}
	for i, version := range p.Seats {
		if !has[i] && (p.Held == nil || slices.Contains(p.Held, i)) {
			seat := credentials.Seat{Number: i, Version: version}
			args := append([]any{"ACL", "SETUSER", credentials.ProxyUser(p.Generation, seat)}, proxyRules...)
			commands = append(commands, append(args, "#"+hash(credentials.SeatPassword(p.Key, seat))))
		}
	}
	return commands
}

// What a proxy must not do: change roles, users, code or configuration, or
// dump and move data behind the Configserver's back. Servers before 7.0 know no rule
// that takes a subcommand away, so the command goes and what is harmless of it returns.
var proxyRules = []any{
	"reset", "on", "~*", "&*", "+@all",
	"-acl", "-replicaof", "-slaveof", "-failover", "-shutdown", "-psync", "-sync", "-replconf",
	"-module", "+module|list", "+module|help", "-debug", "-cluster", "-config", "+config|get", "+config|resetstat", "+config|help",
	"-save", "-swapdb", "-migrate",
	// What the proxies pass on of DEBUG. A server refuses all of it unless it was
	// started with enable-debug-command.
	"+debug|digest", "+debug|digest-value", "+debug|error", "+debug|help", "+debug|htstats", "+debug|htstats-key",
	"+debug|listpack", "+debug|loadaof", "+debug|log", "+debug|object", "+debug|pause-cron", "+debug|protocol",
	"+debug|quicklist", "+debug|quicklist-packed-threshold", "+debug|reload", "+debug|replybuffer", "+debug|sdslen",
	"+debug|set-active-expire", "+debug|set-disable-deny-scripts", "+debug|set-skip-checksum-validation", "+debug|sleep",
	"+debug|structsize",
}

// Connected are the users that connections to the server are of now.
func (c *Conn) Connected(ctx context.Context) (map[string]bool, error) {
	text, err := c.conn.ClientList(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("%s: CLIENT LIST: %w", c.Address, err)
	}
	users := map[string]bool{}
	for line := range strings.Lines(text) {
		if _, rest, ok := strings.Cut(line, " user="); ok {
			user, _, _ := strings.Cut(rest, " ")
			users[strings.TrimSpace(user)] = true
		}
	}
	return users, nil
}

// GrantProxies makes the users that the server does not have, those of applications
// included. Of these, it leaves out what the server does not take.
func (c *Conn) GrantProxies(ctx context.Context, p *Proxies) error {
	users, err := c.Users(ctx)
	if err != nil {
		return err
	}
	return c.grantProxies(ctx, p, users, nil)
}

// OnlyProxies is GrantProxies, and shuts out all other proxies, first and in the same
// write.
func (c *Conn) OnlyProxies(ctx context.Context, p *Proxies) error {
	users, err := c.Users(ctx)
	if err != nil {
		return err
	}
	return c.grantProxies(ctx, p, users, revocation(p.stale(users)))
}

// GrantMissing is GrantProxies for a server that has just these users.
func (c *Conn) GrantMissing(ctx context.Context, p *Proxies, users []string) error {
	return c.grantProxies(ctx, p, users, nil)
}

// grantProxies sends commands, and what is missing on a server that has users.
func (c *Conn) grantProxies(ctx context.Context, p *Proxies, users []string, commands [][]any) error {
	missing, _ := MatchUsers(users, p.Generation, p.Users)
	_, err := c.grantUsers(ctx, append(commands, p.missing(users)...), p.Generation, p.Scripts, missing)
	return err
}

// RevokeProxies shuts out all proxies but those that keep names; nil for none. left
// are the users that stay.
func (c *Conn) RevokeProxies(ctx context.Context, keep *Proxies) (left []string, err error) {
	users, err := c.Users(ctx)
	if err != nil {
		return nil, err
	}
	stale := keep.stale(users)
	if err := c.revoke(ctx, stale); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(users, func(u string) bool { return slices.Contains(stale, u) }), nil
}

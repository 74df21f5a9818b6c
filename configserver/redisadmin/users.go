package redisadmin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/internal/acl"
)

// Users of applications at the servers.
//
// Goal: the script of a user with limits may do in a server what the user may do,
// and nobody gets into a server by that.
//
//  1. For each set of rights that some user with limits has who may run scripts, a
//     server has a user beside the proxies' of a generation: "basalt-proxy-7:" and
//     the name of the rights (acl.Rights). Its password is known to the proxies of
//     that generation, never to an application: so only a proxy can become it, and
//     what shuts out the proxies of a generation shuts it out, too (Proxies).
//  2. Its rights never change, for other rights have another name. A proxy that
//     obeys the newest users asks for those rights, and no server can give it the
//     rights of before. Users that nobody has any more are removed later.
//  3. It may do what the application's user may do, but nothing that the proxies may
//     not. It may also send what the proxies put around scripts (inner); none of that
//     can be run by a script.
//
// A user of rights that a server does not understand is left out: the scripts of
// such users wait, and are refused.

// NodeUser is a user of applications as servers have it.
type NodeUser struct {
	// Rights name it.
	Rights string
	// rules are arguments of ACL SETUSER; older are those without commands that old
	// servers do not know, nil when there are no such.
	rules, older []string
}

// outer are the rules that take from a user what the proxies may not do.
var outer = []string{
	"-acl", "-replicaof", "-slaveof", "-failover", "-shutdown", "-psync", "-sync", "-replconf",
	"-module", "-debug", "-cluster", "-config", "-save", "-swapdb", "-migrate",
}

// inner are the rules for what the proxies send around a script. Servers let no
// script run any of it.
var inner = []string{"+multi", "+exec", "+discard", "+watch", "+unwatch", "+script|load", "+client|caching"}

// NodeUsers are the users that servers need for the users of applications with these
// texts (acl.User.Text), by the names of their rights. A user that is off has one,
// for its open connections go on. Texts that cannot be understood have none.
func NodeUsers(texts []string) []NodeUser {
	var users []NodeUser
	for _, text := range texts {
		u, err := acl.Parse(text)
		if err != nil || u.Full() || !u.RunsScripts() {
			continue
		}
		n := NodeUser{Rights: acl.Rights(text), rules: append(u.Modifiers(nil, outer...), inner...)}
		older := append(u.Modifiers(func(c acl.Command) bool { return !c.Later }, outer...), inner...)
		if !slices.Equal(older, n.rules) {
			n.older = older
		}
		users = append(users, n)
	}
	slices.SortFunc(users, func(a, b NodeUser) int { return strings.Compare(a.Rights, b.Rights) })
	return slices.CompactFunc(users, func(a, b NodeUser) bool { return a.Rights == b.Rights })
}

// set is the ACL SETUSER of a user. It is one command, so the user is never seen
// with other rights.
func (u *NodeUser) set(rules []string, generation uint64, password string) []any {
	args := []any{"ACL", "SETUSER", acl.NodeUser(credentials.ScriptUser(generation), u.Rights), "reset", "on", "#" + hash(password)}
	for _, rule := range rules {
		args = append(args, rule)
	}
	return args
}

// GrantUsers makes users of applications beside the proxies' of a generation.
// refused are the server's words about those that it does not take.
func (c *Conn) GrantUsers(ctx context.Context, generation uint64, password string, users []NodeUser) (refused []string, err error) {
	return c.grantUsers(ctx, nil, generation, password, users)
}

// grantUsers sends commands, none of which may fail, and users.
func (c *Conn) grantUsers(ctx context.Context, commands [][]any, generation uint64, password string, users []NodeUser) (refused []string, err error) {
	must := len(commands)
	for i := range users {
		commands = append(commands, users[i].set(users[i].rules, generation, password))
	}
	replies, err := c.send(ctx, commands)
	if err != nil {
		return nil, err
	}
	var again [][]any
	for i, err := range replies {
		switch {
		case err == nil:
		case i < must:
			return nil, fmt.Errorf("%s: %s: %w", c.Address, name(commands[i]), err)
		case users[i-must].older != nil:
			u := &users[i-must]
			again = append(again, u.set(u.older, generation, password))
		default:
			refused = append(refused, err.Error())
		}
	}
	if len(again) == 0 {
		return refused, nil
	}
	replies, err = c.send(ctx, again)
	for _, err := range replies {
		if err != nil {
			refused = append(refused, err.Error())
		}
	}
	return refused, err
}

// send asks Guard (mayChange) and sends commands in one write. replies are the errors that the
// server answered with; err is one of the connection.
func (c *Conn) send(ctx context.Context, commands [][]any) (replies []error, err error) {
	if len(commands) == 0 {
		return nil, nil
	}
	if err := c.mayChange(ctx); err != nil {
		return nil, err
	}
	cmds, err := c.conn.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, args := range commands {
			p.Do(ctx, args...)
		}
		return nil
	})
	var said redis.Error
	if err != nil && !errors.As(err, &said) {
		return nil, fmt.Errorf("%s: %w", c.Address, err)
	}
	for _, cmd := range cmds {
		err := cmd.Err()
		if err != nil && !errors.As(err, &said) {
			return nil, fmt.Errorf("%s: %s: %w", c.Address, name(cmd.Args()), err)
		}
		replies = append(replies, err)
	}
	return replies, nil
}

// MatchUsers compares the users of applications of a generation that a server has
// with those that it should have: missing are those that it does not have, surplus
// the names of those that nobody needs.
func MatchUsers(has []string, generation uint64, want []NodeUser) (missing []NodeUser, surplus []string) {
	prefix := acl.NodeUser(credentials.ScriptUser(generation), "")
	found := map[string]bool{}
	for _, user := range has {
		rights, ok := strings.CutPrefix(user, prefix)
		if !ok {
			continue
		}
		if _, found[rights] = slices.BinarySearchFunc(want, rights, func(u NodeUser, rights string) int { return strings.Compare(u.Rights, rights) }); !found[rights] {
			surplus = append(surplus, user)
		}
	}
	for _, u := range want {
		if !found[u.Rights] {
			missing = append(missing, u)
		}
	}
	return missing, surplus
}

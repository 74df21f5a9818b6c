package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// The users of applications.
//
// Goal: when a change was answered, no proxy lets anybody do what it takes away.
//
//  1. The change is an epoch like any other: one commit, fenced by the lease.
//     Proxies get it by their stream, and acknowledge it when every client of
//     theirs has its new rights.
//  2. The answer waits for the acks. A proxy that is connected gets usersAck,
//     one that is away the policy's ack timeout.
//  3. A proxy that did not say so may be cut off from here and still serve by the
//     rights it knew. The servers know the proxies: it loses its seat, and every
//     shard shuts it out (seats.go). Nobody waits for it again, until it obeys.
//     Meanwhile the nodes are told what scripts may do (nodeusers.go).
//  4. If that is not possible now (a shard is failing over), the answer says so.
//     The change stays; asking for it again waits again.
//
// What may be lost: nothing. A request that a proxy let in before is carried out.

// usersAck is how long a connected proxy gets to obey a change of users.
const usersAck = 3 * time.Second

// Users implements API.
func (l *Loop) Users() []topology.User {
	c := l.Topology()
	return c.EffectiveUsers(l.filePasswords(&c))
}

// filePasswords are the default user's passwords on file.
func (l *Loop) filePasswords(c *topology.Cluster) [][]byte {
	return l.Credentials().ClientPasswordSHA256ByIDs(c.ClientSecretIDs)
}

// SetUser implements API.
func (l *Loop) SetUser(ctx context.Context, name string, modifiers []string) (topology.Cluster, error) {
	c, err := l.changeUsers(ctx, "UserChanged", fmt.Sprintf("user %.100q changed", name), func(c *topology.Cluster) error {
		return c.SetUser(name, modifiers, l.filePasswords(c))
	})
	return c, err
}

// DeleteUsers implements API.
func (l *Loop) DeleteUsers(ctx context.Context, names []string) (deleted int, c topology.Cluster, err error) {
	c, err = l.changeUsers(ctx, "UsersDeleted", deletion(names), func(c *topology.Cluster) error {
		deleted = c.DeleteUsers(names)
		return nil
	})
	return deleted, c, err
}

// deletion says which users are deleted, in a few words: anybody may name many
// that do not exist, and the text is kept three times.
func deletion(names []string) string {
	size := 0
	for _, name := range names {
		size += len(name)
	}
	if size > 500 {
		return fmt.Sprintf("%d users deleted", len(names))
	}
	return fmt.Sprintf("users %q deleted", names)
}

// changeUsers commits a change of users and waits until it is obeyed.
func (l *Loop) changeUsers(ctx context.Context, kind, what string, change func(c *topology.Cluster) error) (topology.Cluster, error) {
	c, err := l.Commit(ctx, what, func(c *topology.Cluster) ([]topology.Event, error) {
		if c.Phase == topology.Deleting {
			return nil, topology.Preconditionf("cluster %s is being deleted", c.Name)
		}
		before := c.Clone()
		if err := change(c); err != nil {
			return nil, err
		}
		message := strings.Join(append([]string{what}, userChanges(&before, c)...), "; ")
		return []topology.Event{{Time: time.Now(), Kind: kind, Severity: topology.Info, Epoch: c.Epoch, Message: cut(message)}}, nil
	})
	if err != nil {
		return topology.Cluster{}, err
	}
	if err := l.cfg.Faults.Hit("users/committed"); err != nil {
		return c, err
	}
	pushed := make(chan struct{})
	if err := l.do(ctx, func() {
		l.spawn(func() {
			defer close(pushed)
			l.pushUsers(l.life)
		})
	}); err != nil {
		close(pushed)
	}
	late := l.AwaitAcks(ctx, "", c.Epoch, usersAck, c.Policy.AckTimeout)
	select {
	case <-pushed:
	case <-ctx.Done():
	}
	err = ctx.Err()
	if err == nil && len(late) > 0 {
		err = l.shutOut(ctx, late, c.Epoch)
	}
	if err == nil {
		err = l.Owned() // AwaitAcks ends with the loop, too
	}
	if err != nil {
		return c, topology.Preconditionf("%s at epoch %d, but not every proxy obeys yet (%v): until then one may let old rights pass; ask for the same again to wait for it", what, c.Epoch, err)
	}
	return c, nil
}

// shutOut takes the credentials of proxies that do not obey an epoch away from them.
func (l *Loop) shutOut(ctx context.Context, late []string, epoch uint64) error {
	l.log.Warn("proxies do not obey a change of users: shuts them out", "proxies", late)
	if err := l.ShutOut(ctx, late, false); err != nil {
		return err
	}
	return l.awaitFenced(ctx, late, epoch)
}

package failover

import (
	"context"
	"sync"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
)

// One owner at a time changes a server.
//
// A look at the lease comes before every command that changes a server, but a
// process may be stopped for minutes between the look and the command. It then
// sends it when somebody else has owned the cluster for long.
//
//  1. Every connection on which something is changed is named after the ownership,
//     and the name is set before the look at the lease. So whoever may still send a
//     command by a look of before has a name at the server.
//  2. Before an owner changes a server for the first time, it closes all connections
//     of others that are named like that. The server executes nothing that comes on
//     them later.
//  3. What is dialed after that looks at the lease after that, and is refused.
//
// Once for each incarnation is enough: a server that restarted has no connections of
// before.

// namePrefix begins the names of connections that change servers.
const namePrefix = "basalt-control:"

// Owner is one ownership of a cluster, and what it knows of the servers.
type Owner struct {
	name string

	mu    sync.Mutex
	alone map[string]bool // by run_id
}

// NewOwner is an owner for a Configserver; ownership differs each time that it owns
// the cluster.
func NewOwner(configserver, ownership string) *Owner {
	return &Owner{name: namePrefix + configserver + ":" + ownership, alone: map[string]bool{}}
}

// takeOver names a connection and ends those of other owners.
func (x *Executor) takeOver(ctx context.Context, c *redisadmin.Conn) error {
	o := x.host.Owner()
	if err := c.SetName(ctx, o.name); err != nil {
		return err
	}
	o.mu.Lock()
	alone := o.alone[c.Info.RunID]
	o.mu.Unlock()
	if alone {
		return nil
	}
	others, err := c.KillOthers(ctx, namePrefix, o.name)
	if err != nil {
		return err
	}
	if others > 0 {
		x.log.Info("closed the connections of an earlier owner of the cluster", "address", c.Address, "connections", others)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.alone[c.Info.RunID] = true
	return nil
}

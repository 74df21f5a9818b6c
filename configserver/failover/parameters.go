package failover

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// Refused is a parameter that a server does not take, with what it said.
type Refused struct{ Name, Reply string }

// SetParameters sends one CONFIG SET to the admitted incarnation of a node of
// any shard. refusal is the server's error reply, "" when it took all; nothing
// was set otherwise. The connection is kept for the next time, so one that broke
// meanwhile is replaced: to set the same again does no harm.
func (x *Executor) SetParameters(ctx context.Context, n *topology.Node, settings []topology.Setting) (refusal string, err error) {
	err = x.with(ctx, n, func(c *redisadmin.Conn) error {
		refusal, err = c.SetConfig(ctx, settings)
		return err
	})
	return refusal, err
}

// Parameters reads parameters of a node.
func (x *Executor) Parameters(ctx context.Context, n *topology.Node, names []string) (settings []topology.Setting, err error) {
	err = x.with(ctx, n, func(c *redisadmin.Conn) error {
		settings = nil
		for _, name := range names {
			value, err := c.Parameter(ctx, name)
			if err != nil {
				return err
			}
			settings = append(settings, topology.Setting{Name: name, Value: value})
		}
		return nil
	})
	return settings, err
}

// ApplySettings gives a node all settings of its cluster, and returns those
// that its server does not take. Afterwards it answers BUSY in time (BusyLimit).
// An error of the server about the moment (Transient) is an error.
func (x *Executor) ApplySettings(ctx context.Context, n *topology.Node, record *topology.Cluster) (refused []Refused, err error) {
	err = x.with(ctx, n, func(c *redisadmin.Conn) error {
		refused, err = applySettings(ctx, c, record.Settings)
		if err != nil {
			return err
		}
		for _, r := range refused {
			if Transient(r.Reply) {
				return fmt.Errorf("%s: %s", n.ID, r.Reply)
			}
		}
		pairs, err := lowerBusy(ctx, c, record.Policy)
		if err != nil || len(pairs) == 0 {
			return err
		}
		return c.Config(ctx, pairs...)
	})
	return refused, err
}

// Retain closes the connections to nodes that are not of a cluster any more.
func (x *Executor) Retain(c *topology.Cluster) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, conn := range x.conns {
		if _, n := c.Node(id); n == nil || n.Incarnation != conn.Info.RunID {
			conn.Close()
			delete(x.conns, id)
		}
	}
}

// with calls f with the connection to a node, and once more with a new one when
// it failed.
func (x *Executor) with(ctx context.Context, n *topology.Node, f func(c *redisadmin.Conn) error) error {
	var err error
	for range 2 {
		if err := x.host.Owned(); err != nil {
			return err
		}
		bounded, cancel := context.WithTimeout(ctx, redisadmin.CallTimeout)
		var c *redisadmin.Conn
		if c, err = x.conn(bounded, n, redisadmin.CallTimeout); err == nil {
			if err = f(c); err != nil {
				x.drop(n.ID)
			}
		}
		timedOut := bounded.Err() != nil
		cancel()
		if err == nil || timedOut {
			return err
		}
	}
	return err
}

// applySettings sets parameters in one go. When the server refuses that, each half
// is set alone, and so on, so that those it does not take do not keep it from the
// rest: of many parameters, a few that are refused cost a few calls each. What is
// refused for the moment only (Transient) ends it.
func applySettings(ctx context.Context, c configSetter, settings []topology.Setting) (refused []Refused, err error) {
	if len(settings) == 0 {
		return nil, nil
	}
	reply, err := c.SetConfig(ctx, settings)
	switch {
	case err != nil || reply == "":
		return nil, err
	case len(settings) == 1 || Transient(reply):
		return []Refused{{settings[0].Name, reply}}, nil
	}
	half := len(settings) / 2
	for _, part := range [][]topology.Setting{settings[:half], settings[half:]} {
		some, err := applySettings(ctx, c, part)
		if err != nil {
			return nil, err
		}
		if refused = append(refused, some...); anyTransient(some) {
			break
		}
	}
	return refused, nil
}

// configSetter sends one CONFIG SET, as a redisadmin.Conn does.
type configSetter interface {
	SetConfig(ctx context.Context, settings []topology.Setting) (refusal string, err error)
}

func anyTransient(refused []Refused) bool {
	return slices.ContainsFunc(refused, func(r Refused) bool { return Transient(r.Reply) })
}

// Transient tells if an error reply is about the moment, and not about what was
// asked.
func Transient(reply string) bool {
	return strings.HasPrefix(reply, "BUSY ") || strings.HasPrefix(reply, "LOADING ") || strings.HasPrefix(reply, "ERR max number of clients")
}

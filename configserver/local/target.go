package local

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// Targets are named as people speak of them:
//
//	shard-0/master    whoever is master now
//	shard-0/replica   its first replica; shard-0/replicas for all of them
//	shard-0-1 proxy-0 configserver-0 etcd
//	shard-0           all nodes of the shard
//	nodes proxies configservers
//
// Roles are asked of the Configservers. When none answers, nobody can change
// roles either, so the last known ones still hold.

// resolve returns the processes a target names, at least one.
func (g *playground) resolve(ctx context.Context, target string) ([]*process, error) {
	for _, p := range g.processes {
		if p.name == target {
			return []*process{p}, nil
		}
	}
	switch target {
	case "nodes":
		return g.ofKind(KindNode), nil
	case "proxies":
		return g.ofKind(KindProxy), nil
	case "configservers":
		return g.ofKind(KindConfigserver), nil
	}
	shard, role, hasRole := strings.Cut(target, "/")
	nodes := g.nodesOf(shard)
	if len(nodes) == 0 || hasRole && !slices.Contains([]string{"master", "replica", "replicas"}, role) {
		return nil, fmt.Errorf("no target %q; there are shard-0/master, shard-0/replica and %s", target, g.names())
	}
	if !hasRole {
		return nodes, nil
	}
	g.refreshTopology(ctx, 500*time.Millisecond)
	s := g.shard(shard)
	if s == nil {
		return nil, fmt.Errorf("the roles in %s are not known yet; name a node, as in %s", shard, nodes[0].name)
	}
	var out []*process
	for _, p := range nodes {
		isMaster := p.name == s.GetMaster()
		registered := slices.ContainsFunc(s.GetNodes(), func(n *basaltv1.Node) bool { return n.GetId() == p.name })
		if registered && isMaster == (role == "master") {
			out = append(out, p)
		}
	}
	switch {
	case len(out) == 0 && role == "master":
		return nil, fmt.Errorf("%s has no master right now; name a node, as in %s", shard, nodes[0].name)
	case len(out) == 0:
		return nil, fmt.Errorf("%s has no replica", shard)
	case role == "replica":
		out = out[:1]
	}
	return out, nil
}

// nodesOf returns the node processes of a shard.
func (g *playground) nodesOf(shard string) []*process {
	var out []*process
	for _, p := range g.ofKind(KindNode) {
		if shardOf(p.name) == shard {
			out = append(out, p)
		}
	}
	return out
}

// shardOf returns the shard of a node id: "shard-0" of "shard-0-1".
func shardOf(node string) string {
	if i := strings.LastIndexByte(node, '-'); i > 0 {
		return node[:i]
	}
	return ""
}

func (g *playground) shard(id string) *basaltv1.Shard {
	for _, s := range g.topology.Load().GetShards() {
		if s.GetId() == id {
			return s
		}
	}
	return nil
}

// roleOf returns what a node was when last heard of: "master", "replica" or "".
func (g *playground) roleOf(node string) string {
	s := g.shard(shardOf(node))
	switch {
	case s == nil:
		return ""
	case s.GetMaster() == node:
		return "master"
	}
	return "replica"
}

func (g *playground) names() string {
	var names []string
	for _, p := range g.processes {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

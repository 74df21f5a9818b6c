package local

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/internal/slot"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// formWithin bounds how long a playground may take to serve. A kept data
// directory with much data in it loads longer than an empty one.
const formWithin = 3 * time.Minute

// form brings the playground from nothing to serving:
//
//  1. etcd, when it is a process of its own, since Configservers need it;
//  2. Configservers, and the cluster is created: what it is called is part of what
//     servers say of themselves from their start on;
//  3. redis-servers (beside 2 when an earlier run created the cluster, so that nobody
//     misses them), and the proxies, which follow the cluster from its first epoch;
//  4. its nodes are registered, first those that become masters; what an
//     earlier run did is found and left as it is;
//  5. done when a value can be written and read in every shard at every proxy.
func (g *playground) form(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, formWithin, fmt.Errorf("the playground did not serve within %v", formWithin))
	defer cancel()

	if err := g.startAll(KindEtcd); err != nil {
		return err
	}
	for _, p := range g.ofKind(KindEtcd) {
		g.out.Progress("waiting for etcd")
		err := g.until(ctx, func() string {
			conn, err := net.DialTimeout("tcp", p.address, time.Second)
			if err != nil {
				return "etcd does not listen yet"
			}
			conn.Close()
			return ""
		})
		if err != nil {
			return err
		}
	}
	first := []Kind{KindConfigserver}
	if g.layout.ClusterUID != "" {
		first = append(first, KindNode) // that of a run before: servers know who they are
	}
	if err := g.startAll(first...); err != nil {
		return err
	}
	clusters := basaltv1.NewClusterServiceClient(g.conn)
	err := g.until(ctx, func() string {
		_, err := clusters.ListClusters(ctx, &basaltv1.ListClustersRequest{})
		if status.Code(err) == codes.Unavailable {
			return "the configserver does not answer yet"
		}
		return explain("the configserver does not answer", err)
	})
	if err != nil {
		return err
	}
	if err := g.createCluster(ctx, clusters); err != nil {
		return err
	}
	rest := []Kind{KindNode, KindProxy}
	if len(first) > 1 {
		rest = rest[1:]
	}
	if err := g.startAll(rest...); err != nil {
		return err
	}
	if err := g.nodesAnswer(ctx); err != nil {
		return err
	}
	if err := g.registerNodes(ctx, clusters); err != nil {
		return err
	}
	err = g.until(ctx, func() string {
		s, err := clusters.GetStatus(ctx, &basaltv1.GetStatusRequest{Cluster: Cluster})
		switch {
		case err != nil:
			return explain("no status of the cluster", err)
		case s.GetProgress() != "":
			return s.GetProgress()
		case s.GetCluster().GetPhase() != basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING:
			return "the cluster is forming"
		}
		return ""
	})
	if err != nil {
		return err
	}
	err = g.until(ctx, func() string {
		if !g.refreshTopology(ctx, time.Second) {
			return "the configserver does not tell the topology"
		}
		return ""
	})
	if err != nil {
		return err
	}
	return g.proxiesServe(ctx)
}

func (g *playground) startAll(kinds ...Kind) error {
	for _, p := range g.ofKind(kinds...) {
		if _, err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// until repeats check until it returns nothing; what it returns is shown as
// what is being waited for. A process that died ends the waiting.
func (g *playground) until(ctx context.Context, check func() string) error {
	for {
		waiting := check()
		if waiting == "" {
			return nil
		}
		if ctx.Err() == nil {
			g.out.Progress("waiting: " + waiting)
		}
		select {
		case err := <-g.died:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%w: %s; logs are in %s", context.Cause(ctx), waiting, g.dir.in("logs"))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// explain joins what is missing and why, in a few words.
func explain(what string, err error) string {
	if err == nil {
		return ""
	}
	return what + " (" + status.Convert(err).Message() + ")"
}

// nodesAnswer waits until every server answers the Configserver's user.
func (g *playground) nodesAnswer(ctx context.Context) error {
	passwords, err := g.dir.adminPasswords()
	if err != nil {
		return err
	}
	for _, p := range g.ofKind(KindNode) {
		client := redisClient(p.address, "basalt-admin", passwords[0])
		err := g.until(ctx, func() string {
			if err := client.Ping(ctx).Err(); err != nil {
				return p.name + " does not answer (" + err.Error() + ")"
			}
			return ""
		})
		client.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// go-redis writes failed dials to stderr; a server that does not answer yet is waited
// for, and the line about that says all.
func init() { logging.Disable() }

// redisClient makes a client that tries once and gives up soon.
func redisClient(address, user, password string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: address, Username: user, Password: password,
		Protocol: 2, DisableIdentity: true, MaxRetries: -1, PoolSize: 1,
		DialTimeout: time.Second, ReadTimeout: 2 * time.Second, WriteTimeout: time.Second,
		ContextTimeoutEnabled: true, DialerRetries: 1,
	})
}

func (g *playground) createCluster(ctx context.Context, clusters basaltv1.ClusterServiceClient) error {
	if g.layout.ClusterUID == "" {
		g.out.Progress("creating the cluster")
	}
	err := g.retry(ctx, "create the cluster", func() error {
		_, err := clusters.CreateCluster(ctx, &basaltv1.CreateClusterRequest{
			Name:          Cluster,
			Shards:        uint32(g.layout.Shards),
			NodesPerShard: uint32(g.layout.Replicas + 1),
		})
		if status.Code(err) == codes.AlreadyExists {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	var c *basaltv1.Cluster
	err = g.retry(ctx, "read the cluster", func() (err error) {
		c, err = clusters.GetCluster(ctx, &basaltv1.GetClusterRequest{Name: Cluster})
		return err
	})
	if err != nil {
		return err
	}
	g.layout.ClusterUID = c.GetUid()
	return g.dir.save(g.layout)
}

func (g *playground) registerNodes(ctx context.Context, clusters basaltv1.ClusterServiceClient) error {
	known := map[string]bool{}
	err := g.retry(ctx, "read the topology", func() error {
		t, err := basaltv1.NewTopologyServiceClient(g.conn).GetTopology(ctx, &basaltv1.GetTopologyRequest{Cluster: Cluster})
		for _, s := range t.GetShards() {
			for _, n := range s.GetNodes() {
				known[n.GetId()] = true
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for number := range g.layout.Replicas + 1 {
		for shard := range g.layout.Shards {
			id := fmt.Sprintf("shard-%d-%d", shard, number)
			if known[id] {
				continue
			}
			g.out.Progress("registering " + id)
			err := g.retry(ctx, "register "+id, func() error {
				_, err := clusters.RegisterNode(ctx, &basaltv1.RegisterNodeRequest{
					Cluster: Cluster,
					Shard:   fmt.Sprintf("shard-%d", shard),
					Node:    id,
					Address: address(g.layout.NodePorts[id]),
				})
				if status.Code(err) == codes.AlreadyExists {
					return nil // registered by the attempt before, whose answer was lost
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// retry repeats a call as long as its error says that this may help.
func (g *playground) retry(ctx context.Context, what string, call func() error) error {
	var last error
	err := g.until(ctx, func() string {
		last = call()
		switch status.Code(last) {
		case codes.OK:
			return ""
		case codes.Unavailable, codes.Aborted, codes.Unknown:
			err := last
			last = nil
			return explain(what, err)
		}
		return ""
	})
	if err == nil && last != nil {
		err = fmt.Errorf("%s: %s", what, status.Convert(last).Message())
	}
	return err
}

// proxiesServe waits until a value can be written and read in every shard at
// every proxy.
func (g *playground) proxiesServe(ctx context.Context) error {
	keys := g.probeKeys()
	password := ""
	if data, err := os.ReadFile(filepath.Join(g.dir.in("credentials", Cluster), "client-password")); err == nil {
		password, _, _ = strings.Cut(strings.TrimSpace(string(data)), "\n")
	}
	for _, p := range g.ofKind(KindProxy) {
		client := redisClient(p.address, "", strings.TrimSpace(password))
		err := g.until(ctx, func() string {
			for _, key := range keys {
				if err := probe(ctx, client, key); err != nil {
					return fmt.Sprintf("%s does not serve slot %d yet (%v)", p.name, slot.Of([]byte(key)), err)
				}
			}
			return ""
		})
		client.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// probe writes a value that nobody else uses, reads it and removes it.
func probe(ctx context.Context, client *redis.Client, key string) error {
	value := time.Now().Format(time.RFC3339Nano)
	if err := client.Set(ctx, key, value, 10*time.Second).Err(); err != nil {
		return err
	}
	got, err := client.Get(ctx, key).Result()
	if err != nil {
		return err
	}
	if got != value {
		return fmt.Errorf("%q was written and %q was read", value, got)
	}
	return client.Del(ctx, key).Err()
}

// probeKeys returns one key for the first and one for the last slot range of
// every shard.
func (g *playground) probeKeys() []string {
	wanted := map[uint16]bool{}
	for _, s := range g.topology.Load().GetShards() {
		for _, r := range s.GetSlots() {
			wanted[uint16(r.GetStart())], wanted[uint16(r.GetEnd())] = true, true
		}
	}
	var keys []string
	for i := 0; len(wanted) > 0; i++ {
		key := fmt.Sprintf("basalt:local:probe:%d", i)
		if s := slot.Of([]byte(key)); wanted[s] {
			delete(wanted, s)
			keys = append(keys, key)
		}
	}
	return keys
}

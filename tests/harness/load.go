package harness

import (
	"context"
	"testing"
	"time"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/consistency"
)

// Load is a verifying load on a cluster whose replicas are read directly, beside
// a plain server whose answers tell the noise of the machine.
type Load struct {
	*consistency.Load
	cluster *Cluster
	stop    func()
}

// StartLoad loads the cluster through its proxies until Stop or the end of the
// test. Addresses and Shards are filled in; the rest of the configuration is the
// caller's.
func (c *Cluster) StartLoad(t testing.TB, cfg consistency.Config) *Load {
	t.Helper()
	if cfg.Addresses == nil {
		cfg.Addresses = c.Proxies
	}
	cfg.Shards = c.Shards(t)
	l, err := consistency.Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start the load: %v", err)
	}
	stop := l.Confirm(t.Context(), consistency.ConfirmConfig{
		Replicas: c.replicas, Username: "basalt-admin", Password: c.AdminPassword(t),
	})
	dismiss, err := l.Witness(t.Context(), StartRedis(t).Address)
	if err != nil {
		t.Fatal(err)
	}
	load := &Load{Load: l, cluster: c, stop: func() { stop(); dismiss() }}
	t.Cleanup(load.Stop)
	return load
}

// Stop ends the load.
func (l *Load) Stop() {
	l.Load.Stop()
	l.stop()
}

// replicas lists the nodes that the newest topology does not call master. While
// no Configserver answers there are none: nothing new counts as confirmed.
func (c *Cluster) replicas() []consistency.ReplicaAddress {
	for _, a := range c.apis {
		ctx, cancel := context.WithTimeout(context.Background(), apiPatience)
		top, err := a.Topology.GetTopology(ctx, &pb.GetTopologyRequest{Cluster: c.Name})
		cancel()
		if err != nil {
			continue
		}
		var all []consistency.ReplicaAddress
		for i, sh := range top.GetShards() {
			for _, n := range sh.GetNodes() {
				if n.GetId() != sh.GetMaster() && sh.GetMaster() != "" {
					all = append(all, consistency.ReplicaAddress{Shard: i, Address: n.GetAddress()})
				}
			}
		}
		return all
	}
	return nil
}

// Judge stops the load, reads every key, and fails the test for every wrong
// value, lost write that had been seen in a replica, or invariant that an epoch
// broke. It returns what the final read found.
func (l *Load) Judge(t testing.TB) consistency.Final {
	t.Helper()
	l.Stop()
	final, err := l.ReadAll(t.Context(), l.cluster.Proxies[0])
	if err != nil {
		t.Error(err)
	}
	texts, n := l.Violations()
	for _, text := range texts {
		t.Error(text)
	}
	if n > len(texts) {
		t.Errorf("… and %d more violations", n-len(texts))
	}
	t.Logf("load: %s; noise of the machine up to %s", l.Timeline().Summary(), l.Noise(0, l.Now()).Round(time.Millisecond))
	t.Logf("final read: %d keys, %d behind the newest acknowledged version, %d violations", final.Keys, final.Behind, n)
	l.cluster.RequireInvariants(t)
	return final
}

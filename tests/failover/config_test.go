package failover

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// requireParameter waits until every node has a parameter's value.
func requireParameter(t *testing.T, c *harness.Cluster, name, value string) {
	t.Helper()
	for _, sh := range c.Topology(t).GetShards() {
		for _, n := range sh.GetNodes() {
			harness.Eventually(t, 10*time.Second, fmt.Sprintf("%s has %s %s", n.GetId(), name, value), func() error {
				conn, err := consistency.Dial(t.Context(), n.GetAddress(), "basalt-admin", c.AdminPassword(t))
				if err != nil {
					return err
				}
				defer conn.Close()
				r, err := conn.Do("CONFIG", "GET", name)
				if err == nil {
					err = r.Err
				}
				if err == nil && (len(r.Array) != 2 || string(r.Array[1].Text) != value) {
					err = fmt.Errorf("it has %v", r.Array)
				}
				return err
			})
		}
	}
}

// TestConfigSetSurvives: a parameter that was set through the proxy is there on
// every node after a failover, after all servers restarted, and after the
// Configserver did.
func TestConfigSetSurvives(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2})
	conn, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begun := time.Now()
	if takesSeveral(t) {
		do(t, conn, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory-samples", "7")
	} else {
		do(t, conn, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
		do(t, conn, "CONFIG", "SET", "maxmemory-samples", "7")
	}
	t.Logf("CONFIG SET took %s", time.Since(begun).Round(time.Millisecond))
	requireParameter(t, c, "maxmemory-policy", "allkeys-lru")
	if got := do(t, conn, "CONFIG", "GET", "maxmemory-policy"); len(got.Array) != 2 || string(got.Array[1].Text) != "allkeys-lru" {
		t.Errorf("CONFIG GET: %v", got.Array)
	}
	if out := c.CLI(t, "cluster", "config", "get"); !strings.Contains(out, "maxmemory-policy") || !strings.Contains(out, "allkeys-lru") {
		t.Errorf("cluster config get: %s", out)
	}
	if r, err := conn.Do("CONFIG", "SET", "maxmemory-policy", "sometimes"); err != nil || r.Err == nil || !strings.Contains(r.Err.Error(), "must be one of the following") {
		t.Errorf("a value that no server takes: %v, %v", r, err)
	}

	old := c.Master(t, 0).GetId()
	harness.Signal(t, c.Process(t, old), syscall.SIGKILL)
	waitNewMaster(t, c, 0, old, 10*time.Second)
	c.StartProcess(t, old)
	c.WaitHealthy(t, 20*time.Second)
	requireParameter(t, c, "maxmemory-policy", "allkeys-lru")

	// The Configserver goes and comes back; without it nothing can be set, and
	// everything else goes on.
	configserver := c.Processes(t, "configserver")[0].Name
	c.Kill(t, configserver)
	harness.Eventually(t, 10*time.Second, "CONFIG SET says what it lacks", func() error {
		r, err := conn.Do("CONFIG", "SET", "maxmemory-samples", "8")
		if err == nil && (r.Err == nil || !strings.Contains(r.Err.Error(), "it needs the Configserver")) {
			err = fmt.Errorf("it says %q, %v", r.Text, r.Err)
		}
		return err
	})
	do(t, conn, "SET", "k", "v")
	c.StartProcess(t, configserver)
	c.WaitConfigservers(t, 20*time.Second)
	for _, node := range c.Processes(t, "node") {
		c.Kill(t, node.Name)
		c.StartProcess(t, node.Name)
		c.WaitHealthy(t, 30*time.Second)
	}
	requireParameter(t, c, "maxmemory-policy", "allkeys-lru")
	requireParameter(t, c, "maxmemory-samples", "7")
	c.CLI(t, "cluster", "config", "unset", "maxmemory-samples")
	if out := c.CLI(t, "cluster", "status"); !strings.Contains(out, `maxmemory-policy "allkeys-lru"`) || strings.Contains(out, "maxmemory-samples") {
		t.Errorf("cluster status: %s", out)
	}
	c.RequireInvariants(t)
}

// takesSeveral tells if a server takes several parameters in one CONFIG SET, as those
// from 7.0 on do.
func takesSeveral(t *testing.T) bool {
	t.Helper()
	conn, err := consistency.Dial(t.Context(), harness.StartRedis(t).Address, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := conn.Do("CONFIG", "SET", "maxmemory-samples", "6", "maxmemory-policy", "noeviction")
	if err != nil {
		t.Fatal(err)
	}
	return r.Err == nil
}

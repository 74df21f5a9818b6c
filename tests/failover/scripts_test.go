package failover

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// TestScriptsOutliveMasters: what was loaded through one proxy runs through
// another, although every master that had it is gone: after kill -9, at servers
// that were restarted, and without the Configserver.
func TestScriptsOutliveMasters(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2, Proxies: 2})
	c.SetPolicy(t, harness.UnlimitedFailovers)
	ctx := t.Context()
	var proxies []*redis.Client
	for _, addr := range c.Proxies {
		p := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ReadTimeout: 20 * time.Second})
		t.Cleanup(func() { _ = p.Close() })
		proxies = append(proxies, p)
	}
	loaded := load(t, proxies[0], "return redis.call('incr',KEYS[1])")
	const byEval = "return {KEYS[1],redis.call('get',KEYS[1])}"
	if err := proxies[0].Eval(ctx, byEval, []string{"key"}).Err(); err != nil && err != redis.Nil {
		t.Fatal(err)
	}
	info, err := c.Admin(t, c.Master(t, 0).GetAddress()).Do("COMMAND", "INFO", "fcall")
	if err != nil || len(info.Array) != 1 {
		t.Fatalf("COMMAND INFO: %v, %v", info.Array, err)
	}
	functions := len(info.Array[0].Array) > 0 // servers before 7.0 have none
	if !functions {
		t.Log("the servers have no functions")
	} else if err := proxies[1].FunctionLoad(ctx, "#!lua name=lib\nredis.register_function('double', function(k, a) return 2*a[1] end)").Err(); err != nil {
		t.Fatal(err)
	}
	evaled := redis.NewScript(byEval).Hash()
	harness.Eventually(t, 5*time.Second, "a script of EVAL is known everywhere", func() error {
		if known, err := proxies[1].ScriptExists(ctx, evaled).Result(); err != nil || !known[0] {
			return fmt.Errorf("SCRIPT EXISTS: %v, %v", known, err)
		}
		return nil
	})
	if err := proxies[0].Do(ctx, "ACL", "SETUSER", "app", "on", "nopass", "~script:*", "+@all", "-@dangerous").Err(); err != nil {
		t.Fatal(err)
	}
	limited := redis.NewClient(&redis.Options{Addr: c.Proxies[1], Username: "app", Password: "x", MaxRetries: -1, ReadTimeout: 20 * time.Second})
	t.Cleanup(func() { _ = limited.Close() })
	const keys = 20 // on both shards
	runs := 0
	all := func(when string) {
		t.Helper()
		runs++
		for i := range keys {
			key := fmt.Sprint("script:", i)
			for p := range proxies {
				if n, err := proxies[p].EvalSha(ctx, loaded, []string{key}).Int(); err != nil || n != 2*(runs-1)+p+1 {
					t.Fatalf("%s: EVALSHA through proxy %d: %d, %v; want %d", when, p, n, err, 2*(runs-1)+p+1)
				}
			}
			got, err := proxies[i%2].EvalSha(ctx, evaled, []string{key}).StringSlice()
			if err != nil || got[0] != key || got[1] != fmt.Sprint(2*runs) {
				t.Fatalf("%s: EVALSHA of a script of EVAL: %v, %v", when, got, err)
			}
			// A user with limits runs what others loaded, with its limits.
			if got, err := limited.EvalSha(ctx, evaled, []string{key}).StringSlice(); err != nil || got[1] != fmt.Sprint(2*runs) {
				t.Fatalf("%s: EVALSHA of a user with limits: %v, %v", when, got, err)
			}
			err = limited.Eval(ctx, "return redis.call('get', ARGV[1])", []string{key}, "other").Err()
			if err == nil || !strings.Contains(err.Error(), "can't access at least one of the keys") && !strings.Contains(err.Error(), "No permissions to access a key") {
				t.Fatalf("%s: a script reads a key that its user may not: %v", when, err)
			}
			if !functions {
				continue
			}
			if n, err := proxies[i%2].FCall(ctx, "double", []string{key}, i).Int(); err != nil || n != 2*i {
				t.Fatalf("%s: FCALL: %d, %v", when, n, err)
			}
		}
	}
	all("at first")
	c.WaitHealthy(t, 20*time.Second)
	for i := range 2 {
		master := c.Master(t, i).GetId()
		harness.Signal(t, c.Process(t, master), syscall.SIGKILL)
		waitNewMaster(t, c, i, master, 10*time.Second)
		all("after the kill of " + master)
		c.StartProcess(t, master)
		c.WaitHealthy(t, 20*time.Second)
		c.CLI(t, "switchover", c.Name, fmt.Sprint("shard-", i), "--to", master)
		all("at the restarted " + master)
	}
	var servers []*consistency.Conn
	for i := range 2 {
		servers = append(servers, c.Admin(t, c.Master(t, i).GetAddress()))
	}
	for _, p := range c.LocalStatus(t).Processes {
		if p.Kind == "configserver" {
			c.Kill(t, p.Name)
		}
	}
	for _, server := range servers { // as if they had been restarted
		if _, err := server.Do("SCRIPT", "FLUSH"); err != nil {
			t.Fatal(err)
		}
	}
	all("without the Configserver")
}

func load(t *testing.T, p *redis.Client, source string) string {
	t.Helper()
	sha, err := p.ScriptLoad(t.Context(), source).Result()
	if err != nil {
		t.Fatal(err)
	}
	return sha
}

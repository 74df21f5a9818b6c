// Package smoke does what a newcomer does, in the newcomer's words: the commands
// of the README on the programs as they are built.
package smoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/basalt-redis/basalt/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// redisCLI runs redis-cli against a proxy and returns what it printed.
func redisCLI(t *testing.T, addr string, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("redis-cli", append([]string{"-h", host, "-p", port}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func wantLine(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for line := range strings.Lines(text) {
		found := true
		for _, p := range parts {
			found = found && strings.Contains(line, p)
		}
		if found {
			return
		}
	}
	t.Errorf("%s has no line with %q:\n%s", what, parts, text)
}

// TestFirstMinutes goes through what `make run` offers: a value, the status, a
// kill of a master and what came of it, a switchover.
func TestFirstMinutes(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	proxy := c.Proxies[0]
	if got := redisCLI(t, proxy, "set", "hello", "world"); got != "OK" {
		t.Errorf("set: %q", got)
	}
	if got := redisCLI(t, proxy, "get", "hello"); got != "world" {
		t.Errorf("get: %q", got)
	}
	wantLine(t, "cluster list", c.CLI(t, "cluster", "list"), "local")
	status := c.CLI(t, "cluster", "status", "local")
	for _, sh := range c.Topology(t).GetShards() {
		wantLine(t, "cluster status", status, sh.GetMaster(), "master")
	}
	var parsed struct {
		Nodes []struct{ Node string } `json:"nodes"`
	}
	if err := json.Unmarshal([]byte(c.CLI(t, "cluster", "status", "local", "-o", "json")), &parsed); err != nil || len(parsed.Nodes) != 6 {
		t.Errorf("cluster status -o json: %d nodes, %v", len(parsed.Nodes), err)
	}
	wantLine(t, "topology", c.CLI(t, "topology", "show", "local"), "shard-2", "16383")

	before := c.Master(t, 0).GetId()
	c.CLI(t, "local", "kill", "shard-0/master")
	for i := range 30 { // keys of every shard; held while shard-0 has no master
		if got := redisCLI(t, proxy, "set", fmt.Sprintf("after:%d", i), "kill"); got != "OK" {
			t.Fatalf("set after the kill: %q", got)
		}
	}
	harness.Eventually(t, 10*time.Second, "shard-0 has a new master", func() error {
		if m := c.Master(t, 0); m == nil || m.GetId() == before {
			return errors.New("not yet")
		}
		return nil
	})
	wantLine(t, "events", c.CLI(t, "events", "list", "local"), "FailoverFinished", "shard-0")
	c.CLI(t, "local", "start", before)
	c.WaitHealthy(t, 20*time.Second)
	before = c.Master(t, 1).GetId()
	c.CLI(t, "switchover", "local", "shard-1")
	if after := c.Master(t, 1).GetId(); after == before {
		t.Errorf("shard-1 has the same master after a switchover: %s", after)
	}
	if got := redisCLI(t, proxy, "get", "hello"); got != "world" {
		t.Errorf("get at the end: %q", got)
	}
	c.RequireInvariants(t)
}

// TestApplicationsSeeOneRedis uses an ordinary client library with keys of all
// shards, commands that span them, and errors as Redis words them.
func TestApplicationsSeeOneRedis(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2})
	db := redis.NewClient(&redis.Options{Addr: c.Proxies[0]})
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var keys []string
	pairs := map[string]any{}
	for i := range 200 {
		key := fmt.Sprintf("key:%d", i)
		keys = append(keys, key)
		pairs[key] = fmt.Sprint(i)
	}
	if err := db.MSet(ctx, pairs).Err(); err != nil {
		t.Fatal(err)
	}
	values, err := db.MGet(ctx, keys...).Result()
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if v != fmt.Sprint(i) {
			t.Errorf("%s is %v", keys[i], v)
		}
	}
	if n, err := db.DBSize(ctx).Result(); n != 200 || err != nil {
		t.Errorf("DBSIZE %d, %v", n, err)
	}
	seen := map[string]bool{}
	for it := db.Scan(ctx, 0, "key:*", 50).Iterator(); it.Next(ctx); {
		seen[it.Val()] = true
	}
	if len(seen) != 200 {
		t.Errorf("SCAN found %d keys", len(seen))
	}
	if n, err := db.Del(ctx, keys[:150]...).Result(); n != 150 || err != nil {
		t.Errorf("DEL %d, %v", n, err)
	}
	if n, err := db.Exists(ctx, keys...).Result(); n != 50 || err != nil {
		t.Errorf("EXISTS %d, %v", n, err)
	}
	if err := db.LPush(ctx, "list", "a", "b").Err(); err != nil {
		t.Error(err)
	}
	if err := db.Get(ctx, "list").Err(); err == nil || !strings.HasPrefix(err.Error(), "WRONGTYPE") {
		t.Errorf("GET of a list: %v", err)
	}
	if err := db.RPopLPush(ctx, "list", "key:1").Err(); err == nil || !strings.HasPrefix(err.Error(), "CROSSSLOT") {
		t.Errorf("RPOPLPUSH over slots: %v", err)
	}
	if err := db.Do(ctx, "NOSUCH").Err(); err == nil || !strings.HasPrefix(err.Error(), "ERR unknown command") {
		t.Errorf("unknown command: %v", err)
	}
	if got, err := db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 100 {
			p.Incr(ctx, fmt.Sprintf("counter:%d", i%7))
		}
		return nil
	}); err != nil || len(got) != 100 {
		t.Errorf("pipeline: %d replies, %v", len(got), err)
	}
	if err := db.FlushAll(ctx).Err(); err != nil {
		t.Error(err)
	}
	if n, err := db.DBSize(ctx).Result(); n != 0 || err != nil {
		t.Errorf("DBSIZE after FLUSHALL %d, %v", n, err)
	}
}

// TestClientPassword: with a password file, clients must AUTH at the proxy.
// TestVersionIsTheServers: HELLO and INFO say what the servers are.
func TestVersionIsTheServers(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Shards: 1, Replicas: -1})
	plain := harness.StartRedis(t).Address
	field := func(text, name string) string {
		for line := range strings.Lines(text) {
			if value, ok := strings.CutPrefix(line, name+":"); ok {
				return strings.TrimSpace(value)
			}
		}
		return ""
	}
	info, want := redisCLI(t, c.Proxies[0], "info", "server"), redisCLI(t, plain, "info", "server")
	for _, name := range []string{"redis_version", "server_name", "valkey_version", "redis_mode", "server_mode"} {
		if got := field(info, name); got != field(want, name) {
			t.Errorf("INFO says %s:%s, the server %s", name, got, field(want, name))
		}
	}
	about := func(addr string) string {
		lines := strings.Split(redisCLI(t, addr, "hello"), "\n") // server, its name, version, its number …
		return strings.Join(lines[:min(4, len(lines))], " ")
	}
	if got := about(c.Proxies[0]); got != about(plain) {
		t.Errorf("HELLO says %q, the server %q", got, about(plain))
	}
}

func TestClientPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("s3cret-of-the-clients\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := harness.Start(t, harness.Options{Shards: 1, Replicas: -1, Flags: []string{"--client-password-file", file}})
	if got := redisCLI(t, c.Proxies[0], "get", "x"); !strings.HasPrefix(got, "NOAUTH") {
		t.Errorf("without a password: %q", got)
	}
	if got := redisCLI(t, c.Proxies[0], "--no-auth-warning", "-a", "s3cret-of-the-clients", "set", "x", "y"); got != "OK" {
		t.Errorf("with the password: %q", got)
	}
	if got := redisCLI(t, c.Proxies[0], "auth", "wrong"); !strings.HasPrefix(got, "WRONGPASS") {
		t.Errorf("with a wrong password: %q", got)
	}
}

// TestDoorsForMachines: health, readiness, metrics over HTTP; health and
// reflection over gRPC.
func TestDoorsForMachines(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 1})
	redisCLI(t, c.Proxies[0], "set", "x", "y")
	for name, metric := range map[string]string{"proxy-0": "basalt_proxy_", "configserver-0": "basalt_"} {
		base := "http://" + c.Process(t, name).HTTPAddress
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			status, body := get(t, base+path)
			if status != http.StatusOK {
				t.Errorf("%s%s: status %d: %.200s", name, path, status, body)
			}
			if path == "/metrics" && !strings.Contains(body, metric) {
				t.Errorf("%s%s has no %s…", name, path, metric)
			}
		}
		if status, _ := get(t, base+"/debug/pprof/"); status != http.StatusNotFound {
			t.Errorf("%s serves pprof without being asked to: status %d", name, status)
		}
	}
	conn, err := grpc.NewClient(c.Configservers[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("gRPC health: %v, %v", health, err)
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	list, err := stream.Recv()
	if err != nil || !strings.Contains(list.String(), "basalt.v1.ClusterService") {
		t.Errorf("gRPC reflection: %v, %v", list, err)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestMistakesAreExplained: what a person gets wrong is answered with what to
// do, in one line, and with the exit code of its kind.
func TestMistakesAreExplained(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 1})
	master := c.Master(t, 0).GetId()
	for _, m := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"cluster", "status", "nowhere"}, 1, "nowhere"},
		{[]string{"switchover", "local", "shard-9"}, 1, "shard-9"},
		{[]string{"node", "deregister", "local", master}, 1, "switch"},
		{[]string{"cluster", "create", "UPPER"}, 1, "lower case"},
		{[]string{"nosuch"}, 2, "unknown command"},
		{[]string{"local", "kill", "shard-7/master"}, 1, "shard-0"},
		{[]string{"--configserver", "127.0.0.1:1", "cluster", "list", "--timeout", "2s"}, 1, "127.0.0.1:1"},
	} {
		out, err := c.TryCLI(m.args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != m.code {
			t.Errorf("%q: %v (%s), want exit code %d", m.args, err, out, m.code)
			continue
		}
		said, ok := strings.CutPrefix(err.Error()[strings.Index(err.Error(), "\n")+1:], "basaltctl: ")
		if !ok || !strings.Contains(said, m.want) || strings.Count(strings.TrimSpace(said), "\n") > 0 {
			t.Errorf("%q said %q, want one line with %q", m.args, said, m.want)
		}
	}
}

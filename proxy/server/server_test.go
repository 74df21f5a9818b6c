package server

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"

	"github.com/basalt-redis/basalt/internal/capture"
	"github.com/basalt-redis/basalt/internal/redistest"
	"github.com/basalt-redis/basalt/internal/slot"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/config"
)

// configserver is a small working Configserver: it serves the topology it is
// given, to whoever connects, and keeps what proxies say.
type configserver struct {
	basaltv1.UnimplementedTopologyServiceServer
	address string
	stop    func()

	mu      sync.Mutex
	current *basaltv1.Snapshot
	changed chan struct{}
	acked   uint64
	goodbye bool
	loads   int
}

func startConfigserver(t *testing.T, clusters ...basaltv1.ClusterServiceServer) *configserver {
	t.Helper()
	c := &configserver{changed: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.address = l.Addr().String()
	s := grpc.NewServer()
	basaltv1.RegisterTopologyServiceServer(s, c)
	for _, service := range clusters {
		basaltv1.RegisterClusterServiceServer(s, service)
	}
	c.stop = s.Stop
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return c
}

func (c *configserver) publish(s *basaltv1.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = s
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *configserver) WatchTopology(stream basaltv1.TopologyService_WatchTopologyServer) error {
	left := make(chan struct{})
	go func() {
		defer close(left)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.acked = max(c.acked, m.GetAck().GetEpoch())
			c.goodbye = c.goodbye || m.GetGoodbye() != nil
			if m.GetLoadReport() != nil {
				c.loads++
			}
			c.mu.Unlock()
			if m.GetGoodbye() != nil {
				return
			}
		}
	}()
	var sent *basaltv1.Snapshot
	for {
		c.mu.Lock()
		now, changed := c.current, c.changed
		c.mu.Unlock()
		if now != nil && now != sent {
			if err := stream.Send(&basaltv1.WatchTopologyResponse{Message: &basaltv1.WatchTopologyResponse_Snapshot{Snapshot: now}}); err != nil {
				return err
			}
			sent = now
		}
		select {
		case <-changed:
		case <-left:
			return nil
		case <-stream.Context().Done():
			return nil
		}
	}
}

// topologyOf spreads the slots over servers.
func topologyOf(epoch uint64, servers ...*redistest.Server) *basaltv1.Snapshot {
	s := &basaltv1.Snapshot{Topology: &basaltv1.Topology{Cluster: "local", Epoch: epoch, Phase: basaltv1.ClusterPhase_CLUSTER_PHASE_SERVING}}
	for i, server := range servers {
		shard := &basaltv1.Shard{Id: fmt.Sprint("shard-", i), Master: fmt.Sprintf("shard-%d-0", i), Generation: 1}
		slots := slot.Even(i, len(servers))
		for first, last := range slots.Ranges {
			shard.Slots = append(shard.Slots, &basaltv1.SlotRange{Start: uint32(first), End: uint32(last)})
		}
		shard.Nodes = []*basaltv1.Node{{Id: shard.Master, Address: server.Address, Incarnation: server.Info("run_id"), InReadSet: true}}
		s.Topology.Shards = append(s.Topology.Shards, shard)
		s.Credentials = append(s.Credentials, &basaltv1.ShardCredential{
			Shard: shard.Id, Generation: 1, Username: redistest.AdminUser, Password: server.AdminPassword,
		})
	}
	return s
}

// running is a proxy in this process.
type running struct {
	*Server
	t    *testing.T
	log  *capture.Buffer
	stop context.CancelFunc
	done chan error
}

func startProxy(t *testing.T, c *configserver, flags ...string) *running {
	t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	cfg, err := config.Load(append([]string{
		"--listen", listen, "--http-listen", "127.0.0.1:0", "--configserver", c.address, "--loops", "2",
	}, flags...))
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, log: &capture.Buffer{}, done: make(chan error, 1)}
	if r.Server, err = New(cfg, r.log); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		r.done <- r.Run(ctx)
		close(r.done)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-r.done; err != nil {
			t.Errorf("Run: %v\n%s", err, r.log)
		}
	})
	r.eventually("the HTTP server", func() bool { return strings.Contains(r.log.String(), "proxy starts") })
	return r
}

func (r *running) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for %s; log:\n%s", what, r.log)
		}
	}
}

func (r *running) get(path string) (int, string) {
	r.t.Helper()
	resp, err := http.Get("http://" + r.http.Addr().String() + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (r *running) ready() bool { code, _ := r.get("/readyz"); return code == http.StatusOK }

func (r *running) redis() *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: r.cfg.Listen, MaxRetries: -1, Protocol: 3})
	r.t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestServesFromTheFirstTopologyToTheLastGoodbye(t *testing.T) {
	ctx := t.Context()
	c := startConfigserver(t)
	servers := []*redistest.Server{redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})}
	r := startProxy(t, c, "--slowlog-threshold", "0s")
	first, _, _ := strings.Cut(r.log.String(), "\n")
	for _, want := range []string{"version=", "listen=" + r.cfg.Listen, "cluster=local"} {
		if !strings.Contains(first, want) {
			t.Errorf("first line %q lacks %q", first, want)
		}
	}
	if code, body := r.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no topology yet") {
		t.Errorf("/readyz without a topology: %d %q", code, body)
	}
	if code, body := r.get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d %q", code, body)
	}

	// A client that comes early waits.
	early, err := net.Dial("tcp", r.cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	fmt.Fprintf(early, "PING\r\n")
	_ = early.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := early.Read(make([]byte, 1)); err == nil {
		t.Error("a client was served before the topology came")
	}
	c.publish(topologyOf(7, servers...))
	_ = early.SetReadDeadline(time.Now().Add(5 * time.Second))
	if line, err := bufio.NewReader(early).ReadString('\n'); line != "+PONG\r\n" {
		t.Errorf("the early client got %q, %v", line, err)
	}
	r.eventually("readiness", r.ready)
	r.eventually("the ack", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.acked == 7 })

	client := r.redis()
	for i := range 100 {
		if err := client.Set(ctx, fmt.Sprint("key", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := client.DBSize(ctx).Result(); n != 100 || err != nil {
		t.Errorf("DBSIZE %d, %v", n, err)
	}
	info, err := client.Info(ctx).Result()
	if err != nil || !strings.Contains(info, "db0:keys=100,") || !strings.Contains(info, "epoch:7\r\n") || !strings.Contains(info, "shards_answered:3") {
		t.Errorf("INFO %v:\n%s", err, info)
	}
	if got, err := client.ConfigGet(ctx, "maxcl*").Result(); err != nil || got["maxclients"] != "20000" {
		t.Errorf("CONFIG GET %v, %v", got, err)
	}
	if got, err := client.Command(ctx).Result(); err != nil || got["get"] == nil || got["get"].Arity != 2 || got["multi"] == nil || got["save"] == nil {
		t.Errorf("COMMAND: %d, %v", len(got), err)
	}
	if err := client.Do(ctx, "SWAPDB", 0, 1).Err(); err == nil || !strings.Contains(err.Error(), "not supported behind the proxy") {
		t.Errorf("SWAPDB: %v", err)
	}

	added, err := client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.IncrBy(ctx, "{tx}a", 1)
		pipe.Incr(ctx, "{tx}a")
		pipe.DBSize(ctx)
		return nil
	})
	if err != nil || added[1].(*redis.IntCmd).Val() != 2 || added[2].(*redis.IntCmd).Val() != 101 {
		t.Errorf("TxPipelined: %v, %v", added, err)
	}
	watched := client.Watch(ctx, func(tx *redis.Tx) error {
		client.Incr(ctx, "{tx}a")
		_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error { return pipe.Incr(ctx, "{tx}a").Err() })
		return err
	}, "{tx}a")
	if got := client.Get(ctx, "{tx}a").Val(); watched != redis.TxFailedErr || got != "3" {
		t.Errorf("Watch: %v, then %s", watched, got)
	}

	_, metrics := r.get("/metrics")
	for _, want := range []string{
		`basalt_proxy_commands_total{cluster="local",command="set"} 100`, `basalt_proxy_epoch{cluster="local"} 7`,
		`basalt_proxy_command_duration_seconds_count{cluster="local",command="set"} 100`, `basalt_proxy_acked_epoch{cluster="local"} 7`,
		`basalt_proxy_node_sight{cluster="local",node="shard-0-0",shard="shard-0",sight="ok"} 1`, `basalt_proxy_loop_busy_seconds_total{cluster="local",loop="1"}`,
		`basalt_proxy_configserver_connected{cluster="local"} 1`,
		`basalt_proxy_clients_evicted_total{cluster="local"} 0`, `basalt_proxy_client_bytes_total{cluster="local",direction="in"}`,
		`basalt_proxy_client_bytes_total{cluster="local",direction="out"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if _, slow := r.get("/slowlog"); !strings.Contains(slow, `"args":["`) {
		t.Errorf("/slowlog %s", slow)
	}

	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.goodbye {
		t.Error("no goodbye")
	}
	if log := r.log.String(); strings.Contains(log, servers[0].AdminPassword) {
		t.Error("the log has a password in it")
	}
}

// A client that is being served when the proxy stops gets its answer; it makes
// the proxy unready first.
func TestDrains(t *testing.T) {
	c := startConfigserver(t)
	server := redistest.Start(t, redistest.Options{})
	c.publish(topologyOf(1, server))
	r := startProxy(t, c)
	r.eventually("readiness", r.ready)
	conn, err := net.Dial("tcp", r.cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A script that takes a while, and one more request behind it.
	fmt.Fprintf(conn, "EVAL \"for i=1,60000000 do end return 'done'\" 1 key\r\nPING\r\n")
	time.Sleep(50 * time.Millisecond)
	r.stop()
	r.eventually("unreadiness", func() bool { return !r.ready() })
	if code, body := r.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
		t.Errorf("/readyz while draining: %d %q", code, body)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	reply, err := io.ReadAll(conn)
	if string(reply) != "$4\r\ndone\r\n+PONG\r\n" {
		t.Errorf("reply %q, %v", reply, err)
	}
}

// Passwords of clients come with the topology, change with it, and show up
// nowhere.
func TestClientPassword(t *testing.T) {
	const password = "open-sesame"
	c := startConfigserver(t)
	server := redistest.Start(t, redistest.Options{})
	locked := topologyOf(1, server)
	sum := sha256.Sum256([]byte(password))
	locked.ClientAuth = &basaltv1.ClientAuth{PasswordSha256: [][]byte{sum[:]}}
	c.publish(locked)
	r := startProxy(t, c, "--slowlog-threshold", "0s", "--log-level", "debug")
	r.eventually("readiness", r.ready)
	conn, err := net.Dial("tcp", r.cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	in := bufio.NewReader(conn)
	for _, step := range [][2]string{
		{"GET k", "-NOAUTH Authentication required.\r\n"},
		{"AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"},
		{"AUTH " + password, "+OK\r\n"},
		{"AUTH default " + password, "+OK\r\n"},
		{"SET k v", "+OK\r\n"},
	} {
		fmt.Fprintf(conn, "%s\r\n", step[0])
		if line, err := in.ReadString('\n'); line != step[1] {
			t.Errorf("%s: %q, %v; want %q", step[0], line, err, step[1])
		}
	}
	// A new password does not put out those who are in; newcomers need it.
	rotated := topologyOf(2, server)
	sum = sha256.Sum256([]byte("another"))
	rotated.ClientAuth = &basaltv1.ClientAuth{PasswordSha256: [][]byte{sum[:]}}
	c.publish(rotated)
	r.eventually("the ack", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.acked == 2 })
	fmt.Fprintf(conn, "GET k\r\n")
	if line, err := in.ReadString('\n'); line != "$1\r\n" {
		t.Errorf("GET after a rotation: %q, %v", line, err)
	}
	late := redis.NewClient(&redis.Options{Addr: r.cfg.Listen, Password: password, MaxRetries: -1})
	defer late.Close()
	if err := late.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("the old password: %v", err)
	}
	_, slow := r.get("/slowlog")
	if !strings.Contains(slow, `"SET"`) || strings.Contains(slow, password) || strings.Contains(r.log.String(), password) {
		t.Errorf("slow log %s", slow)
	}
}

func TestABusyPortIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, flag := range []string{"--listen", "--http-listen"} {
		args := []string{"--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", flag, l.Addr().String()}
		cfg, err := config.Load(args)
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(cfg, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), flag[2:]+": ") {
			t.Errorf("%s busy: %v", flag, err)
		}
	}
}

// A proxy that never got a topology stops as cleanly.
func TestStopsWithoutATopology(t *testing.T) {
	r := startProxy(t, startConfigserver(t))
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestNotReady(t *testing.T) {
	c := startConfigserver(t)
	server := redistest.Start(t, redistest.Options{})
	r := startProxy(t, c)
	forming := topologyOf(1, server)
	forming.Topology.Phase = basaltv1.ClusterPhase_CLUSTER_PHASE_FORMING
	hole := topologyOf(2, server)
	hole.Topology.Shards[0].Slots[0].End = 100
	deleting := topologyOf(4, server)
	deleting.Topology.Phase = basaltv1.ClusterPhase_CLUSTER_PHASE_DELETING
	failing := topologyOf(3, server)
	failing.Topology.Shards[0].Master = "" // said, and no reason to send clients elsewhere
	for _, step := range []struct {
		s    *basaltv1.Snapshot
		want string
	}{{forming, "still forming"}, {hole, "slot 101 has no owner"}, {failing, "NOT SERVING: shard-0 (slots 0-16383): it has no master"}, {deleting, "being deleted"}} {
		c.publish(step.s)
		r.eventually(step.want, func() bool {
			code, body := r.get("/readyz")
			return strings.Contains(body, step.want) && (code == http.StatusOK) == (step.s == failing)
		})
	}
}

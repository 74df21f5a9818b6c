// Package size shows what a large cluster costs the Configserver: 256 shards of two
// nodes and 100 proxies, without the servers and without the proxies (servers.go). It
// prints its figures with -v, and takes another size:
//
//	SIZE_TEST_SHARDS=512 go test ./size -v
package size

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/internal/capture"
	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/harness"
)

const (
	cluster = "large"
	proxies = 100
)

func TestMain(m *testing.M) {
	if count, err := strconv.Atoi(os.Getenv(serversEnv)); err == nil {
		if err := serve(count); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	harness.Main(m)
}

// start runs a program until the test ends and returns its stdin and stdout.
func start(t *testing.T, cmd *exec.Cmd) (io.Writer, io.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return in, out
}

// startServers starts the process of the servers.
func startServers(t *testing.T, count int) (addresses []string, kill func(address string)) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", serversEnv, count))
	cmd.Stderr = os.Stderr
	in, out := start(t, cmd)
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&addresses); err != nil {
		t.Fatal(err)
	}
	return addresses, func(address string) { _, _ = fmt.Fprintln(in, "kill "+address) }
}

// configserver is the process that is measured.
type configserver struct {
	pid           int
	address, http string
	log           *capture.Buffer
}

func startConfigserver(t *testing.T) *configserver {
	t.Helper()
	dir := t.TempDir()
	secrets := filepath.Join(dir, "credentials", cluster)
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"admin-password", "cluster-secret"} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte("no-secret-at-all-"+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port, err := harness.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	c := &configserver{address: fmt.Sprintf("127.0.0.1:%d", port), log: &capture.Buffer{}}
	if port, err = harness.FreePort(); err != nil {
		t.Fatal(err)
	}
	c.http = fmt.Sprintf("127.0.0.1:%d", port)
	cmd := exec.Command(harness.Binary(t, "configserver"), "serve", "--listen", c.address, "--http-listen", c.http, "--pprof", "--lease-ttl", "30s",
		"--data-dir", filepath.Join(dir, "etcd"), "--credentials-dir", filepath.Join(dir, "credentials"))
	cmd.Stderr = c.log
	start(t, cmd)
	c.pid = cmd.Process.Pid
	t.Cleanup(func() {
		if out := c.log.String(); t.Failed() {
			t.Logf("the end of the configserver's log:\n%s", out[max(0, len(out)-8000):])
		}
	})
	return c
}

// profile writes what the Configserver does in the next seconds to a file of
// $SIZE_TEST_PROFILES, if that is set, for go tool pprof.
func (c *configserver) profile(t *testing.T, name string, seconds int) {
	dir := os.Getenv("SIZE_TEST_PROFILES")
	if dir == "" {
		return
	}
	go func() {
		r, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", c.http, seconds))
		if err != nil {
			t.Log(err)
			return
		}
		defer r.Body.Close()
		data, err := io.ReadAll(r.Body)
		if err = errors.Join(err, os.WriteFile(filepath.Join(dir, name+".pprof"), data, 0o600)); err != nil {
			t.Log(err)
		}
	}()
}

// dial connects to the Configserver, and waits for it when it is just starting.
func (c *configserver) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// stream is the topology stream of a proxy that obeys at once.
type stream struct {
	conn *grpc.ClientConn
	id   string

	mu      sync.Mutex
	epoch   uint64
	masters map[string]string // by shard
	failed  error
}

// follow keeps the stream up until ctx ends.
func (s *stream) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.once(ctx)
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *stream) once(ctx context.Context) error {
	w, err := pb.NewTopologyServiceClient(s.conn).WatchTopology(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	hello := &pb.ProxyHello{Cluster: cluster, ProxyId: s.id, Address: "127.0.0.1:1", Epoch: s.epoch}
	s.mu.Unlock()
	if err := w.Send(&pb.WatchTopologyRequest{Message: &pb.WatchTopologyRequest_Hello{Hello: hello}}); err != nil {
		return err
	}
	for {
		m, err := w.Recv()
		if err != nil {
			return err
		}
		topology := m.GetDelta().GetTopology()
		if m.GetSnapshot() != nil {
			topology = m.GetSnapshot().GetTopology()
		}
		s.mu.Lock()
		for _, shard := range topology.GetShards() {
			s.masters[shard.GetId()] = shard.GetMaster()
		}
		s.epoch = topology.GetEpoch()
		s.mu.Unlock()
		if err := w.Send(&pb.WatchTopologyRequest{Message: &pb.WatchTopologyRequest_Ack{Ack: &pb.Ack{Epoch: topology.GetEpoch()}}}); err != nil {
			return err
		}
	}
}

func (s *stream) at() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

func (s *stream) master(shard string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.masters[shard]
}

// TestLargeCluster: 256 shards × 2 form within 20 s, cost less than 30 % of a core
// when nothing happens, and one of them is failed over within 1 s beside 100 proxies.
func TestLargeCluster(t *testing.T) {
	shards := 256
	if n, err := strconv.Atoi(os.Getenv("SIZE_TEST_SHARDS")); err == nil {
		shards = n
	}
	addresses, kill := startServers(t, 2*shards)
	server := startConfigserver(t)
	conn := server.dial(t)
	clusters := pb.NewClusterServiceClient(conn)
	create(t, clusters, shards)
	streams := make([]*stream, proxies)
	for i := range streams {
		streams[i] = &stream{conn: server.dial(t), id: fmt.Sprintf("proxy-%d", i), masters: map[string]string{}}
		go streams[i].follow(t.Context())
	}

	server.profile(t, "forming", 10)
	begun, before := time.Now(), server.used(t)
	register(t, clusters, addresses, shards)
	t.Logf("%d nodes are registered after %v", len(addresses), time.Since(begun).Round(time.Millisecond))
	harness.Eventually(t, time.Minute, "the cluster is formed", func() error { return formed(t, conn, clusters, streams, shards) })
	took := time.Since(begun)
	t.Logf("formed at epoch %d: %v, %v", streams[0].at(), took.Round(time.Millisecond), server.used(t).since(before))
	if took > 20*time.Second {
		t.Errorf("forming took %v, want less than 20 s", took)
	}

	quiet(t, streams)
	server.profile(t, "idle", 9)
	begun, before = time.Now(), server.used(t)
	time.Sleep(10 * time.Second)
	used := server.used(t).since(before)
	share := used.cpu.Seconds() / time.Since(begun).Seconds()
	t.Logf("idle: %.1f %% of a core, %v", 100*share, used)
	if share > 0.3 {
		t.Errorf("it idles at %.1f %% of a core, want less than 30 %%", 100*share)
	}

	for _, i := range []int{0, shards / 2, shards - 1} {
		name := fmt.Sprintf("shard-%d", i)
		old, other := 0, 1
		if streams[0].master(name) == node(i, 1) { // who is registered first
			old, other = 1, 0
		}
		begun := time.Now()
		kill(addresses[2*i+old])
		took := harness.Eventually(t, time.Minute, "every proxy knows a new master of "+name, func() error {
			for _, s := range streams {
				if m := s.master(name); m != node(i, other) {
					return fmt.Errorf("%s is told %q", s.id, m)
				}
			}
			return nil
		})
		t.Logf("failover of %s: %v until every proxy knows", name, took.Round(time.Millisecond))
		if time.Since(begun) > time.Second {
			t.Errorf("the failover of %s took %v, want less than 1 s", name, took)
		}
		quiet(t, streams)
	}
}

func create(t *testing.T, clusters pb.ClusterServiceClient, shards int) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, "the cluster is created", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := clusters.CreateCluster(ctx, &pb.CreateClusterRequest{Name: cluster, Shards: uint32(shards), NodesPerShard: 2})
		if status.Code(err) == codes.AlreadyExists {
			return nil
		}
		return err
	})
}

func node(shard, number int) string { return fmt.Sprintf("shard-%d-%d", shard, number) }

// register registers all nodes, some at a time, as scripts do.
func register(t *testing.T, clusters pb.ClusterServiceClient, addresses []string, shards int) {
	t.Helper()
	var wg sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				request := &pb.RegisterNodeRequest{Cluster: cluster, Shard: fmt.Sprintf("shard-%d", i/2), Node: node(i/2, i%2), Address: addresses[i]}
				_, err := clusters.RegisterNode(t.Context(), request)
				for deadline := time.Now().Add(time.Minute); err != nil && status.Code(err) != codes.AlreadyExists && time.Now().Before(deadline); {
					time.Sleep(100 * time.Millisecond)
					_, err = clusters.RegisterNode(t.Context(), request)
				}
				if err != nil && status.Code(err) != codes.AlreadyExists {
					t.Errorf("register %s: %v", request.GetNode(), err)
				}
			}
		})
	}
	for i := range 2 * shards {
		next <- i
	}
	close(next)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// formed is nil when the cluster serves, every node is in sync and may be read, and
// every proxy knows.
func formed(t *testing.T, conn *grpc.ClientConn, clusters pb.ClusterServiceClient, streams []*stream, shards int) error {
	defer time.Sleep(200 * time.Millisecond)
	topology, err := pb.NewTopologyServiceClient(conn).GetTopology(t.Context(), &pb.GetTopologyRequest{Cluster: cluster})
	if err != nil {
		return err
	}
	if topology.GetPhase() != pb.ClusterPhase_CLUSTER_PHASE_SERVING {
		return fmt.Errorf("it is %v at epoch %d: %s", topology.GetPhase(), topology.GetEpoch(), topology.GetReason())
	}
	for _, s := range topology.GetShards() {
		for _, n := range s.GetNodes() {
			if !n.GetInSync() || !n.GetInReadSet() {
				return errors.New(n.GetId() + " is not in sync")
			}
		}
	}
	for _, s := range streams {
		s.mu.Lock()
		epoch, known, failed := s.epoch, len(s.masters), s.failed
		s.mu.Unlock()
		if epoch < topology.GetEpoch() || known != shards {
			return fmt.Errorf("%s is at epoch %d with %d shards: %v", s.id, epoch, known, failed)
		}
	}
	return nil
}

// quiet waits until nothing was committed for a while.
func quiet(t *testing.T, streams []*stream) {
	t.Helper()
	for last, since := streams[0].at(), time.Now(); time.Since(since) < 2*time.Second; time.Sleep(20 * time.Millisecond) {
		if now := streams[0].at(); now != last {
			last, since = now, time.Now()
		}
	}
}

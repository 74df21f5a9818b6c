package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/basalt-redis/basalt/configserver/store/etcdstore"
	"github.com/basalt-redis/basalt/internal/capture"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the program that the tests of this package kill.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "configserver-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "configserver")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/configserver").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// forks starts processes on one thread that never ends: the kernel kills a
// child with Pdeathsig when the thread that forked it ends.
var forks = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

var ports struct {
	sync.Mutex
	next int
}

// freePort finds a port outside of the range from which clients get theirs.
func freePort(t testing.TB) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = 20000 + os.Getpid()%9000
	}
	for range 1000 {
		ports.next++
		address := fmt.Sprintf("127.0.0.1:%d", ports.next)
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// process is a running configserver program.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	log  *capture.Buffer
}

// start runs the program until the test ends.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(binary, args...), done: make(chan struct{}), log: &capture.Buffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	forks() <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the state is read from cmd.ProcessState
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.log)
		}
		for _, bad := range []string{"panic", "DATA RACE", "goroutine "} {
			if strings.Contains(p.log.String(), bad) {
				t.Errorf("%s logged %q", name, bad)
			}
		}
	})
	return p
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%v to %s: %v", s, p.name, err)
	}
}

// exited waits for the end of the process.
func (p *process) exited(t *testing.T, limit time.Duration) *os.ProcessState {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState
	case <-time.After(limit):
		t.Fatalf("%s did not end within %v", p.name, limit)
		return nil
	}
}

// eventually calls check until it returns nil, and says how long it took.
func eventually(t *testing.T, what string, limit time.Duration, check func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		took := time.Since(began)
		if err == nil {
			return took
		}
		if took > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// replica is a `configserver serve`.
type replica struct {
	*process
	id, grpc, http string
	api            basaltv1.ClusterServiceClient
}

func (r *replica) ready() error {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + r.http + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d: %s", resp.StatusCode, body)
	}
	return err
}

// notReady is the opposite of ready for a process that answers.
func (r *replica) notReady() error {
	if err := r.ready(); err == nil || !strings.HasPrefix(err.Error(), "503") {
		return fmt.Errorf("readyz: %v", err)
	}
	return nil
}

// world is an etcd, Configservers and a client of each.
type world struct {
	dir, credentials, endpoint string
	etcd                       *process
	store                      *etcdstore.Store
}

// newWorld starts `configserver etcd`.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), credentials: t.TempDir(), endpoint: freePort(t)}
	w.startEtcd(t)
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{w.endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	w.store = s
	eventually(t, "etcd", 10*time.Second, func() error { return s.Ping(t.Context()) })
	return w
}

func (w *world) startEtcd(t *testing.T) {
	t.Helper()
	w.etcd = start(t, "etcd", "etcd", "--data-dir", w.dir, "--listen-client", w.endpoint, "--listen-peer", freePort(t))
}

// secrets makes the credentials of a cluster.
func secrets(t *testing.T, dir, cluster string) {
	t.Helper()
	folder := filepath.Join(dir, cluster)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"admin-password": "test-admin\n", "cluster-secret": "test-secret-of-some-length\n"} {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serve starts a Configserver and waits until it is ready.
func serve(t *testing.T, id, credentials string, args ...string) *replica {
	t.Helper()
	r := &replica{id: id, grpc: freePort(t), http: freePort(t)}
	r.process = start(t, id, append([]string{"serve", "--id", id, "--listen", r.grpc, "--http-listen", r.http,
		"--credentials-dir", credentials}, args...)...)
	eventually(t, id+" ready", 15*time.Second, r.ready)
	conn, err := grpc.NewClient(r.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r.api = basaltv1.NewClusterServiceClient(conn)
	return r
}

func (w *world) serve(t *testing.T, id string) *replica {
	t.Helper()
	return serve(t, id, w.credentials, "--etcd-endpoints", w.endpoint)
}

// create makes a cluster through the API.
func create(t *testing.T, r *replica, credentials, name string) {
	t.Helper()
	secrets(t, credentials, name)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := r.api.CreateCluster(ctx, &basaltv1.CreateClusterRequest{Name: name, Shards: 1, NodesPerShard: 1}); err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
}

// ownedBy checks the owner of clusters by the store.
func (w *world) ownedBy(t *testing.T, id string, clusters ...string) func() error {
	return func() error {
		for _, name := range clusters {
			owner, err := w.store.Owner(t.Context(), name)
			if err != nil {
				return err
			}
			if id != "" && owner.ID != id {
				return fmt.Errorf("%s is owned by %s", name, owner.ID)
			}
		}
		return nil
	}
}

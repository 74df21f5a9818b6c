// Package harness runs whole clusters of built programs and real servers for
// black-box tests, breaks them, and asks what became of them.
//
// A Cluster is one `basaltctl local up` with ports and directories of its own,
// so several can run at once. Nothing of it outlives the test: the kernel kills
// the runner when the test binary ends, and the runner's processes with it.
package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/capture"
	"github.com/basalt-redis/basalt/internal/slot"
	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/consistency"
)

// Options of a cluster; zero fields take the defaults.
type Options struct {
	Shards        int // 3
	Replicas      int // 1 of each master; -1 for none
	Proxies       int // 1
	Configservers int // 1
	// Disk says what the nodes keep when they are killed; nothing.
	Disk Disk
	// Flags are added to `basaltctl local up`.
	Flags []string
}

// Disk is how nodes keep their data.
type Disk int

// Disks.
const (
	// Nothing: a node that starts again is empty.
	Nothing Disk = iota
	// AppendOnly: it has what it acknowledged.
	AppendOnly
	// Snapshots: it has what it had when it was told to SAVE or to stop.
	Snapshots
)

// String names the disk.
func (d Disk) String() string { return [...]string{"nothing", "append-only", "snapshots"}[d] }

// flags of `basaltctl local up` for nodes whose files are in dir.
func (d Disk) flags(dir string) []string {
	switch d {
	case AppendOnly:
		return []string{"--data-dir", dir}
	case Snapshots:
		// A time to save makes a server save when it is stopped.
		return []string{"--data-dir", dir, "--redis-config", "appendonly no", "--redis-config", "save 86400 1"}
	}
	return nil
}

// Cluster is a running cluster.
type Cluster struct {
	// Name of the cluster in the Configserver.
	Name string
	// Proxies and Configservers by number, "127.0.0.1:port".
	Proxies, Configservers []string
	// CredentialsDir holds the files of the cluster's secrets.
	CredentialsDir string
	// DataDir holds the data directories and logs of all processes.
	DataDir string

	options  Options
	ctl      string
	stateDir string
	apis     []*API
	runner   *exec.Cmd
	output   *capture.Buffer
	exited   chan struct{}
}

// runners starts processes on one thread that never ends: the kernel kills a
// child with Pdeathsig when the thread that forked it ends.
var runners = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// Start runs a cluster until the test ends and returns when every slot is
// served and every replica in sync.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Shards == 0 {
		o.Shards = 3
	}
	switch o.Replicas {
	case 0:
		o.Replicas = 1
	case -1:
		o.Replicas = 0
	}
	o.Proxies, o.Configservers = max(o.Proxies, 1), max(o.Configservers, 1)
	for attempt := 1; ; attempt++ {
		if c := start(t, o, attempt == 5); c != nil {
			return c
		}
		t.Log("another program took a port that was free a moment ago: once more, with others")
	}
}

// start is one attempt of Start; nil, unless it is the last one, when a port was
// taken between being chosen and being used.
func start(t testing.TB, o Options, last bool) *Cluster {
	t.Helper()
	// Not t.TempDir: a unix socket's path must be short.
	stateDir, err := os.MkdirTemp("", "basalt-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(stateDir) })
	c := &Cluster{options: o, ctl: Binary(t, "basaltctl"), stateDir: stateDir, output: &capture.Buffer{}, exited: make(chan struct{})}
	args := append([]string{"local", "up", "--state-dir", stateDir, "--port", "0", "--configserver-port", "0",
		"--shards", strconv.Itoa(o.Shards), "--replicas", strconv.Itoa(o.Replicas),
		"--proxies", strconv.Itoa(o.Proxies), "--configservers", strconv.Itoa(o.Configservers), "-o", "json"}, o.Flags...)
	args = append(args, o.Disk.flags(filepath.Join(stateDir, "data"))...)
	c.runner = exec.Command(c.ctl, args...)
	c.runner.Env = cleanEnv()
	c.runner.Stdout, c.runner.Stderr = c.output, c.output
	c.runner.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	runners() <- func() { started <- c.runner.Start() }
	if err := <-started; err != nil {
		t.Fatalf("start basaltctl local up: %v", err)
	}
	go func() {
		_ = c.runner.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() { c.stop(t) })
	if !c.waitReady(t, last) {
		return nil
	}
	c.WaitHealthy(t, 30*time.Second)
	return c
}

// cleanEnv is the environment without the variables that steer Basalt.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "SHARDS", "REPLICAS", "PROXIES", "PORT", "CONFIGSERVERS", "DATA_DIR", "CLIENT_PASSWORD_FILE", "DEBUG":
			continue
		}
		if !strings.HasPrefix(name, "BASALT_") {
			env = append(env, kv)
		}
	}
	return env
}

// waitReady waits until the cluster serves. It returns false when the runner ended
// because a port was taken, unless this is the last attempt.
func (c *Cluster) waitReady(t testing.TB, last bool) bool {
	t.Helper()
	taken := false
	Eventually(t, 60*time.Second, "basaltctl local up is ready", func() error {
		select {
		case <-c.exited:
			out := c.output.String()
			taken = strings.Contains(out, "Failed listening on port") || strings.Contains(out, "address already in use")
			if taken && !last {
				return nil
			}
			t.Fatalf("basaltctl local up ended: %s\n%s", c.runner.ProcessState, c.output)
		default:
		}
		if !strings.Contains(c.output.String(), `"ready":true`) {
			return fmt.Errorf("its output so far:\n%s", c.output)
		}
		return nil
	})
	if taken {
		return false
	}
	st := c.LocalStatus(t)
	c.Name, c.Proxies, c.Configservers = st.Cluster, st.Proxies, st.Configservers
	c.CredentialsDir, c.DataDir = filepath.Join(st.CredentialsDir, st.Cluster), st.DataDir
	for _, addr := range c.Configservers {
		api, err := DialAPI(addr)
		if err != nil {
			t.Fatal(err)
		}
		c.apis = append(c.apis, api)
	}
	return true
}

// stop ends the runner and requires that every process went with it.
func (c *Cluster) stop(t testing.TB) {
	if t.Failed() {
		c.keepLogs(t)
	}
	for _, a := range c.apis {
		a.Close()
	}
	st, err := c.localStatus()
	_ = c.runner.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(20 * time.Second):
		t.Error("basaltctl local up did not end within 20 s of SIGTERM")
		_ = c.runner.Process.Kill()
		<-c.exited
	}
	if err != nil {
		return
	}
	for _, p := range st.Processes {
		if p.PID > 0 && syscall.Kill(p.PID, 0) == nil {
			t.Errorf("%s (pid %d) outlived its runner", p.Name, p.PID)
		}
	}
}

// keepLogs copies the logs of a failed test to $BASALT_TEST_LOGS, if that is
// set, and shows what the runner said.
func (c *Cluster) keepLogs(t testing.TB) {
	out := c.output.String()
	t.Logf("the end of what basaltctl local up said:\n%s", out[max(0, len(out)-3000):])
	root := os.Getenv("BASALT_TEST_LOGS")
	if root == "" || c.DataDir == "" {
		return
	}
	to := filepath.Join(root, strings.ReplaceAll(t.Name(), "/", "_"))
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Log(err)
		return
	}
	logs, err := filepath.Glob(filepath.Join(c.DataDir, "logs", "*"))
	if err != nil {
		t.Log(err)
	}
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(path)), data, 0o600)
		}
		if err != nil {
			t.Log(err)
		}
	}
	t.Logf("logs are in %s", to)
}

// LocalStatus is what `basaltctl local status -o json` prints.
type LocalStatus struct {
	Cluster        string         `json:"cluster"`
	Configservers  []string       `json:"configservers"`
	Proxies        []string       `json:"proxies"`
	DataDir        string         `json:"dataDir"`
	CredentialsDir string         `json:"credentialsDir"`
	Processes      []LocalProcess `json:"processes"`
}

// LocalProcess is one process of the cluster.
type LocalProcess struct {
	// Name is a node id, "proxy-0", "configserver-0" or "etcd".
	Name string `json:"name"`
	// Kind is "node", "proxy", "configserver" or "etcd".
	Kind string `json:"kind"`
	// PID is 0 when it does not run.
	PID int `json:"pid"`
	// State is "running", "paused" or "exited".
	State       string `json:"state"`
	Address     string `json:"address"`
	HTTPAddress string `json:"httpAddress"`
	DataDir     string `json:"dataDir"`
}

func (c *Cluster) localStatus() (LocalStatus, error) {
	var st LocalStatus
	out, err := c.run("local", "status", "-o", "json")
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	return st, err
}

// LocalStatus asks the runner.
func (c *Cluster) LocalStatus(t testing.TB) LocalStatus {
	t.Helper()
	st, err := c.localStatus()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// run calls basaltctl on this cluster and returns what it printed.
func (c *Cluster) run(args ...string) ([]byte, error) {
	cmd := exec.Command(c.ctl, args...)
	cmd.Env = append(cleanEnv(), "BASALT_LOCAL_STATE="+c.stateDir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("basaltctl %s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out, nil
}

// CLI calls basaltctl on this cluster and returns what it printed; an error
// fails the test.
func (c *Cluster) CLI(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TryCLI calls basaltctl on this cluster for tests that expect an error.
func (c *Cluster) TryCLI(args ...string) (string, error) {
	out, err := c.run(args...)
	return string(out), err
}

// Shards returns the shards with their slots, in the topology's order.
func (c *Cluster) Shards(t testing.TB) []consistency.Shard {
	t.Helper()
	var shards []consistency.Shard
	for _, sh := range c.Topology(t).GetShards() {
		one := consistency.Shard{ID: sh.GetId()}
		for _, r := range sh.GetSlots() {
			part := slot.Range(int(r.GetStart()), int(r.GetEnd()))
			one.Slots.Union(&part)
		}
		shards = append(shards, one)
	}
	return shards
}

// Master returns the master of shard number i as of now, nil while there is
// none.
func (c *Cluster) Master(t testing.TB, i int) *pb.Node {
	t.Helper()
	sh := c.Topology(t).GetShards()[i]
	return node(sh, sh.GetMaster())
}

// AdminPassword is the password of basalt-admin at the servers.
func (c *Cluster) AdminPassword(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.CredentialsDir, "admin-password"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(first)
}

// Admin connects to a server as its admin until the test ends. The server may just
// be starting.
func (c *Cluster) Admin(t testing.TB, addr string) (conn *consistency.Conn) {
	t.Helper()
	Eventually(t, 5*time.Second, "connect to "+addr, func() (err error) {
		conn, err = consistency.Dial(t.Context(), addr, "basalt-admin", c.AdminPassword(t))
		return err
	})
	t.Cleanup(conn.Close)
	return conn
}

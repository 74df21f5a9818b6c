// Package playground tests `basaltctl local`: what a newcomer and the other
// black-box tests rely on.
package playground

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// playground is one `basaltctl local up`.
type playground struct {
	t       *testing.T
	ctl     string
	state   string
	dataDir string
	cmd     *exec.Cmd
	lines   chan string
	stderr  *bytes.Buffer
	ready   ready
}

type ready struct {
	Ready         bool     `json:"ready"`
	Endpoint      string   `json:"endpoint"`
	Configservers []string `json:"configservers"`
	Proxies       []string `json:"proxies"`
	DataDir       string   `json:"dataDir"`
	TookMS        int      `json:"tookMs"`
}

type process struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	State   string `json:"state"`
	Address string `json:"address"`
	Role    string `json:"role"`
}

// place returns a short path for state and data; sockets have short names.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "basalt-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func env() []string {
	var out []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "BASALT_") || slices.Contains([]string{"SHARDS", "REPLICAS", "PROXIES", "PORT", "CONFIGSERVERS", "DATA_DIR"}, name) {
			continue
		}
		out = append(out, kv)
	}
	return out
}

// start runs `local up` in dir and does not wait.
func start(t *testing.T, dir string, args ...string) *playground {
	t.Helper()
	p := &playground{
		t: t, ctl: harness.Binary(t, "basaltctl"), state: filepath.Join(dir, "state"), dataDir: filepath.Join(dir, "data"),
		lines: make(chan string, 1000), stderr: &bytes.Buffer{},
	}
	p.cmd = exec.Command(p.ctl, append([]string{"--state-dir", p.state, "-o", "json", "local", "up",
		"--port", "0", "--configserver-port", "0", "--data-dir", p.dataDir}, args...)...)
	p.cmd.Env = env()
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			p.lines <- scanner.Text()
		}
		close(p.lines)
	}()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	return p
}

// up runs `local up` until it is ready.
func up(t *testing.T, dir string, args ...string) *playground {
	t.Helper()
	p := start(t, dir, args...)
	select {
	case line, ok := <-p.lines:
		if err := json.Unmarshal([]byte(line), &p.ready); !ok || err != nil || !p.ready.Ready {
			_ = p.cmd.Wait()
			t.Fatalf("local up said %q and %s", line, p.stderr)
		}
	case <-time.After(60 * time.Second):
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		t.Fatalf("not ready after 60 s: %s", p.stderr)
	}
	t.Logf("ready after %d ms", p.ready.TookMS)
	return p
}

func (p *playground) run(args ...string) (string, error) {
	cmd := exec.Command(p.ctl, append([]string{"--state-dir", p.state}, args...)...)
	cmd.Env = env()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *playground) must(want string, args ...string) string {
	p.t.Helper()
	out, err := p.run(args...)
	if err != nil || !strings.Contains(out, want) {
		p.t.Fatalf("basaltctl %s: %v\n%swant %q", strings.Join(args, " "), err, out, want)
	}
	return out
}

func (p *playground) processes() map[string]process {
	p.t.Helper()
	var s struct{ Processes []process }
	if err := json.Unmarshal([]byte(p.must("", "local", "status", "-o", "json")), &s); err != nil {
		p.t.Fatal(err)
	}
	byName := map[string]process{}
	for _, one := range s.Processes {
		byName[one.Name] = one
	}
	return byName
}

// do runs one command at the first proxy; retried while the shard fails over.
func (p *playground) do(args ...string) string {
	p.t.Helper()
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		conn, err := consistency.Dial(p.t.Context(), p.ready.Endpoint, "", "")
		if err != nil {
			last = err
			continue
		}
		reply, err := conn.Do(args...)
		conn.Close()
		if last = errors.Join(err, reply.Err); last == nil {
			return string(reply.Text)
		}
	}
	p.t.Fatalf("%s: %v", strings.Join(args, " "), last)
	return ""
}

// left lists processes that have the playground's directory in their command
// line.
func (p *playground) left() []string {
	p.t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.t.Fatal(err)
	}
	own := strconv.Itoa(p.cmd.Process.Pid)
	var out []string
	for _, path := range paths {
		line, err := os.ReadFile(path)
		pid := filepath.Base(filepath.Dir(path))
		if err == nil && pid != own && bytes.Contains(line, []byte(filepath.Dir(p.dataDir))) {
			out = append(out, pid+" "+string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return out
}

func (p *playground) requireNoneLeft() {
	p.t.Helper()
	var left []string
	for range 300 {
		if left = p.left(); len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Fatalf("left behind: %s", strings.Join(left, "\n"))
}

// end sends a signal to the runner and waits for its end.
func (p *playground) end(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case err := <-ended:
		if sig != syscall.SIGKILL && err != nil {
			p.t.Fatalf("the runner ended with %v: %s", err, p.stderr)
		}
	case <-time.After(15 * time.Second):
		p.t.Fatal("the runner did not end within 15 s")
	}
	p.requireNoneLeft()
}

// A newcomer's hour: start, break things, stop, start again, find the data.
func TestPlayground(t *testing.T) {
	dir := place(t)
	p := up(t, dir)
	p.do("SET", "hello", "world")

	before := p.processes()
	for _, name := range []string{"configserver-0", "proxy-0", "shard-0-0", "shard-0-1", "shard-1-0", "shard-1-1", "shard-2-0", "shard-2-1"} {
		if before[name].State != "running" || before[name].PID == 0 {
			t.Fatalf("%s: %+v", name, before[name])
		}
	}
	if before["shard-0-0"].Role != "master" || before["shard-0-1"].Role != "replica" {
		t.Fatal("the roles are not as after forming:", before)
	}

	p.must("killed shard-0-0 (pid "+strconv.Itoa(before["shard-0-0"].PID)+", master of shard-0)", "local", "kill", "shard-0/master")
	p.do("SET", "{shard-0 is hit by some of these}1", "x")
	waitFor(t, "a failover of shard-0", func() bool { return p.processes()["shard-0-1"].Role == "master" })
	if s := p.processes()["shard-0-0"]; s.State != "exited" || s.PID != 0 {
		t.Fatalf("killed, and yet %+v", s)
	}
	p.must("started shard-0-0 (pid ", "local", "start", "--empty", "shard-0-0")
	p.must("paused shard-1-1", "local", "pause", "shard-1/replica")
	if s := p.processes()["shard-1-1"]; s.State != "paused" {
		t.Fatalf("%+v", s)
	}
	p.must("resumed shard-1-1", "local", "resume", "shard-1-1")
	p.must("restarted proxy-0", "local", "restart", "proxy-0")
	p.do("GET", "hello")
	// Roles are known without a Configserver, too.
	p.must("killed configserver-0", "local", "kill", "configserver-0")
	p.must("paused shard-0-1", "local", "pause", "shard-0/master")
	p.must("resumed shard-0-1", "local", "resume", "shard-0/master")
	p.must("started configserver-0", "local", "start", "configserver-0")
	waitFor(t, "the configserver", func() bool { _, err := p.run("cluster", "list"); return err == nil })
	p.must("export BASALT_CONFIGSERVER='"+p.ready.Configservers[0]+"'", "local", "env")
	out, err := p.run("local", "kill", "shard-9/master")
	if err == nil || !strings.Contains(out, "no target") {
		t.Fatal(out, err)
	}

	t.Run("a second one", func(t *testing.T) {
		refused := func(want string, args ...string) {
			t.Helper()
			cmd := exec.Command(p.ctl, args...)
			cmd.Env = env()
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), want) || strings.Count(string(out), "\n") != 1 {
				t.Errorf("%v: %v\n%swant one line with %q", args, err, out, want)
			}
		}
		other := place(t)
		refused("is running already", "--state-dir", p.state, "local", "up", "--port", "0", "--configserver-port", "0")
		refused("in use by another", "--state-dir", other, "local", "up", "--port", "0", "--configserver-port", "0", "--data-dir", p.dataDir)
		_, port, _ := net.SplitHostPort(p.ready.Endpoint)
		refused("port "+port+" is in use", "--state-dir", other, "local", "up", "--port", port, "--configserver-port", "0")
		_, port, _ = net.SplitHostPort(p.ready.Configservers[0])
		refused("port "+port+" is in use", "--state-dir", other, "local", "up", "--port", "0", "--configserver-port", port)
		refused("redis-nowhere not found", "--state-dir", other, "local", "up", "--redis-server", "redis-nowhere")
		refused("SHARDS=-1: want 1 to 1024", "--state-dir", other, "local", "up", "--shards", "-1", "--replicas", "9")
	})

	t.Run("events are printed as they happen", func(t *testing.T) {
		other := place(t)
		cmd := exec.Command(p.ctl, "--state-dir", other, "local", "up", "--port", "0", "--configserver-port", "0", "--shards", "1")
		cmd.Env = env()
		said, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		ready, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
		defer end.Stop()
		killed := false
		for out := bufio.NewScanner(ready); !killed && out.Scan(); {
			if killed = strings.HasPrefix(out.Text(), "Ctrl-C stops"); killed {
				kill := exec.Command(p.ctl, "--state-dir", other, "local", "kill", "shard-0/master")
				kill.Env = env()
				if out, err := kill.CombinedOutput(); err != nil {
					t.Errorf("%s: %v", out, err)
				}
			}
		}
		told := false
		for out := bufio.NewScanner(said); out.Scan(); {
			if strings.Contains(out.Text(), "FailoverFinished") {
				told = true
				_ = cmd.Process.Signal(os.Interrupt)
			}
		}
		if err := cmd.Wait(); err != nil || !killed || !told {
			t.Errorf("%v; ready: %v, the failover was told: %v", err, killed, told)
		}
	})

	waitFor(t, "shard-0-0 back in sync", func() bool {
		out, err := p.run("cluster", "status", "-o", "json")
		return err == nil && !strings.Contains(out, "NODE_ROLE_FENCED") && strings.Contains(out, `"problems": []`)
	})
	// A transaction, which a server loads otherwise than a command.
	p.do("EVAL", "redis.call('set', KEYS[1], 'again') redis.call('incr', KEYS[2])", "2", "hello", "{hello}:times")
	for i := range 20 { // something in every shard: of one that was empty nobody can tell that it lost nothing
		p.do("SET", fmt.Sprint("key", i), "value")
	}
	addresses := p.processes()
	var newest struct {
		Events []struct{ Sequence string } `json:"events"`
	}
	if err := json.Unmarshal([]byte(p.must("", "events", "list", "--limit", "1", "-o", "json")), &newest); err != nil || len(newest.Events) != 1 {
		t.Fatal(err, newest)
	}
	last := newest.Events[0].Sequence
	p.end(syscall.SIGINT)
	if out, err := p.run("local", "status"); err == nil || !strings.Contains(out, "no local playground is running") {
		t.Fatal(out, err)
	}

	// The same again on what was kept.
	p = up(t, dir)
	if got := p.do("GET", "hello"); got != "again" {
		t.Fatalf("GET hello: %s", got)
	}
	for name, s := range p.processes() {
		if strings.HasPrefix(name, "shard-") && s.Address != addresses[name].Address {
			t.Fatalf("%s moved from %s to %s", name, addresses[name].Address, s.Address)
		}
	}
	// A stop and a start as planned are no catastrophe.
	var list struct {
		Events []struct{ Kind, Severity, Message string } `json:"events"`
	}
	if err := json.Unmarshal([]byte(p.must("", "events", "list", "--after", last, "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, e := range list.Events {
		kinds[e.Kind]++
		switch e.Kind {
		case "AllNodesRestarted", "FailoverBegan", "FailoverFinished":
			if e.Severity != "SEVERITY_INFO" || strings.Contains(e.Message, "replaces") {
				t.Errorf("%s %s: %s", e.Severity, e.Kind, e.Message)
			}
		}
	}
	if kinds["FailoverFinished"] == 0 {
		t.Errorf("events since the start: %v", kinds)
	}
	p.end(syscall.SIGKILL)

	// And after a death without warning.
	p = up(t, dir)
	if got := p.do("GET", "hello"); got != "again" {
		t.Fatalf("GET hello: %s", got)
	}
	p.must("stopped the playground", "local", "down")
	_ = p.cmd.Wait()
	p.requireNoneLeft()
}

// Killed at any time while it starts, the runner leaves no process, and what it
// leaves on disk can be started again.
func TestKilledWhileStarting(t *testing.T) {
	dir := place(t)
	for _, ms := range []int{20, 100, 250, 500, 900} {
		p := start(t, dir, "--shards", "2")
		time.Sleep(time.Duration(ms) * time.Millisecond)
		p.end(syscall.SIGKILL)
	}
	p := up(t, dir, "--shards", "2")
	p.do("SET", "hello", "world")
	p.end(syscall.SIGTERM)
}

// Several of everything: proxies on consecutive ports, Configservers on one
// etcd of its own, a password for clients.
func TestSeveral(t *testing.T) {
	dir := place(t)
	port, err := harness.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	p := up(t, dir, "--port", strconv.Itoa(port), "--proxies", "2", "--configservers", "2", "--shards", "1", "--replicas", "2")
	want := []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+1)}
	if !slices.Equal(p.ready.Proxies, want) || len(p.ready.Configservers) != 2 {
		t.Fatalf("%+v", p.ready)
	}
	if s := p.processes(); s["etcd"].State != "running" || s["configserver-1"].State != "running" {
		t.Fatal(s)
	}
	p.must("killed shard-0-1", "local", "kill", "shard-0/replicas")
	p.must("started shard-0-2", "local", "start", "shard-0-1", "shard-0-2")
	p.must("restarted etcd", "local", "restart", "etcd")
	p.do("SET", "hello", "world")
	p.end(syscall.SIGTERM)
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

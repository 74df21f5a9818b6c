// Package redistest runs real redis-servers for tests: each in its own
// process and temporary directory, booted fenced exactly as a node of a cluster
// is, and gone when its test ends.
package redistest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// AdminUser is the only user of a fenced server that may do anything.
const AdminUser = "basalt-admin"

// Options of a server; zero fields take defaults.
type Options struct {
	// AdminPassword of AdminUser; "test-admin-password" when empty.
	AdminPassword string
	// Open leaves the default user on, as in a plain Redis.
	Open bool
	// Persist keeps an RDB file over restarts ("save 3600 1"); without it a
	// server has no persistence at all.
	Persist bool
	// Config are more lines of the configuration file.
	Config []string
	// Address is "host:port"; a free port of 127.0.0.1 when empty.
	Address string
	// Binary is the server; $REDIS_SERVER or "redis-server" when empty.
	Binary string
}

// Server is one redis-server on this machine.
type Server struct {
	// Address is "127.0.0.1:port" or that of the options; a restart keeps it.
	Address string
	// AdminPassword of AdminUser.
	AdminPassword string

	t       testing.TB
	options Options
	dir     string
	cmd     *exec.Cmd
	exited  chan struct{}
	output  *output
}

// Start starts a server and waits until it answers. The test ends it.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.AdminPassword == "" {
		o.AdminPassword = "test-admin-password"
	}
	if o.Binary == "" {
		o.Binary = os.Getenv("REDIS_SERVER")
	}
	if o.Binary == "" {
		o.Binary = "redis-server"
	}
	// Not t.TempDir: its path can be too long and it fails the test when a
	// server that is being killed still writes there.
	dir, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{AdminPassword: o.AdminPassword, t: t, options: o, dir: dir}
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(dir)
	})
	if s.Address = o.Address; s.Address != "" {
		if err := s.start(); err != nil {
			t.Fatalf("start %s at %s: %v", o.Binary, s.Address, err)
		}
		return s
	}
	for range 20 {
		s.Address = "127.0.0.1:" + strconv.Itoa(FreePort(t))
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("start %s: %v", o.Binary, err)
	return nil
}

// ports were handed out by this process: a server that is killed finds its own
// free when it starts again, whatever other tests start meanwhile.
var ports struct {
	sync.Mutex
	handed map[int]bool
}

// FreePort returns a port of 127.0.0.1 that nobody listens on now and that this
// process was not given before, below the range from which the kernel takes
// ports for outgoing connections.
func FreePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		port := 10000 + rand.IntN(20000) //nolint:gosec // to meet nobody, not to hide
		if ports.handed[port] {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			_ = l.Close()
			if ports.handed == nil {
				ports.handed = map[int]bool{}
			}
			ports.handed[port] = true
			return port
		}
	}
	t.Fatal("no free port from 10000 to 29999")
	return 0
}

// config is the fenced boot configuration: no user but the admin's and the
// liveness probe's, and nothing about replication.
func (s *Server) config() string {
	host, port, _ := net.SplitHostPort(s.Address)
	sum := sha256.Sum256([]byte(s.AdminPassword))
	lines := []string{
		"bind " + host, "port " + port, "dir " + s.dir, "daemonize no",
		"appendonly no", "loglevel notice",
		"user " + AdminUser + " on #" + hex.EncodeToString(sum[:]) + " ~* &* +@all",
		"user basalt-probe on nopass resetkeys resetchannels -@all +ping",
	}
	if since7(s.options.Binary) { // earlier, DEBUG is always enabled and there is no such line
		lines = append(lines, "enable-debug-command yes")
	}
	if s.options.Open {
		lines = append(lines, "user default on nopass ~* &* +@all")
	} else {
		lines = append(lines, "user default off ~* &* +@all")
	}
	if s.options.Persist {
		lines = append(lines, "save 3600 1")
	} else {
		lines = append(lines, `save ""`)
	}
	return strings.Join(append(lines, s.options.Config...), "\n") + "\n"
}

// versions remembers what since7 found.
var versions sync.Map

// since7 tells if a server is Redis from 7.0 or Valkey, by what it prints for
// --version: "Redis server v=7.0.15 sha=…".
func since7(binary string) bool {
	if known, ok := versions.Load(binary); ok {
		return known.(bool)
	}
	out, _ := exec.Command(binary, "--version").Output()
	_, rest, _ := bytes.Cut(out, []byte(" v="))
	major, _, _ := bytes.Cut(rest, []byte("."))
	n, _ := strconv.Atoi(string(major))
	versions.Store(binary, n >= 7)
	return n >= 7
}

func (s *Server) start() error {
	path := filepath.Join(s.dir, "redis.conf")
	if err := os.WriteFile(path, []byte(s.config()), 0o600); err != nil {
		return err
	}
	s.output = &output{ready: make(chan struct{})}
	cmd := exec.Command(s.options.Binary, path)
	cmd.Stdout, cmd.Stderr = s.output, s.output
	// No orphan, however the test process ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	select {
	case <-s.output.ready:
		return nil
	case <-exited:
		return fmt.Errorf("%s exited: %s", s.options.Binary, s.output)
	case <-time.After(startTimeout):
		s.Kill()
		return fmt.Errorf("not ready within %s: %s", startTimeout, s.output)
	}
}

// startTimeout is how long a server may take until it is ready; on a machine
// with much else to do that can be seconds.
const startTimeout = 30 * time.Second

// output keeps what a server writes. The server itself says when it is ready:
// another one that took the port would answer, too.
type output struct {
	ready chan struct{}

	mu   sync.Mutex
	text []byte
	said bool
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	if !o.said && bytes.Contains(o.text, []byte("Ready to accept connections")) {
		o.said = true
		close(o.ready)
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// Client returns a client that logs in as a user, or as nobody when user is
// empty. It never retries. Close it.
func (s *Server) Client(user, password string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: s.Address, Username: user, Password: password,
		Protocol: 2, MaxRetries: -1, DisableIdentity: true,
		DialTimeout: time.Second, ReadTimeout: 10 * time.Second, DialerRetries: 1,
	})
}

// Do runs one command as the admin and returns its reply.
func (s *Server) Do(args ...any) (any, error) {
	c := s.Client(AdminUser, s.AdminPassword)
	defer c.Close()
	return c.Do(context.Background(), args...).Result()
}

// MustDo is Do that fails the test.
func (s *Server) MustDo(args ...any) any {
	s.t.Helper()
	reply, err := s.Do(args...)
	if err != nil && !errors.Is(err, redis.Nil) {
		s.t.Fatalf("%s: %v: %v", s.Address, args[0], err)
	}
	return reply
}

// Info returns one field of INFO as the admin reads it, "" when there is none.
func (s *Server) Info(field string) string {
	s.t.Helper()
	text, _ := s.MustDo("INFO").(string)
	for line := range strings.SplitSeq(text, "\r\n") {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return value
		}
	}
	return ""
}

// Pid is the process id of the server.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// Pause stops the process with SIGSTOP: its port still accepts, nothing
// answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal %v to %s: %v", sig, s.Address, err)
	}
}

// Restart kills the server, if it lives, and starts it again on its port with
// what it had on disk.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatalf("restart %s: %v", s.Address, err)
	}
}

// RestartEmpty is Restart with an empty data directory.
func (s *Server) RestartEmpty() {
	s.t.Helper()
	s.Kill()
	_ = os.Remove(filepath.Join(s.dir, "dump.rdb"))
	_ = os.RemoveAll(filepath.Join(s.dir, "appendonlydir"))
	if err := s.start(); err != nil {
		s.t.Fatalf("restart %s: %v", s.Address, err)
	}
}

// Log returns what the server wrote since it was started last.
func (s *Server) Log() string { return s.output.String() }

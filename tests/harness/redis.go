package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
)

// RedisServer is the server binary that tests run: $REDIS_SERVER or
// "redis-server".
func RedisServer() string {
	if path := os.Getenv("REDIS_SERVER"); path != "" {
		return path
	}
	return "redis-server"
}

// Redis is one plain server of a test, without a cluster around it.
type Redis struct {
	Address string
	Process *os.Process
}

// StartRedis runs a server until the test ends; args are added to its command
// line.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	for attempt := 1; ; attempt++ {
		r, err := tryRedis(t, args)
		if err == nil {
			return r
		}
		// Another process may have taken the port that was free a moment ago.
		if attempt == 3 {
			t.Fatalf("%s does not start: %v", RedisServer(), err)
		}
		t.Logf("%s is started once more: %v", RedisServer(), err)
	}
}

// tryRedis runs a server; an error is that it ended or does not answer.
func tryRedis(t testing.TB, args []string) (*Redis, error) {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args = append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir,
		"--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"}, args...)
	cmd := exec.Command(RedisServer(), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", RedisServer(), err)
	}
	_ = log.Close()
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	r := &Redis{Address: fmt.Sprintf("127.0.0.1:%d", port), Process: cmd.Process}
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := r.ping(t)
		if err == nil {
			return r, nil
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		said, _ := os.ReadFile(filepath.Join(dir, "server.log"))
		return nil, fmt.Errorf("%w; it said: %s", err, said)
	}
}

func (r *Redis) ping(t testing.TB) error {
	c, err := consistency.Dial(t.Context(), r.Address, "", "")
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Do("PING")
	if err == nil {
		err = reply.Err
	}
	return err
}

// Eventually calls check until it returns nil, and fails the test with its last
// error when that takes longer than limit. It returns how long it took.
func Eventually(t testing.TB, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

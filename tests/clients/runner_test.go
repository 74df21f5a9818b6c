package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/capture"
)

// password of the endpoint and of the plain server, so that every connect and
// every reconnect has to log in.
const password = "a-password-of-tests"

// steps are the commands that every program runs in its plainest way.
const steps = "testdata/steps.txt"

// client is one program.
type client struct {
	name string
	// command starts it; build makes what it starts, if it must be made.
	command []string
	build   []string
}

// programs returns the programs; those that are compiled go to dir.
func programs(dir string) []client {
	goProgram := func(name, folder string) client {
		path := filepath.Join(dir, folder)
		return client{name, []string{path}, []string{"go", "build", "-o", path, "./programs/" + folder}}
	}
	hiredis := filepath.Join(dir, "hiredis")
	return []client{
		goProgram("go-redis", "goredis"),
		goProgram("rueidis", "rueidis"),
		goProgram("redigo", "redigo"),
		{"ioredis", []string{"node", "programs/node/ioredis.mjs"}, nil},
		{"node-redis", []string{"node", "programs/node/noderedis.mjs"}, nil},
		// Debian's interpreters, whatever else has these names here: the libraries are
		// Debian's.
		{"redis-py", []string{"/usr/bin/python3", "programs/python/main.py"}, nil},
		{"hiredis", []string{hiredis}, []string{"gcc", "-O1", "-Wall", "-Werror", "-pthread", "-o", hiredis, "programs/hiredis/main.c", "-lhiredis"}},
		{"phpredis", []string{"/usr/bin/php", "programs/php/main.php"}, nil},
		{"ruby-redis", []string{"/usr/bin/ruby", "programs/ruby/main.rb"}, nil},
	}
}

// program is a running program.
type program struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output *capture.Buffer
	ended  chan error
}

// start starts a command in a process group of its own, which the test's end
// kills, and so does limit.
func start(t testing.TB, limit time.Duration, command ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	cmd.Env = append(os.Environ(), "REDIS_PASSWORD="+password, "REDISCLI_AUTH="+password, "NO_COLOR=1")
	p := &program{cmd: cmd, output: &capture.Buffer{}, ended: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	var err error
	if p.stdin, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatalf("%s: %v; `make test-clients` installs what is missing", command[0], err)
	}
	go func() {
		err := cmd.Wait()
		if ctx.Err() != nil {
			err = fmt.Errorf("it did not end within %s: %w", limit, errors.Join(err, ctx.Err()))
		}
		p.ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		// What it left behind in its group; the group is gone when it left nothing.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	return p
}

// run runs a command to its end and returns what it printed.
func run(t testing.TB, limit time.Duration, command ...string) (string, error) {
	t.Helper()
	p := start(t, limit, command...)
	_ = p.stdin.Close()
	err := <-p.ended
	return p.output.String(), err
}

// verdict is what a program says about one feature.
type verdict struct {
	// state is "ok", "FAIL" or "none"; seen is the rest of its line.
	state, seen string
}

// verdicts reads the lines of a program; every feature must have one line.
func verdicts(output string, features []string) (map[string]verdict, error) {
	found := map[string]verdict{}
	for line := range strings.Lines(output) {
		state, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		if state != "ok" && state != "FAIL" && state != "none" {
			continue
		}
		name, seen, _ := strings.Cut(rest, " ")
		if _, twice := found[name]; twice {
			return nil, fmt.Errorf("two lines about %s", name)
		}
		found[name] = verdict{state, seen}
	}
	for _, f := range features {
		if _, ok := found[f]; !ok {
			return found, fmt.Errorf("no line about %s", f)
		}
	}
	if len(found) != len(features) {
		return found, fmt.Errorf("%d features of %d", len(found), len(features))
	}
	return found, nil
}

func hostPort(t testing.TB, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

package local

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Kind is what a process is.
type Kind string

// Kinds of processes, in the order in which they are started. They are stopped
// proxies first, so that nothing is asked of a node that is gone, then
// Configservers, so that none mistakes the end for a failure.
const (
	KindEtcd         Kind = "etcd"
	KindConfigserver Kind = "configserver"
	KindNode         Kind = "node"
	KindProxy        Kind = "proxy"
)

// Process states as `local status` shows them.
const (
	StateRunning = "running"
	StatePaused  = "paused"
	StateExited  = "exited"
)

// process is one child: how to start it, and its run now.
type process struct {
	name, path string
	kind       Kind
	args       []string
	env        []string
	// dir is its data directory and working directory, logPath its log.
	dir, logPath  string
	address, http string
	// prepare runs before each start; it writes the config file.
	prepare func() error

	spawn spawner
	// died is told of a run that ended though nobody here ended it.
	died func(p *process, how string)

	mu       sync.Mutex
	run      *run
	lastExit string
}

// run is one life of a process.
type run struct {
	os   *os.Process
	pid  int
	done chan struct{} // closes when it was reaped
	// expected: a kill or stop was asked for.
	expected bool
}

var errNotRunning = errors.New("not running")

// alive returns the run when there is one now. The caller holds mu.
func (p *process) alive() *run {
	if p.run == nil {
		return nil
	}
	select {
	case <-p.run.done:
		return nil
	default:
		return p.run
	}
}

// start begins a new life with extra environment; it returns the pid.
func (p *process) start(extraEnv ...string) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.alive(); r != nil {
		return 0, fmt.Errorf("%s is running already (pid %d)", p.name, r.pid)
	}
	if p.prepare != nil {
		if err := p.prepare(); err != nil {
			return 0, fmt.Errorf("start %s: %w", p.name, err)
		}
	}
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", p.name, err)
	}
	defer log.Close()
	env := append(append(baseEnv(), p.env...), extraEnv...)
	child, err := p.spawn.start(p.path, p.args, env, p.dir, log)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", p.name, err)
	}
	r := &run{os: child, pid: child.Pid, done: make(chan struct{})}
	p.run = r
	go p.reap(r)
	return r.pid, nil
}

func (p *process) reap(r *run) {
	state, err := r.os.Wait()
	how := "unknown"
	if err == nil {
		how = state.String()
	}
	p.mu.Lock()
	p.lastExit = how
	expected := r.expected
	close(r.done)
	p.mu.Unlock()
	if !expected && p.died != nil {
		p.died(p, how)
	}
}

// signal sends sig to the run there is; it returns its pid and a channel that
// closes when it ended. expected keeps its end from being reported.
func (p *process) signal(sig syscall.Signal, expected bool) (int, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.alive()
	if r == nil {
		return 0, nil, fmt.Errorf("%s is %w", p.name, errNotRunning)
	}
	r.expected = r.expected || expected
	if err := r.os.Signal(sig); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return 0, nil, fmt.Errorf("%s is %w", p.name, errNotRunning)
		}
		return 0, nil, fmt.Errorf("signal %s (pid %d): %w", p.name, r.pid, err)
	}
	if sig == syscall.SIGTERM {
		// A paused process gets the signal once it runs again.
		_ = r.os.Signal(syscall.SIGCONT)
	}
	return r.pid, r.done, nil
}

// kill ends the run with SIGKILL and waits until it is reaped.
func (p *process) kill() (int, error) {
	pid, done, err := p.signal(syscall.SIGKILL, true)
	if err != nil {
		return 0, err
	}
	<-done
	return pid, nil
}

// stop asks the run to end and kills it when it has not after wait, or when
// hurry closes; killed tells whether that was needed.
func (p *process) stop(wait time.Duration, hurry <-chan struct{}) (pid int, killed bool, err error) {
	pid, done, err := p.signal(syscall.SIGTERM, true)
	if err != nil {
		return 0, false, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
		return pid, false, nil
	case <-timer.C:
	case <-hurry:
	}
	_, err = p.kill()
	if errors.Is(err, errNotRunning) {
		return pid, false, nil
	}
	return pid, true, err
}

// state returns what the process does now, its pid (0 when it does not run)
// and how it ended last.
func (p *process) state() (state string, pid int, exit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.alive()
	switch {
	case r == nil:
		return StateExited, 0, p.lastExit
	case paused(r.pid):
		return StatePaused, r.pid, ""
	}
	return StateRunning, r.pid, ""
}

// paused asks the kernel whether a process is stopped, whoever stopped it.
func paused(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// "4711 (name of it) T …"; the name may hold anything.
	i := bytes.LastIndexByte(stat, ')')
	return i >= 0 && i+2 < len(stat) && (stat[i+2] == 'T' || stat[i+2] == 't')
}

// lastLog returns the last line of the log, for an error message.
func (p *process) lastLog() string {
	data, err := os.ReadFile(p.logPath)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	line := string(lines[len(lines)-1])
	if len(line) > 300 {
		line = line[:300] + "…"
	}
	return line
}

// baseEnv is the runner's environment without Basalt's own variables: what a
// local process does is said by flags alone.
func baseEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "BASALT_") {
			env = append(env, kv)
		}
	}
	return env
}

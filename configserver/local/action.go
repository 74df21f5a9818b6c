package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Request asks the runner to do something to some of its processes.
type Request struct {
	// Action is "kill", "stop", "pause", "resume", "start" or "restart".
	Action  string   `json:"action"`
	Targets []string `json:"targets"`
	// Empty removes a node's data before it is started.
	Empty bool `json:"empty,omitempty"`
	// Kill makes a restart end the process with SIGKILL instead of SIGTERM.
	Kill bool `json:"kill,omitempty"`
	// Env is added to the environment of started processes, "KEY=VALUE".
	Env []string `json:"env,omitempty"`
}

// Done is what was done to one process.
type Done struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// What was done, for people: "killed shard-0-0 (pid 4711, master of shard-0)".
	What string `json:"what"`
}

// stopWait is how long `local stop` waits before it kills.
const stopWait = 5 * time.Second

// act does what a request asks for, one target after the other, and stops at
// the first that fails; what was done before is returned with the error.
func (g *playground) act(ctx context.Context, r Request) ([]Done, error) {
	if len(r.Targets) == 0 {
		return nil, fmt.Errorf("name what to %s, as in shard-0/master", r.Action)
	}
	for _, kv := range r.Env {
		if err := checkEnv(kv); err != nil {
			return nil, err
		}
	}
	g.acting.Lock()
	defer g.acting.Unlock()
	if g.stopping.Load() {
		return nil, errors.New("the playground is stopping")
	}
	// All targets are resolved first: killing the master of a shard changes
	// what shard-0/replica means.
	var processes []*process
	for _, target := range r.Targets {
		found, err := g.resolve(ctx, target)
		if err != nil {
			return nil, err
		}
		if len(found) > 1 {
			found = concerned(found, r.Action)
		}
		processes = append(processes, found...)
	}
	if len(processes) == 0 {
		return nil, fmt.Errorf("nothing to %s: %s are in that state already", r.Action, strings.Join(r.Targets, ", "))
	}
	var all []Done
	for _, p := range processes {
		done, err := g.actOn(p, r)
		if err != nil {
			return all, err
		}
		all = append(all, done)
	}
	return all, nil
}

// concerned leaves out the members of a group for which there is nothing to
// do: those that live when dead ones are to be started, and the other way
// round.
func concerned(group []*process, action string) []*process {
	return slices.DeleteFunc(slices.Clone(group), func(p *process) bool {
		_, pid, _ := p.state()
		switch action {
		case "start":
			return pid != 0
		case "kill", "stop", "pause", "resume":
			return pid == 0
		}
		return false
	})
}

func (g *playground) actOn(p *process, r Request) (Done, error) {
	done := Done{Name: p.name}
	var err error
	verb := ""
	switch r.Action {
	case "kill":
		verb = "killed"
		done.PID, err = p.kill()
	case "stop":
		var killed bool
		verb = "stopped"
		if done.PID, killed, err = p.stop(stopWait, g.opts.Hurry); killed {
			verb = fmt.Sprintf("killed, as it did not stop within %v,", stopWait)
		}
	case "pause":
		verb = "paused"
		done.PID, _, err = p.signal(syscall.SIGSTOP, false)
	case "resume":
		verb = "resumed"
		done.PID, _, err = p.signal(syscall.SIGCONT, false)
	case "start":
		verb = "started"
		done.PID, err = g.startAgain(p, r)
	case "restart":
		verb = "restarted"
		if r.Kill {
			_, err = p.kill()
		} else {
			_, _, err = p.stop(stopWait, g.opts.Hurry)
		}
		if err == nil || errors.Is(err, errNotRunning) {
			done.PID, err = g.startAgain(p, r)
		}
	default:
		err = fmt.Errorf("unknown action %q; there are kill, stop, pause, resume, start, restart", r.Action)
	}
	if err != nil {
		return done, err
	}
	role := ""
	if p.kind == KindNode {
		if role = g.roleOf(p.name); role != "" {
			role = ", " + role + " of " + shardOf(p.name)
		}
		if r.Empty {
			role += ", empty"
		}
	}
	done.What = fmt.Sprintf("%s %s (pid %d%s)", verb, p.name, done.PID, role)
	return done, nil
}

// startAgain starts a dead process, a node without its data when asked so.
func (g *playground) startAgain(p *process, r Request) (int, error) {
	if r.Empty {
		if p.kind != KindNode {
			return 0, fmt.Errorf("%s is no redis node; only those can be started with --empty", p.name)
		}
		if _, pid, _ := p.state(); pid != 0 {
			return 0, fmt.Errorf("%s is running (pid %d); kill it before it is started with --empty", p.name, pid)
		}
		if err := emptyDir(filepath.Join(p.dir, "data")); err != nil {
			return 0, fmt.Errorf("empty the data directory of %s: %w", p.name, err)
		}
	}
	return p.start(r.Env...)
}

// Process is one process as `local status` shows it.
type Process struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	// PID is 0 when the process does not run.
	PID   int    `json:"pid"`
	State string `json:"state"`
	// Exit says how it ended last, "signal: killed".
	Exit        string `json:"exit,omitempty"`
	Address     string `json:"address"`
	HTTPAddress string `json:"httpAddress,omitempty"`
	DataDir     string `json:"dataDir"`
	Log         string `json:"log"`
	// Node is the node id and Role its role when last heard of.
	Node string `json:"node,omitempty"`
	Role string `json:"role,omitempty"`
}

// Status is the whole playground.
type Status struct {
	State
	Processes []Process `json:"processes"`
}

func (g *playground) status(ctx context.Context) []Process {
	g.refreshTopology(ctx, 300*time.Millisecond)
	var out []Process
	for _, p := range g.processes {
		info := Process{
			Name: p.name, Kind: p.kind, Address: p.address, HTTPAddress: p.http,
			DataDir: p.dir, Log: p.logPath,
		}
		info.State, info.PID, info.Exit = p.state()
		if p.kind == KindNode {
			info.DataDir = filepath.Join(p.dir, "data")
			info.Node, info.Role = p.name, g.roleOf(p.name)
		}
		out = append(out, info)
	}
	return out
}

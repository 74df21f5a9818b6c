package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// Basalt starts a whole playground: a Configserver, shards redis-servers
// without replicas, and one proxy with its default settings, which is the
// target. The programs come from the folder BASALT_BIN, or bin/ of the
// checkout.
func (f *Fleet) Basalt(ctx context.Context, shards int, proxyFlags []string) (Target, error) {
	target := Target{Name: "basalt"}
	bin, err := binaries()
	if err != nil {
		return target, err
	}
	// A unix socket lives in the state directory, so its path must be short.
	state := filepath.Join(f.dir, "basalt")
	if err := os.Mkdir(state, 0o700); err != nil {
		return target, err
	}
	ctl := filepath.Join(bin, "basaltctl")
	args := []string{"local", "up", "--state-dir", state, "--port", "0", "--configserver-port", "0",
		"--shards", strconv.Itoa(shards), "--replicas", "0", "--proxies", "1", "--configservers", "1", "-o", "json"}
	for _, flag := range proxyFlags {
		args = append(args, "--proxy-flag="+flag)
	}
	p, err := newProcess(f.dir, "basalt", ctl, args...)
	if err != nil {
		return target, err
	}
	ready, err := p.readyLine()
	if err != nil {
		return target, err
	}
	if err := p.run(); err != nil {
		return target, err
	}
	f.processes = append(f.processes, p)
	select {
	case <-ready:
	case <-p.done:
		return target, p.failure(fmt.Errorf("ended while starting: %w", p.err))
	case <-time.After(2 * startLimit):
		return target, p.failure(fmt.Errorf("not ready after %v", 2*startLimit))
	case <-ctx.Done():
		return target, ctx.Err()
	}
	return target, target.askPlayground(ctx, ctl, state)
}

// readyLine watches the standard output for the JSON object that says ready.
func (p *process) readyLine() (<-chan struct{}, error) {
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	ready := make(chan struct{})
	go func() {
		told := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var object struct {
				Ready bool `json:"ready"`
			}
			if json.Unmarshal(lines.Bytes(), &object) == nil && object.Ready && !told {
				told = true
				close(ready)
			}
		}
	}()
	return ready, nil
}

// askPlayground fills in addresses and process ids.
func (t *Target) askPlayground(ctx context.Context, ctl, state string) error {
	cmd := exec.CommandContext(ctx, ctl, "local", "status", "-o", "json")
	cmd.Env = append(os.Environ(), "BASALT_LOCAL_STATE="+state)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("basaltctl local status: %w\n%s", err, stderr.Bytes())
	}
	var status struct {
		Processes []struct {
			Kind    string `json:"kind"`
			PID     int    `json:"pid"`
			Address string `json:"address"`
		} `json:"processes"`
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return fmt.Errorf("basaltctl local status: %w", err)
	}
	for _, p := range status.Processes {
		switch p.Kind {
		case "proxy":
			t.PIDs = append(t.PIDs, p.PID)
			if t.Addr, err = netip.ParseAddrPort(p.Address); err != nil {
				return fmt.Errorf("basaltctl local status: %w", err)
			}
		case "node":
			t.Backends = append(t.Backends, p.PID)
		}
	}
	if len(t.PIDs) != 1 {
		return fmt.Errorf("basaltctl local status lists %d proxies, want 1", len(t.PIDs))
	}
	return pong(t.Addr)
}

func binaries() (string, error) {
	if dir := os.Getenv("BASALT_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		bin := filepath.Join(dir, "bin")
		if _, err := os.Stat(filepath.Join(bin, "basaltctl")); err == nil {
			return bin, nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return "", errors.Join(err, errors.New("no bin/basaltctl here or above: run `make build`, or name the folder with BASALT_BIN"))
}

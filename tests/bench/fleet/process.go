package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/basalt-redis/basalt/tests/harness"
)

// startLimit bounds the wait for a started process to answer.
const startLimit = 20 * time.Second

// stopLimit is how long a process may take to end after SIGTERM.
const stopLimit = 10 * time.Second

type process struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
	err  error // why it ended; valid after done
	once sync.Once
}

// start runs a binary in a folder of its own. It dies with the benchmark even
// when that is killed.
func (f *Fleet) start(name, binary string, args ...string) (*process, error) {
	p, err := newProcess(f.dir, name, binary, args...)
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout = p.log
	if err := p.run(); err != nil {
		return nil, err
	}
	f.processes = append(f.processes, p)
	return p, nil
}

func newProcess(dir, name, binary string, args ...string) (*process, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}, nil
}

func (p *process) run() error {
	if err := p.cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.name, err), p.log.Close())
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) stop() error {
	var err error
	p.once.Do(func() {
		defer func() { err = errors.Join(err, p.log.Close()) }()
		if e := p.cmd.Process.Signal(syscall.SIGTERM); e != nil && !errors.Is(e, os.ErrProcessDone) {
			err = fmt.Errorf("stop %s: %w", p.name, e)
		}
		select {
		case <-p.done:
		case <-time.After(stopLimit):
			err = errors.Join(err, fmt.Errorf("%s did not end within %v after SIGTERM and was killed", p.name, stopLimit), p.cmd.Process.Kill())
			<-p.done
		}
	})
	return err
}

// failure is err together with the end of what the process logged.
func (p *process) failure(err error) error {
	const tail = 2000
	text, _ := os.ReadFile(p.log.Name())
	text = bytes.TrimSpace(text[max(0, len(text)-tail):])
	if len(text) == 0 {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return fmt.Errorf("%s: %w; its log ends:\n%s", p.name, err, text)
}

// waitFor calls ready until it returns nil, the process ends, or startLimit
// passes.
func (p *process) waitFor(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.failure(fmt.Errorf("ended while starting: %w", p.err))
		case <-ctx.Done():
			return p.failure(fmt.Errorf("not ready: %w", err))
		case <-tick.C:
		}
	}
}

// pong sends an inline PING and wants +PONG.
func pong(addr netip.AddrPort) error {
	c, err := net.DialTimeout("tcp", addr.String(), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("*1\r\n$4\r\nPING\r\n")); err != nil {
		return err
	}
	reply := make([]byte, 64)
	n, err := c.Read(reply)
	if err != nil {
		return err
	}
	if string(reply[:n]) != "+PONG\r\n" {
		return fmt.Errorf("PING was answered with %q", reply[:n])
	}
	return nil
}

// redisServer starts a redis-server that keeps nothing on disk.
func (f *Fleet) redisServer(ctx context.Context) (*process, netip.AddrPort, error) {
	port, err := harness.FreePort()
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	addr := loopback(port)
	p, err := f.start(fmt.Sprintf("redis-%d", port), harness.RedisServer(),
		"--port", fmt.Sprint(port), "--bind", addr.Addr().String(),
		"--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", f.dir)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return p, addr, p.waitFor(ctx, func() error { return pong(addr) })
}

// Command cpucheck measures what the engine costs: CPU microseconds per command
// of this process, of twemproxy and of a redis-server, in one run, so that the
// ratios mean something on a machine that does other things too.
//
//	go run ./reactor/cpucheck
//
// It needs redis-server, redis-benchmark and nutcracker in the PATH.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/proxy/reactor"
	"github.com/basalt-redis/basalt/proxy/routing"
)

var (
	base    = flag.Int("port", 21500, "first of the ports to use")
	loops   = flag.Int("loops", 0, "event loops; 0 for the default")
	count   = flag.Int("n", 200000, "commands without pipelining; eight times that with 16")
	rounds  = flag.Int("rounds", 2, "times everything is measured; the least is kept")
	pprof   = flag.String("pprof", "", "serve profiles here")
	only    = flag.String("only", "", "measure only this: engine, twemproxy or redis")
	wait    = flag.Bool("wait", false, "serve until killed, measure nothing")
	clients = flag.Int("clients", 50, "connections")
)

func main() {
	flag.Parse()
	runtime.LockOSThread() // children die with the thread that started them
	debug.SetGCPercent(400)
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type target struct {
	name string
	port int
	pid  int
}

func run() error {
	dir, err := os.MkdirTemp("", "cpucheck")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var children []*exec.Cmd
	defer func() {
		for _, c := range children {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}()
	start := func(name string, args ...string) (int, error) {
		c := exec.Command(name, args...)
		c.Dir, c.Stdout, c.Stderr = dir, io.Discard, io.Discard
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := c.Start(); err != nil {
			return 0, err
		}
		children = append(children, c)
		return c.Process.Pid, nil
	}
	shards := make([]routing.Shard, 3)
	servers := ""
	var redisPID int
	for i := range shards {
		port := *base + i
		pid, err := start("redis-server", "--port", strconv.Itoa(port), "--save", "", "--bind", "127.0.0.1")
		if err != nil {
			return err
		}
		redisPID = pid
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		id := fmt.Sprintf("shard-%d", i)
		shards[i] = routing.Shard{ID: id, Slots: slot.Even(i, 3), Master: id + "-0", Nodes: []routing.Node{{ID: id + "-0", Address: addr}}}
		servers += fmt.Sprintf("   - %s:1\n", addr)
	}
	nutPort := *base + 10
	conf := fmt.Sprintf("alpha:\n  listen: 127.0.0.1:%d\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n  auto_eject_hosts: false\n  servers:\n%s", nutPort, servers)
	if err := os.WriteFile(filepath.Join(dir, "nut.yml"), []byte(conf), 0o600); err != nil {
		return err
	}
	nutPID, err := start("nutcracker", "-c", filepath.Join(dir, "nut.yml"), "-s", strconv.Itoa(*base+11), "-m", "16384")
	if err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond)

	table, err := routing.Build(routing.Cluster{Name: "check", Epoch: 1, Phase: routing.Serving, Shards: shards})
	if err != nil {
		return err
	}
	engine, err := reactor.New(reactor.Config{Loops: *loops, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	engine.Apply(table)
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *base+20))
	if err != nil {
		return err
	}
	go func() {
		if err := engine.Serve(ln); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	if *pprof != "" {
		go func() { fmt.Fprintln(os.Stderr, http.ListenAndServe(*pprof, nil)) }()
	}
	if *wait {
		fmt.Println("serving on", ln.Addr(), "pid", os.Getpid())
		select {}
	}
	targets := []target{{"engine", *base + 20, os.Getpid()}, {"twemproxy", nutPort, nutPID}, {"redis", *base + 2, redisPID}}
	best := map[string]float64{}
	for range *rounds {
		for _, pipeline := range []int{1, 16} {
			for _, command := range []string{"get", "set"} {
				for _, t := range targets {
					if *only != "" && *only != t.name {
						continue
					}
					if err := measure(t, command, pipeline, best); err != nil {
						return err
					}
				}
			}
		}
	}
	report(targets, best)
	return engine.Shutdown(context.Background())
}

// measure runs redis-benchmark against a target and notes CPU and rate.
func measure(t target, command string, pipeline int, best map[string]float64) error {
	n := *count
	if pipeline > 1 {
		n *= 8
	}
	before, err := cpu(t.pid)
	if err != nil {
		return err
	}
	out, err := exec.Command("redis-benchmark", "-p", strconv.Itoa(t.port), "-c", strconv.Itoa(*clients), "-n", strconv.Itoa(n),
		"-P", strconv.Itoa(pipeline), "-d", "64", "-r", "100000", "-t", command, "-q", "--csv").CombinedOutput()
	if err != nil {
		return fmt.Errorf("redis-benchmark %s: %w: %s", t.name, err, out)
	}
	after, err := cpu(t.pid)
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%s %s %d", t.name, command, pipeline)
	per := (after - before).Seconds() * 1e6 / float64(n)
	if old, ok := best[key]; !ok || per < old {
		best[key] = per
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if f := strings.Split(lines[len(lines)-1], ","); len(f) > 1 {
		if rate, err := strconv.ParseFloat(strings.Trim(f[1], `"`), 64); err == nil {
			best["rate "+key] = max(best["rate "+key], rate)
		}
	}
	return nil
}

func report(targets []target, best map[string]float64) {
	fmt.Printf("%-14s", "CPU µs/op")
	for _, t := range targets {
		fmt.Printf("%12s%10s", t.name, "op/s")
	}
	fmt.Printf("%14s%12s\n", "/twemproxy", "/redis")
	for _, pipeline := range []int{1, 16} {
		for _, command := range []string{"get", "set"} {
			fmt.Printf("%-14s", fmt.Sprintf("%s P%d", command, pipeline))
			for _, t := range targets {
				key := fmt.Sprintf("%s %s %d", t.name, command, pipeline)
				fmt.Printf("%12.2f%10.0f", best[key], best["rate "+key])
			}
			key := fmt.Sprintf(" %s %d", command, pipeline)
			fmt.Printf("%14.2f%12.2f\n", best["engine"+key]/best["twemproxy"+key], best["engine"+key]/best["redis"+key])
		}
	}
}

// cpu is the user and system time of a process, by its clock ticks of 10 ms.
func cpu(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, err
}

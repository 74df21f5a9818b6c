// Command bench measures what a request costs through Basalt's proxy, directly
// at one redis-server, and through twemproxy, in one run on one machine.
//
// Absolute numbers of a shared machine drift by tens of percent within
// minutes, so nothing is compared across runs. Each round measures every
// target in every case for a short time, one target at a time, in an order
// that rotates from round to round; a ratio is taken within a round, and the
// median over the rounds is reported. The load comes from one generator that
// does not know whom it loads, verifies every reply, and has nothing under way
// when the CPU clocks of the processes are read, so CPU time is divided by
// exactly the requests it was spent on.
//
// The proxies run with their default settings in front of three redis-servers
// each; twemproxy's configuration is the cheapest it has (see package fleet).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/basalt-redis/basalt/tests/bench/fleet"
	"github.com/basalt-redis/basalt/tests/bench/load"
	"github.com/basalt-redis/basalt/tests/bench/report"
)

type options struct {
	rounds      int
	seconds     float64
	warmup      float64
	connections int
	valueSize   int
	keys        uint
	shards      int
	targets     string
	proxyFlags  string
	cases       string
	out         string
	check       bool
	seed        uint64
	peers       string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 11, "measurements of each target and case")
	flag.Float64Var(&o.seconds, "seconds", 0.75, "duration of one measurement in seconds")
	flag.Float64Var(&o.warmup, "warmup", 0.15, "load before each measurement in seconds")
	flag.IntVar(&o.connections, "connections", 50, "client connections")
	flag.IntVar(&o.valueSize, "value-size", 64, "bytes of a value")
	flag.UintVar(&o.keys, "keys", 100_000, "number of keys, drawn uniformly")
	flag.IntVar(&o.shards, "shards", 3, "redis-servers behind each proxy")
	flag.StringVar(&o.targets, "targets", "basalt,redis,twemproxy", "what to measure, besides the peers named in PEERS=name=port:pid,…")
	flag.StringVar(&o.proxyFlags, "proxy-flags", "", "flags for Basalt's proxy, separated by blanks, to try settings other than the defaults")
	flag.StringVar(&o.cases, "cases", "", "only cases whose name contains this")
	flag.StringVar(&o.out, "out", "text", "output: text or json")
	flag.BoolVar(&o.check, "check", false, "exit with 1 when a bar is not met")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the sequence of keys")
	flag.Parse()
	o.peers = os.Getenv("PEERS")
	if err := o.validate(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	passed, err := benchmark(ctx, o)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case o.check && !passed:
		os.Exit(1)
	}
}

func (o options) validate() error {
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.out != "text" && o.out != "json" {
		return fmt.Errorf("-out %q: want text or json", o.out)
	}
	if o.rounds < 1 || o.seconds <= 0 || o.warmup < 0 || o.connections < 1 || o.valueSize < 1 || o.shards < 1 || o.keys < 1 || o.keys > 1<<31 {
		return errors.New("-rounds, -seconds, -connections, -value-size, -keys and -shards must be positive")
	}
	return nil
}

func benchmark(ctx context.Context, o options) (passed bool, err error) {
	dir, err := os.MkdirTemp("", "basalt-bench-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := fleet.New(dir)
	defer func() { err = errors.Join(err, f.Close()) }()

	targets, err := startTargets(ctx, f, o)
	if err != nil {
		return false, err
	}
	rows := slices.DeleteFunc(workloads(o.connections, o.valueSize, uint32(o.keys)), func(w workload) bool { return !strings.Contains(w.name, o.cases) })
	if len(rows) == 0 {
		return false, fmt.Errorf("-cases %q matches no case", o.cases)
	}
	run := &report.Run{
		Started: time.Now(), Machine: fmt.Sprintf("%d cores, %s", runtime.NumCPU(), runtime.GOARCH),
		Connections: o.connections, ValueSize: o.valueSize, Keys: uint32(o.keys), Rounds: o.rounds, Seconds: o.seconds,
	}
	if err := measureAll(ctx, o, targets, rows, run); err != nil {
		return false, err
	}
	run.Took = time.Since(run.Started)
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.Name
	}
	caseNames := make([]string, len(rows))
	for i, w := range rows {
		caseNames[i] = w.name
	}
	run.Summarise(caseNames, names, bars(rows))
	if o.out == "json" {
		return run.Passed(), run.JSON(os.Stdout)
	}
	return run.Passed(), run.Text(os.Stdout)
}

func startTargets(ctx context.Context, f *fleet.Fleet, o options) ([]fleet.Target, error) {
	targets, err := fleet.Peers(o.peers)
	if err != nil {
		return nil, err
	}
	var own []fleet.Target
	for name := range strings.SplitSeq(o.targets, ",") {
		var t fleet.Target
		var err error
		switch name {
		case "":
			continue
		case basalt:
			t, err = f.Basalt(ctx, o.shards, strings.Fields(o.proxyFlags))
		case redis:
			t, err = f.Redis(ctx)
		case twemproxy:
			t, err = f.Twemproxy(ctx, o.shards)
		default:
			err = errors.New("no such target: want basalt, redis or twemproxy")
		}
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", name, err)
		}
		progress("%s is ready at %s", name, t.Addr)
		own = append(own, t)
	}
	targets = append(own, targets...)
	if len(targets) == 0 {
		return nil, errors.New("nothing to measure: -targets and PEERS are empty")
	}
	return targets, nil
}

func measureAll(ctx context.Context, o options, targets []fleet.Target, rows []workload, run *report.Run) error {
	for _, t := range targets {
		if err := fill(t, rows); err != nil {
			return fmt.Errorf("fill %s: %w", t.Name, err)
		}
	}
	// Nothing is collected while a measurement runs: the generator allocates
	// per measurement only, and the heap is swept between them.
	debug.SetGCPercent(-1)
	for round := range o.rounds {
		for _, w := range rows {
			for i := range targets {
				if err := ctx.Err(); err != nil {
					return errors.New("interrupted")
				}
				t := targets[(i+round)%len(targets)]
				if slices.Contains(w.without, t.Name) {
					continue
				}
				s, err := measure(o, t, w, round+1)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", t.Name, w.name, err)
				}
				run.Samples = append(run.Samples, s)
				progress("%s", s.Progress())
				runtime.GC()
			}
		}
	}
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func fill(t fleet.Target, rows []workload) error {
	const connections, pipeline = 4, 64
	done := map[load.Command]bool{}
	for _, w := range rows {
		if w.fill == nil || done[w.fill] || slices.Contains(w.without, t.Name) {
			continue
		}
		done[w.fill] = true
		g, err := load.Dial(load.Options{Addr: t.Addr, Connections: connections, Pipeline: pipeline, Command: w.fill, Keys: w.keys})
		if err != nil {
			return err
		}
		if err := errors.Join(g.Fill(), g.Close()); err != nil {
			return err
		}
	}
	return nil
}

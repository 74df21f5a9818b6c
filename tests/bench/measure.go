package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/basalt-redis/basalt/tests/bench/fleet"
	"github.com/basalt-redis/basalt/tests/bench/load"
	"github.com/basalt-redis/basalt/tests/bench/report"
)

// settle is how long a target may take to go back to sleep after its last
// reply, before its clock is read.
const settle = 3 * time.Millisecond

// clocks are the CPU times that a measurement is the difference of.
type clocks struct {
	target, backends, self, machine time.Duration
}

func readClocks(t fleet.Target) (clocks, error) {
	time.Sleep(settle)
	target, err := fleet.CPUTimes(t.PIDs)
	if err != nil {
		return clocks{}, fmt.Errorf("it ended: %w", err)
	}
	backends, err2 := fleet.CPUTimes(t.Backends)
	self, err3 := fleet.CPUTime(os.Getpid())
	machine, err4 := fleet.MachineCPU()
	return clocks{target, backends, self, machine}, errors.Join(err2, err3, err4)
}

func measure(o options, t fleet.Target, w workload, round int) (s report.Sample, err error) {
	g, err := dial(t, w, o.seed+uint64(round))
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if _, err := g.Run(seconds(o.warmup)); err != nil {
		return s, err
	}
	before, err := readClocks(t)
	if err != nil {
		return s, err
	}
	r, err := g.Run(seconds(o.seconds))
	if err != nil {
		return s, err
	}
	after, err := readClocks(t)
	if err != nil {
		return s, err
	}
	perRequest := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(r.Requests) }
	micros := func(q float64) float64 { return float64(r.Latency.Quantile(q)) / float64(time.Microsecond) }
	known := after.target - before.target + after.backends - before.backends + after.self - before.self
	others := after.machine - before.machine - known
	return report.Sample{
		Target: t.Name, Case: w.name, Round: round,
		Requests: r.Requests, PerSecond: r.PerSecond(),
		P50: micros(0.5), P99: micros(0.99), P999: micros(0.999),
		CPU:        perRequest(after.target - before.target),
		BackendCPU: perRequest(after.backends - before.backends),
		Noise:      max(0, float64(others)/float64(r.Elapsed)/float64(runtime.NumCPU())),
	}, nil
}

// generator is a load.Generator or a load.FanOut.
type generator interface {
	Run(d time.Duration) (*load.Result, error)
	Close() error
}

func dial(t fleet.Target, w workload, seed uint64) (generator, error) {
	if w.subscribers > 0 {
		return load.DialFanOut(t.Addr, w.subscribers, w.value)
	}
	return load.Dial(load.Options{
		Addr: t.Addr, Connections: w.connections, Pipeline: w.pipeline, Command: w.command, Keys: w.keys, Seed: seed,
	})
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

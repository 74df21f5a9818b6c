package main

import (
	"fmt"

	"github.com/basalt-redis/basalt/tests/bench/load"
	"github.com/basalt-redis/basalt/tests/bench/report"
)

// workload is a row of the benchmark. Another one (bigger values, more
// clients, another load.Command) is one more entry in workloads.
type workload struct {
	name        string
	connections int
	pipeline    int
	// fill, if set, writes each key once before the first round; fills of the
	// same value size need not be repeated.
	fill    load.Command
	command load.Command
	bars    []limit
}

// limit is a bar on Basalt's CPU per operation in this row.
type limit struct {
	versus string
	max    float64
}

// The names of the targets every run knows.
const (
	basalt    = "basalt"
	redis     = "redis"
	twemproxy = "twemproxy"
)

func workloads(connections, valueSize int) []workload {
	set, get := load.NewSet(valueSize), load.NewGet(valueSize)
	cheaperThanTwemproxy := limit{versus: twemproxy, max: 1.0}
	nearRedis := limit{versus: redis, max: 1.2}
	return []workload{
		{name: "GET", connections: connections, pipeline: 1, fill: set, command: get, bars: []limit{cheaperThanTwemproxy}},
		{name: "SET", connections: connections, pipeline: 1, command: set, bars: []limit{cheaperThanTwemproxy}},
		{name: "GET pipeline 16", connections: connections, pipeline: 16, fill: set, command: get, bars: []limit{cheaperThanTwemproxy, nearRedis}},
		{name: "SET pipeline 16", connections: connections, pipeline: 16, command: set, bars: []limit{cheaperThanTwemproxy, nearRedis}},
	}
}

// bars lists the limits of all rows, the ones against the same target together.
func bars(rows []workload) []report.Bar {
	var out []report.Bar
	for _, versus := range []string{twemproxy, redis} {
		for _, w := range rows {
			for _, l := range w.bars {
				if l.versus == versus {
					out = append(out, report.Bar{
						Case: w.name, Target: basalt, Versus: versus, Max: l.max,
						Requirement: fmt.Sprintf("CPU per operation of %s at most %.1f × that of %s", basalt, l.max, versus),
					})
				}
			}
		}
	}
	return out
}

package main

import (
	"fmt"

	"github.com/basalt-redis/basalt/tests/bench/load"
	"github.com/basalt-redis/basalt/tests/bench/report"
)

// workload is a row of the benchmark. Another one is one more entry in
// workloads.
type workload struct {
	name        string
	connections int
	pipeline    int
	keys        uint32
	// fill, if set, writes each key once before the first round; the same fill
	// is not repeated.
	fill    load.Command
	command load.Command
	// subscribers, if positive, makes it a fan-out of messages of so many bytes
	// as value, in place of command; an operation is a delivery.
	subscribers, value int
	// without are targets that cannot do this.
	without []string
	bars    []limit
}

// limit is a bar on Basalt's CPU per operation in this row; max 0 only reports
// the ratio.
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

// manyClients, and the sizes of values beside -value-size.
const (
	manyClients = 500
	kib         = 1 << 10
	mgetKeys    = 10
	subscribers = 1000
)

func workloads(connections, valueSize int, keys uint32) []workload {
	cheaperThanTwemproxy := limit{versus: twemproxy, max: 1.0}
	nearRedis := limit{versus: redis, max: 1.2}
	beside := []limit{{versus: twemproxy}, {versus: redis}}
	besideRedis := []limit{{versus: redis}}

	small := load.NewSpace("bench:", valueSize)
	set, get := load.Set{Space: small}, load.Get{Space: small}
	rows := []workload{
		{name: "GET", fill: set, command: get, bars: []limit{cheaperThanTwemproxy}},
		{name: "SET", command: set, bars: []limit{cheaperThanTwemproxy}},
		{name: "GET pipeline 16", pipeline: 16, fill: set, command: get, bars: []limit{cheaperThanTwemproxy, nearRedis}},
		{name: "SET pipeline 16", pipeline: 16, command: set, bars: []limit{cheaperThanTwemproxy, nearRedis}},
		{name: "GET 500 clients", connections: manyClients, fill: set, command: get, bars: beside},
		{name: "MGET of 10", fill: set, command: load.MGet{Space: small, Count: mgetKeys, Keys: keys}, bars: beside},
		{name: "MULTI of 5 SETs", command: load.Multi{Space: small}, without: []string{twemproxy}, bars: besideRedis},
	}
	for _, size := range []int{kib, 16 * kib} {
		// All values of a size together take about as much memory as the next.
		space := load.NewSpace(fmt.Sprintf("bench%d:", size), size)
		number := max(1, min(keys, 32*kib*kib/uint32(size)))
		set, get := load.Set{Space: space}, load.Get{Space: space}
		rows = append(rows,
			workload{name: fmt.Sprintf("GET %d KiB", size/kib), keys: number, fill: set, command: get, bars: beside},
			workload{name: fmt.Sprintf("SET %d KiB", size/kib), keys: number, command: set, bars: beside})
	}
	rows = append(rows, workload{
		name: fmt.Sprintf("PUBLISH to %d", subscribers), subscribers: subscribers, value: valueSize, without: []string{twemproxy}, bars: besideRedis,
	})
	for i := range rows {
		w := &rows[i]
		if w.connections == 0 {
			w.connections = connections
		}
		w.pipeline = max(1, w.pipeline)
		if w.keys == 0 {
			w.keys = keys
		}
	}
	return rows
}

// bars lists the limits of all rows, the ones against the same target together.
func bars(rows []workload) []report.Bar {
	var out []report.Bar
	for _, versus := range []string{twemproxy, redis} {
		for _, w := range rows {
			for _, l := range w.bars {
				if l.versus == versus {
					b := report.Bar{Case: w.name, Target: basalt, Versus: versus, Max: l.max}
					if l.max > 0 {
						b.Requirement = fmt.Sprintf("CPU per operation of %s at most %.1f × that of %s", basalt, l.max, versus)
					}
					out = append(out, b)
				}
			}
		}
	}
	return out
}

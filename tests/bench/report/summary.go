// Package report turns the samples of a run into medians, ratios and verdicts,
// for people and for programs.
package report

import (
	"fmt"
	"slices"
	"time"
)

// Sample is one measurement: one target, one case, one round.
type Sample struct {
	Target string `json:"target"`
	Case   string `json:"case"`
	Round  int    `json:"round"`
	// Requests is the number of verified replies.
	Requests uint64 `json:"requests"`
	// PerSecond is the throughput in requests per second.
	PerSecond float64 `json:"per_second"`
	// P50, P99 and P999 are latencies in microseconds.
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
	// CPU is the CPU time of the target's processes in microseconds per request.
	CPU float64 `json:"cpu_us"`
	// BackendCPU is that of the redis-servers behind a proxy; 0 when unknown.
	BackendCPU float64 `json:"backend_cpu_us,omitempty"`
	// Noise is the share of the machine (0 to 1) that went to processes other
	// than the target, its servers and the generator.
	Noise float64 `json:"noise"`
}

// Row is the median of all rounds of one target and case.
type Row struct {
	Target     string  `json:"target"`
	Case       string  `json:"case"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	P999       float64 `json:"p999_us"`
	CPU        float64 `json:"cpu_us"`
	BackendCPU float64 `json:"backend_cpu_us,omitempty"`
}

// Bar is a limit on the CPU per request of one target relative to another's in
// one case. With a Max of 0 the ratio is reported, and nothing is required.
type Bar struct {
	Case        string  `json:"case"`
	Target      string  `json:"target"`
	Versus      string  `json:"versus"`
	Max         float64 `json:"max,omitempty"`
	Requirement string  `json:"requirement,omitempty"`
}

// Verdict is a Bar with what was measured.
type Verdict struct {
	Bar
	// Ratio is the median of the ratios of the rounds: the two numbers of a
	// ratio come from neighbouring seconds, so a machine that slows down for a
	// while does not move it.
	Ratio float64 `json:"ratio"`
	// Low and High are the smallest and largest ratio of a round.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	Pass bool    `json:"pass"`
}

// Run is all there is to say about a run.
type Run struct {
	Started     time.Time     `json:"started"`
	Took        time.Duration `json:"took_ns"`
	Machine     string        `json:"machine"`
	Connections int           `json:"connections"`
	ValueSize   int           `json:"value_size"`
	Keys        uint32        `json:"keys"`
	Rounds      int           `json:"rounds"`
	Seconds     float64       `json:"seconds"`
	Samples     []Sample      `json:"samples"`
	Rows        []Row         `json:"rows"`
	Verdicts    []Verdict     `json:"verdicts"`
}

// Summarise fills Rows and Verdicts from Samples. Targets and cases keep the
// order of the given names; a bar whose numbers are missing fails.
func (r *Run) Summarise(cases, targets []string, bars []Bar) {
	r.Rows, r.Verdicts = nil, nil
	for _, c := range cases {
		for _, t := range targets {
			if s := r.of(c, t); len(s) > 0 {
				r.Rows = append(r.Rows, row(s))
			}
		}
	}
	for _, b := range bars {
		if slices.Contains(targets, b.Target) && slices.Contains(targets, b.Versus) {
			r.Verdicts = append(r.Verdicts, r.judge(b))
		}
	}
}

// Passed reports whether there was a bar and every bar was met.
func (r *Run) Passed() bool {
	barred := func(v Verdict) bool { return v.Max > 0 }
	return slices.ContainsFunc(r.Verdicts, barred) && !slices.ContainsFunc(r.Verdicts, func(v Verdict) bool { return !v.Pass })
}

// Noise is the median share of the machine that others used.
func (r *Run) Noise() float64 {
	return median(r.Samples, func(s Sample) float64 { return s.Noise })
}

func (r *Run) of(c, target string) []Sample {
	var out []Sample
	for _, s := range r.Samples {
		if s.Case == c && s.Target == target {
			out = append(out, s)
		}
	}
	return out
}

func row(s []Sample) Row {
	return Row{
		Target:     s[0].Target,
		Case:       s[0].Case,
		PerSecond:  median(s, func(s Sample) float64 { return s.PerSecond }),
		P50:        median(s, func(s Sample) float64 { return s.P50 }),
		P99:        median(s, func(s Sample) float64 { return s.P99 }),
		P999:       median(s, func(s Sample) float64 { return s.P999 }),
		CPU:        median(s, func(s Sample) float64 { return s.CPU }),
		BackendCPU: median(s, func(s Sample) float64 { return s.BackendCPU }),
	}
}

func (r *Run) judge(b Bar) Verdict {
	v := Verdict{Bar: b}
	var ratios []float64
	for _, s := range r.of(b.Case, b.Target) {
		for _, o := range r.of(b.Case, b.Versus) {
			if s.Round == o.Round && o.CPU > 0 {
				ratios = append(ratios, s.CPU/o.CPU)
			}
		}
	}
	if len(ratios) == 0 {
		return v
	}
	v.Ratio = median(ratios, func(x float64) float64 { return x })
	v.Low, v.High = slices.Min(ratios), slices.Max(ratios)
	v.Pass = b.Max == 0 || v.Ratio <= b.Max
	return v
}

func median[T any](items []T, value func(T) float64) float64 {
	if len(items) == 0 {
		return 0
	}
	values := make([]float64, len(items))
	for i, item := range items {
		values[i] = value(item)
	}
	slices.Sort(values)
	mid := len(values) / 2
	if len(values)%2 == 1 {
		return values[mid]
	}
	return (values[mid-1] + values[mid]) / 2
}

// Mark is PASS or FAIL, or nothing for a ratio without a bar.
func (v Verdict) Mark() string {
	switch {
	case !v.Pass:
		return "FAIL"
	case v.Max == 0:
		return ""
	}
	return "PASS"
}

// Limit is the bar as people read it.
func (b Bar) Limit() string {
	if b.Max == 0 {
		return ""
	}
	return fmt.Sprintf("≤ %.1f", b.Max)
}

// String names the comparison.
func (b Bar) String() string {
	return fmt.Sprintf("%s: %s / %s", b.Case, b.Target, b.Versus)
}

package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// JSON writes the whole run, samples included.
func (r *Run) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Text writes the tables people read.
func (r *Run) Text(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n%d connections, %d-byte values, %d keys, medians of %d rounds of %.2g s, %s, took %v\n\n",
		r.Connections, r.ValueSize, r.Keys, r.Rounds, r.Seconds, r.Machine, r.Took.Round(time.Second))
	const line = "%-18s %-12s %10s %8s %8s %8s %10s %10s\n"
	fmt.Fprintf(&b, line, "case", "target", "requests/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/op", "servers'")
	previous := ""
	for _, row := range r.Rows {
		name := row.Case
		if name == previous {
			name = ""
		}
		previous = row.Case
		servers := ""
		if row.BackendCPU > 0 {
			servers = number(row.BackendCPU, 2)
		}
		fmt.Fprintf(&b, line, name, row.Target, number(row.PerSecond, 0), number(row.P50, 0), number(row.P99, 0), number(row.P999, 0), number(row.CPU, 2), servers)
	}
	if len(r.Verdicts) > 0 {
		const line = "%-42s %8s %8s %8s %8s  %s\n"
		fmt.Fprintf(&b, "\n"+line, "CPU per operation, ratios", "median", "lowest", "highest", "bar", "")
		for _, v := range r.Verdicts {
			fmt.Fprintf(&b, line, v.Bar, number(v.Ratio, 2), number(v.Low, 2), number(v.High, 2), v.Limit(), v.Mark())
		}
	}
	if noise := r.Noise(); noise > noisy {
		fmt.Fprintf(&b, "\nOther processes used %.0f %% of the machine during the run: ratios hold better than absolute numbers.\n", 100*noise)
	}
	_, err := b.WriteTo(w)
	return err
}

func number(x float64, decimals int) string { return strconv.FormatFloat(x, 'f', decimals, 64) }

// noisy is the share of the machine used by others above which a reader is
// told.
const noisy = 0.05

// Progress is one line about a sample just taken.
func (s Sample) Progress() string {
	return fmt.Sprintf("round %d  %-16s %-12s %8.0f/s  p99 %6.0f µs  CPU %6.2f µs/op", s.Round, s.Case, s.Target, s.PerSecond, s.P99, s.CPU)
}

package report

import (
	"bytes"
	"strings"
	"testing"
)

func run(cpu map[string][]float64) *Run {
	r := &Run{}
	for target, values := range cpu {
		for i, v := range values {
			r.Samples = append(r.Samples, Sample{Target: target, Case: "GET", Round: i + 1, CPU: v})
		}
	}
	return r
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	// The machine is three times slower in the second round: that must not
	// show in the ratio.
	r := run(map[string][]float64{"a": {2, 6, 2.2}, "b": {4, 12, 4}})
	r.Summarise([]string{"GET"}, []string{"a", "b"}, []Bar{{Case: "GET", Target: "a", Versus: "b", Max: 0.5}})
	if len(r.Rows) != 2 || r.Rows[0].CPU != 2.2 {
		t.Fatalf("rows %+v", r.Rows)
	}
	if v := r.Verdicts[0]; v.Ratio != 0.5 || !v.Pass || v.High < 0.54 || v.High > 0.56 {
		t.Errorf("verdict %+v", v)
	}
	if !r.Passed() {
		t.Error("the run did not pass")
	}
}

func TestABarWithoutNumbersFails(t *testing.T) {
	r := run(map[string][]float64{"a": {2}, "b": {0}})
	r.Summarise([]string{"GET"}, []string{"a", "b"}, []Bar{{Case: "GET", Target: "a", Versus: "b", Max: 1}})
	if r.Passed() {
		t.Error("a bar without a ratio passed")
	}
	var out bytes.Buffer
	if err := r.Text(&out); err != nil || !strings.Contains(out.String(), "FAIL") {
		t.Errorf("%v, text:\n%s", err, out.String())
	}
}

func TestNoBarIsNoPass(t *testing.T) {
	r := run(map[string][]float64{"a": {2}})
	r.Summarise([]string{"GET"}, []string{"a"}, []Bar{{Case: "GET", Target: "a", Versus: "b", Max: 1}})
	if len(r.Verdicts) != 0 || r.Passed() {
		t.Errorf("verdicts %+v of targets that were not measured", r.Verdicts)
	}
}

func TestARatioWithoutABarIsOnlyReported(t *testing.T) {
	r := run(map[string][]float64{"a": {5}, "b": {1}})
	r.Summarise([]string{"GET"}, []string{"a", "b"}, []Bar{{Case: "GET", Target: "a", Versus: "b"}})
	if v := r.Verdicts[0]; v.Ratio != 5 || v.Mark() != "" || v.Limit() != "" {
		t.Errorf("verdict %+v, mark %q, limit %q", v, v.Mark(), v.Limit())
	}
	if r.Passed() {
		t.Error("a run without any bar passed")
	}
}

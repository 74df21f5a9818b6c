package consistency

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

const padding = 16

// A step is one event of a script on one key.
type step struct {
	do      string // "write", "read", "begin read", "end read", "confirm", "loss begins", "loss ends"
	version int64  // read or confirmed
	how     Class  // of a write
	wrong   string // part of the violation that the step must cause
}

// TestModelJudges plays scripts and expects a violation exactly where the
// script says one.
func TestModelJudges(t *testing.T) {
	scripts := map[string][]step{
		"AcknowledgedIsRead":      {{do: "write"}, {do: "read", version: 1}},
		"AcknowledgedIsLost":      {{do: "write"}, {do: "read", version: 0, wrong: "after version 1 was acknowledged or read"}},
		"OlderThanAcknowledged":   {{do: "write"}, {do: "write"}, {do: "read", version: 1, wrong: "acknowledged or read"}},
		"NeverSent":               {{do: "write"}, {do: "read", version: 2, wrong: "only 1 were ever sent"}},
		"UnknownMayShow":          {{do: "write"}, {do: "write", how: InFlight}, {do: "read", version: 2}},
		"UnknownMayNotShow":       {{do: "write"}, {do: "write", how: InFlight}, {do: "read", version: 1}},
		"UnknownSeenMustStay":     {{do: "write"}, {do: "write", how: Disconnected}, {do: "read", version: 2}, {do: "read", version: 1, wrong: "acknowledged or read"}},
		"FailedMustNotShow":       {{do: "write"}, {do: "write", how: Down}, {do: "read", version: 2, wrong: "failed before it was sent"}},
		"ReadMayOverlapWrite":     {{do: "write"}, {do: "begin read"}, {do: "write"}, {do: "end read", version: 1}},
		"LossTakesUnconfirmed":    {{do: "write"}, {do: "confirm", version: 1}, {do: "write"}, {do: "loss begins"}, {do: "read", version: 1}},
		"LossMustNotTakeMore":     {{do: "write"}, {do: "write"}, {do: "confirm", version: 2}, {do: "loss begins"}, {do: "read", version: 1, wrong: "acknowledged and replicated"}},
		"AfterLossStrictAgain":    {{do: "write"}, {do: "loss begins"}, {do: "loss ends"}, {do: "read", version: 0}, {do: "write"}, {do: "read", version: 1, wrong: "acknowledged or read"}},
		"ReadAcrossLossBegin":     {{do: "write"}, {do: "begin read"}, {do: "loss begins"}, {do: "end read", version: 0}},
		"ConfirmedInventedValue":  {{do: "write"}, {do: "confirm", version: 5, wrong: "only 1 were ever sent"}},
		"LossEndsForgetsOldBound": {{do: "write"}, {do: "loss begins"}, {do: "write"}, {do: "loss ends"}, {do: "read", version: 1}, {do: "read", version: 0, wrong: "acknowledged or read"}},
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			k := &keyState{name: "k"}
			m := &model{keys: []*keyState{k}, spans: make([]atomic.Int64, 1)}
			var b bound
			for i, s := range script {
				before := m.count
				var value []byte
				if s.version > 0 {
					value = []byte(encode("k", s.version, padding))
				}
				switch s.do {
				case "write":
					v, span := m.beginWrite(k)
					m.endWrite(k, v, span, s.how)
				case "begin read":
					b = m.beginRead(k)
				case "end read":
					m.endRead(k, b, value, padding, "script")
				case "read":
					m.endRead(k, m.beginRead(k), value, padding, "script")
				case "confirm":
					m.confirm(k, value, padding, "script")
				case "loss begins", "loss ends":
					m.spans[0].Add(1)
				}
				switch found := m.count - before; {
				case s.wrong == "" && found != 0:
					t.Fatalf("step %d (%s): unexpected violation %s", i, s.do, m.violations)
				case s.wrong != "" && (found != 1 || !strings.Contains(m.violations[len(m.violations)-1], s.wrong)):
					t.Fatalf("step %d (%s): violations %q, want one with %q", i, s.do, m.violations, s.wrong)
				}
			}
		})
	}
}

func TestValuesCannotBeMistaken(t *testing.T) {
	good := encode("key:{1}", 42, padding)
	if v, err := decode("key:{1}", []byte(good), padding); v != 42 || err != nil {
		t.Fatalf("decode(%q) = %d, %v", good, v, err)
	}
	for _, bad := range []string{
		"", "x", "key:{1} 42", strings.Replace(good, "42", "43", 1), good + "a", good[:len(good)-1],
		strings.Replace(good, "key", "kez", 1), encode("key:{2}", 42, padding),
	} {
		if v, err := decode("key:{1}", []byte(bad), padding); err == nil {
			t.Errorf("decode(%q) = %d, want an error", bad, v)
		}
	}
}

func TestLongestWriteGap(t *testing.T) {
	at := func(ms int) Record {
		return Record{Start: time.Duration(ms-1) * time.Millisecond, Latency: time.Millisecond, Write: true}
	}
	line := Timeline{at(10), at(20), at(300), at(310)}
	gap, ok := line.LongestWriteGap(5*time.Millisecond, 320*time.Millisecond)
	if !ok || gap.From != 20*time.Millisecond || gap.To != 300*time.Millisecond {
		t.Errorf("gap %v, %v", gap, ok)
	}
	if gap, ok := line.LongestWriteGap(5*time.Millisecond, 2*time.Second); ok || gap.From != 310*time.Millisecond {
		t.Errorf("writes that did not resume: gap %v, %v", gap, ok)
	}
}

func TestRegistersFindStaleRead(t *testing.T) {
	op := func(client int, call, ret int64, in registerInput, out string) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Call: call, Return: ret, Input: in, Output: out}
	}
	write := registerInput{key: "k", write: true, value: "v1"}
	read := registerInput{key: "k"}
	good := &Registers{ops: []porcupine.Operation{op(0, 0, 10, write, ""), op(1, 5, 20, read, "v1"), op(1, 30, 40, read, "v1")}}
	if _, _, err := good.Check(time.Second); err != nil {
		t.Error(err)
	}
	stale := &Registers{ops: []porcupine.Operation{op(0, 0, 10, write, ""), op(1, 5, 20, read, "v1"), op(1, 30, 40, read, "")}}
	if _, _, err := stale.Check(time.Second); err == nil {
		t.Error("a read went back in time and nobody noticed")
	}
}

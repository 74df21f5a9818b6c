package server

import (
	"math"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/session"
)

// TestRatesOfCrossSlot: a steady rate is told from the first interval on, and one that
// ended fades.
func TestRatesOfCrossSlot(t *testing.T) {
	var m loadMeter
	rename := session.Crossing{Command: command.ByName("rename").ID, Client: "worker"}
	counts := map[session.Crossing]uint64{rename: 100}
	m.crossSlot(counts, 0)
	for range 3 {
		counts[rename] += 20
		all := m.crossSlot(counts, 2*time.Second)
		if k := all[0]; len(all) != 1 || k.GetCommand() != "rename" || k.GetClientName() != "worker" || k.GetRequests() != counts[rename] || math.Abs(k.GetPerSecond()-10) > 1e-9 {
			t.Fatalf("%v, want 10 a second", all)
		}
	}
	last := 10.0
	for range 10 {
		now := m.crossSlot(counts, 30*time.Second)[0].GetPerSecond()
		if now >= last {
			t.Fatalf("%v a second after %v, with no requests", now, last)
		}
		last = now
	}
	if last > 0.2 {
		t.Errorf("%v a second five minutes after the last request", last)
	}
}

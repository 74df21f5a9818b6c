package failover

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// TestTheRecordNamesFewUnacked: whoever runs the operation knows all of them; the
// record names some and counts the rest, also after somebody took it over.
func TestTheRecordNamesFewUnacked(t *testing.T) {
	var ids []string
	for i := range 1000 {
		ids = append(ids, fmt.Sprint("p", i))
	}
	x := &Executor{log: slog.New(slog.DiscardHandler)}
	x.missed(ids)
	var op topology.Operation
	x.record(&op)
	if len(x.unacked) != 1000 || len(op.Unacked) != topology.MaxUnacked || op.MoreUnacked != 1000-topology.MaxUnacked {
		t.Errorf("%d known, %d named, %d more", len(x.unacked), len(op.Unacked), op.MoreUnacked)
	}
	next := &Executor{log: x.log}
	next.recall(&op)
	var again topology.Operation
	next.record(&again)
	if len(again.Unacked) != len(op.Unacked) || again.MoreUnacked != op.MoreUnacked {
		t.Errorf("after a takeover: %d named, %d more", len(again.Unacked), again.MoreUnacked)
	}
	next.missed(ids[:3])
	next.record(&again)
	if len(again.Unacked) != 3 || again.MoreUnacked != 0 {
		t.Errorf("after another wait: %d named, %d more", len(again.Unacked), again.MoreUnacked)
	}
}

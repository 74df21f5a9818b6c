package failover

import (
	"fmt"
	"testing"
	"time"

	pb "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

// script keeps a server busy for ARGV[1] seconds and answers nobody meanwhile.
const script = `local t = redis.call('TIME') local stop = t[1] * 1e6 + t[2] + ARGV[1] * 1e6
repeat t = redis.call('TIME') until t[1] * 1e6 + t[2] > stop`

// TestSlowMasterIsNotReplaced keeps masters from answering for seconds by work
// that is theirs to do: nobody takes them for dead, and no client gets an error.
func TestSlowMasterIsNotReplaced(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	l := c.StartLoad(t, consistency.Config{})
	for _, slow := range []struct {
		name    string
		prepare func(t *testing.T, admin *consistency.Conn)
		block   []string
	}{
		{"script of 3 s", nil, []string{"EVAL", script, "0", "3"}},
		{"fork for a BGSAVE of 200 MB", func(t *testing.T, admin *consistency.Conn) {
			for part := range 40 { // in pieces, as only the fork is to be slow
				do(t, admin, "EVAL", `for i = 1, 5 do redis.call('SET', 'ballast:' .. (ARGV[1] * 5 + i), string.rep('x', 1000000)) end`, "0", fmt.Sprint(part))
			}
		}, []string{"BGSAVE"}},
		{"DEL of 2,000,000 elements", func(t *testing.T, admin *consistency.Conn) {
			for part := range 40 {
				do(t, admin, "EVAL", `local args = {} for i = 1, 50000 do args[#args + 1] = 'member:' .. (ARGV[1] * 50000 + i)
if #args == 5000 then redis.call('SADD', 'big', unpack(args)) args = {} end end`, "0", fmt.Sprint(part))
			}
		}, []string{"DEL", "big"}},
	} {
		admin := c.Admin(t, c.Master(t, 0).GetAddress())
		if slow.prepare != nil {
			slow.prepare(t, admin)
			c.WaitHealthy(t, 20*time.Second)
		}
		before, events := c.Topology(t), c.LastEvent(t)
		begin := l.Now()
		do(t, admin, slow.block...)
		took := l.Now() - begin
		time.Sleep(2 * time.Second) // for a decision that would come late
		after := c.Topology(t)
		for i, sh := range after.GetShards() {
			was := before.GetShards()[i]
			if sh.GetMaster() != was.GetMaster() || sh.GetGeneration() != was.GetGeneration() {
				t.Errorf("%s: %s went from %s (generation %d) to %s (%d)", slow.name, sh.GetId(), was.GetMaster(), was.GetGeneration(), sh.GetMaster(), sh.GetGeneration())
			}
		}
		requireNoMasterlessEpoch(t, c, before.GetEpoch())
		for _, e := range c.EventsAfter(t, events) {
			t.Logf("%s: event %s: %s", slow.name, e.GetKind(), e.GetMessage())
		}
		t.Logf("%s: the server was busy for %s, epoch %d -> %d", slow.name, took.Round(time.Millisecond), before.GetEpoch(), after.GetEpoch())
	}
	if final := l.Judge(t); final.Behind > 0 {
		t.Errorf("%d keys lost acknowledged writes: %s", final.Behind, final.Examples)
	}
	requireNoErrors(t, l.Timeline())
}

// requireNoMasterlessEpoch fails the test when a shard had no master, or was
// frozen, in an epoch after the given one: then something was begun and undone.
func requireNoMasterlessEpoch(t *testing.T, c *harness.Cluster, after uint64) {
	t.Helper()
	for _, e := range c.History(t) {
		if e.GetEpoch() <= after {
			continue
		}
		for _, sh := range e.GetShards() {
			if sh.GetMaster() == "" || sh.GetFrozen() || sh.GetOperation().GetKind() == pb.OperationKind_OPERATION_KIND_FAILOVER {
				t.Errorf("epoch %d (%s): something was done to %s", e.GetEpoch(), e.GetReason(), sh.GetId())
			}
		}
	}
}

package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

func (r *rig) setConfig(pairs ...string) error {
	r.t.Helper()
	var settings []topology.Setting
	for i := 0; i < len(pairs); i += 2 {
		settings = append(settings, topology.Setting{Name: pairs[i], Value: pairs[i+1]})
	}
	_, err := r.loop.SetConfig(r.t.Context(), settings)
	return err
}

// has are the nodes whose parameter has a value.
func (r *rig) has(name, value string) (nodes []string) {
	r.t.Helper()
	for id, s := range r.servers {
		if pair, ok := s.MustDo("CONFIG", "GET", name).([]any); ok && len(pair) == 2 && pair[1] == value {
			nodes = append(nodes, id)
		}
	}
	slices.Sort(nodes)
	return nodes
}

func (r *rig) refusedConfig(want string, pairs ...string) {
	r.t.Helper()
	var refusal *topology.RefusalError
	if err := r.setConfig(pairs...); !errors.As(err, &refusal) || !strings.HasPrefix(refusal.Reply, "ERR ") || !strings.Contains(refusal.Reply, want) {
		r.t.Errorf("%v: %v, want %s", pairs, err, want)
	}
}

func TestSettingsReachEveryNodeAndStay(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 2, 2, nil)
	begun := time.Now()
	if err := r.setConfig("maxmemory-policy", "allkeys-lru", "HASH-max-ziplist-entries", "77"); err != nil {
		t.Fatal(err)
	}
	t.Logf("set on four nodes in %v", time.Since(begun))
	all := []string{"shard-0-0", "shard-0-1", "shard-1-0", "shard-1-1"}
	if got := r.has("maxmemory-policy", "allkeys-lru"); !slices.Equal(got, all) {
		t.Errorf("only %v have it", got)
	}
	want := []topology.Setting{{Name: "hash-max-listpack-entries", Value: "77"}, {Name: "maxmemory-policy", Value: "allkeys-lru"}}
	if got := r.loop.Topology().Settings; !slices.Equal(got, want) {
		t.Errorf("kept: %v", got)
	}
	epoch := r.loop.Topology().SettingsEpoch
	if err := r.setConfig("hash-max-listpack-entries", "77"); err != nil || r.loop.Topology().SettingsEpoch != epoch {
		t.Errorf("the same again: %v, epoch %d after %d", err, r.loop.Topology().SettingsEpoch, epoch)
	}

	// A replica and a master start again, with what their files say.
	r.servers["shard-0-1"].Kill()
	r.servers["shard-0-1"].Restart()
	r.servers["shard-1-0"].Kill()
	r.eventually("replaced", 5*time.Second, func() bool { return r.shard("shard-1").Master == "shard-1-1" })
	r.servers["shard-1-0"].Restart()
	r.settled("shard-0")
	r.settled("shard-1")
	r.eventually("all have it", 5*time.Second, func() bool { return slices.Equal(r.has("maxmemory-policy", "allkeys-lru"), all) })
	r.checkEpochs()
}

func TestRefusedSettingsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	r.refusedConfig("Unknown option or number of arguments for CONFIG SET - 'nosuch'", "maxmemory", "123456789", "nosuch", "1")
	r.refusedConfig("can't set immutable config", "daemonize", "yes")
	r.refusedConfig("duplicate parameter", "maxmemory", "1mb", "maxmemory", "2mb")
	r.refusedConfig("must be one of the following", "maxmemory-policy", "sometimes")
	r.refusedConfig("lose the server", "maxmemory", "123456789", "port", "1")
	r.refusedConfig("--hung-after", "lua-time-limit", "60000")
	r.refusedConfig("credentials files", "masterauth", "s3cret")
	if got := r.has("maxmemory", "0"); len(got) != 2 {
		t.Errorf("only %v are untouched", got)
	}
	if c := r.loop.Topology(); len(c.Settings) != 0 || c.SettingsEpoch != 0 {
		t.Errorf("kept: %v", c.Settings)
	}
	// To write back what is there means no harm; what is not kept is set.
	port := strings.Split(r.servers["shard-0-0"].Address, ":")[1]
	if err := r.setConfig("port", port, "appendonly", "yes"); err != nil {
		t.Error(err)
	}
	if got := r.has("appendonly", "yes"); len(got) != 2 || len(r.loop.Topology().Settings) != 0 {
		t.Errorf("appendonly at %v, kept %v", got, r.loop.Topology().Settings)
	}
	r.checkEpochs()
}

func TestANodeThatWasAwayGetsTheSettings(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	away := r.servers["shard-0-1"]
	away.Pause()
	if err := r.setConfig("maxmemory-samples", "9"); err != nil {
		t.Fatal(err)
	}
	away.Resume()
	r.eventually("it has them", 10*time.Second, func() bool { return len(r.has("maxmemory-samples", "9")) == 2 })

	// Another Configserver gives them again, to a node that lost them meanwhile.
	r.stop()
	away.MustDo("CONFIG", "SET", "maxmemory-samples", "5")
	r.run()
	r.eventually("it has them again", 10*time.Second, func() bool { return len(r.has("maxmemory-samples", "9")) == 2 })

	if _, err := r.loop.UnsetConfig(t.Context(), []string{"maxmemory-samples"}); err != nil || len(r.loop.Topology().Settings) != 0 {
		t.Errorf("unset: %v", err)
	}
	_, err := r.loop.UnsetConfig(t.Context(), []string{"maxmemory-samples"})
	refused(t, err, "is not set")
	away.Kill()
	away.Restart()
	r.settled("shard-0")
	if got := r.has("maxmemory-samples", "9"); !slices.Equal(got, []string{"shard-0-0"}) {
		t.Errorf("%v have it after it was unset", got)
	}
	r.checkEpochs()
}

// Calls that overlap leave all nodes with what the record says.
func TestSettingsTakeTurns(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 2, 2, nil)
	var calls sync.WaitGroup
	for i := range 20 {
		calls.Go(func() {
			if err := r.setConfig("maxmemory-samples", fmt.Sprint(10+i)); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	c := r.loop.Topology()
	if len(c.Settings) != 1 {
		t.Fatalf("kept: %v", c.Settings)
	}
	if got := r.has("maxmemory-samples", c.Settings[0].Value); len(got) != 4 {
		t.Errorf("only %v have %s", got, c.Settings[0].Value)
	}
	r.checkEpochs()
}

// A server that does not take a setting is admitted all the same, and told of.
func TestANodeThatRefusesASetting(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	_, err := r.loop.Commit(t.Context(), "a parameter of servers to come", func(c *topology.Cluster) ([]topology.Event, error) {
		c.Settings, c.SettingsEpoch = []topology.Setting{{Name: "from-the-future", Value: "1"}, {Name: "maxmemory-samples", Value: "8"}}, c.Epoch
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("told", 5*time.Second, func() bool { return len(r.events("ConfigRefused")) == 2 })
	r.servers["shard-0-1"].Kill()
	r.servers["shard-0-1"].Restart()
	r.settled("shard-0")
	r.eventually("it has the other one", 5*time.Second, func() bool { return len(r.has("maxmemory-samples", "8")) == 2 })
	r.checkEpochs()
}

// A server answers BUSY before a silent one is taken for hung, also when that time
// was made shorter, whatever it was told before.
func TestAShorterHungAfterReachesEveryNode(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	policy := r.loop.Topology().Policy
	lower := func(hung time.Duration, want string) {
		t.Helper()
		policy.HungAfter = hung
		if _, err := r.loop.UpdatePolicy(t.Context(), policy); err != nil {
			t.Fatal(err)
		}
		r.eventually("all answer BUSY after "+want+" ms", 5*time.Second, func() bool { return len(r.has("lua-time-limit", want)) == 2 })
	}
	lower(policy.HungAfter-100*time.Millisecond, fmt.Sprint((policy.HungAfter - 600*time.Millisecond).Milliseconds()))
	if err := r.setConfig("busy-reply-threshold", fmt.Sprint((policy.HungAfter - 600*time.Millisecond).Milliseconds())); err != nil {
		t.Fatal(err)
	}
	lower(1200*time.Millisecond, "700")
	r.checkEpochs()
}

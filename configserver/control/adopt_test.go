package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/memstore"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// restore ends the loop, brings the store back to what it was, and begins a loop.
func (r *rig) restore(c topology.Cluster, members ...store.Member) {
	r.t.Helper()
	r.stop()
	r.store = memstore.New(memstore.Options{KeepEpochs: 10000})
	first := c.Clone()
	first.Epoch = 1
	if err := r.store.Create(r.t.Context(), first); err != nil {
		r.t.Fatal(err)
	}
	session, err := r.store.Join(r.t.Context(), store.Replica{ID: "backup", Address: "127.0.0.1:1"})
	if err != nil {
		r.t.Fatal(err)
	}
	own, err := session.Claim(r.t.Context(), "c")
	for _, m := range members {
		err = errors.Join(err, own.PutMember(r.t.Context(), m))
	}
	for next := c.Clone(); err == nil && first.Epoch < c.Epoch; {
		first.Epoch++
		next.Epoch = first.Epoch
		err = own.Commit(r.t.Context(), next)
	}
	if err = errors.Join(err, session.Close(r.t.Context())); err != nil {
		r.t.Fatal(err)
	}
	r.run()
}

// states is what each server is and whom it lets in.
func (r *rig) states() string {
	r.t.Helper()
	var all []string
	for id, s := range r.servers {
		all = append(all, fmt.Sprint(id, " ", s.Info("role"), " ", s.Info("master_port"), " ", s.MustDo("ACL", "LIST")))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func (r *rig) hasProblem(code string) bool {
	return slices.ContainsFunc(r.loop.Status().Problems, func(p Problem) bool { return p.Code == code })
}

// obeys connects until the proxy obeys an epoch.
func (p *fakeProxy) obeys(epoch uint64) {
	p.r.t.Helper()
	p.connect()
	p.r.eventually(fmt.Sprint("obeyed: epoch ", epoch), 5*time.Second, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.view.Cluster.Epoch >= epoch
	})
}

func TestARecordThatIsOlderIsNotActedOn(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 2, 2, nil)
	p := r.proxy("p1")
	p.fill("shard-0", 20)
	p.fill("shard-1", 20)
	backup := r.loop.Topology().Clone()
	if report := r.switchover("shard-1"); !report.Succeeded {
		t.Fatalf("report %+v", report)
	}
	r.servers["shard-0-0"].Kill()
	p.setUntil("shard-0", "later", "v")
	r.servers["shard-0-0"].Restart()
	r.settled("shard-0")
	r.settled("shard-1")
	p.mustSet("shard-1", "later", "v")
	r.eventually("granted", 5*time.Second, func() bool { return !r.hasProblem("StaleUsers") })
	knew := r.loop.Topology()

	r.restore(backup)
	r.eventually("noticed by the servers' users", 5*time.Second, func() bool { return r.hasProblem("RecordIsOlder") })
	before := r.states()
	p.connect()
	time.Sleep(2 * time.Second)
	var refused *topology.PreconditionError
	if _, err := r.loop.SetReadable(t.Context(), "shard-0-1", false); !errors.As(err, &refused) || !strings.Contains(err.Error(), "topology adopt c") {
		t.Errorf("a commit: %v", err)
	}
	if _, err := r.loop.Switchover(t.Context(), "shard-1", ""); !errors.As(err, &refused) {
		t.Errorf("a switchover: %v", err)
	}
	p.mustSet("shard-0", "meanwhile", "v")
	p.mustSet("shard-1", "meanwhile", "v")
	if after := r.states(); after != before {
		t.Errorf("servers were changed: they were\n%s\nand are\n%s", before, after)
	}
	if c := r.loop.Topology(); c.Epoch != backup.Epoch {
		t.Errorf("epoch %d (%s) was committed", c.Epoch, c.Reason)
	}
	r.eventually("told", 5*time.Second, func() bool { return len(r.events("RecordIsOlder")) == 1 })

	plan, err := r.loop.AdoptTopology(t.Context(), true)
	if err != nil || len(plan.Shards) != 2 || plan.Shards[0].Master != "shard-0-1" || plan.Shards[1].Master != "shard-1-1" || plan.Shards[0].Generation != 2 {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	if c := r.loop.Topology(); c.Epoch != backup.Epoch || r.states() != before {
		t.Errorf("a plan changed something: epoch %d", c.Epoch)
	}
	adopted, err := r.loop.AdoptTopology(t.Context(), false)
	if err != nil || adopted.Epoch <= knew.Epoch {
		t.Fatalf("adopted %+v, %v; proxies obey epoch %d", adopted, err, knew.Epoch)
	}
	p.obeys(adopted.Epoch)
	for shard, master := range map[string]string{"shard-0": "shard-0-1", "shard-1": "shard-1-1"} {
		r.settled(shard)
		if s := r.shard(shard); s.Master != master {
			t.Errorf("%s: master %s, want %s", shard, s.Master, master)
		}
		p.holds(shard, 20)
		p.has(shard, "later", "v")
		p.has(shard, "meanwhile", "v")
	}
	if r.hasProblem("RecordIsOlder") || len(r.events("TopologyAdopted")) != 1 {
		t.Error("the record still is older, or nobody told of the adoption")
	}
	if _, err := r.loop.AdoptTopology(t.Context(), false); !errors.As(err, &refused) {
		t.Errorf("adopt again: %v", err)
	}
	r.servers["shard-0-1"].Kill()
	p.setUntil("shard-0", "last", "v")
	p.holds("shard-0", 20)
	p.has("shard-0", "meanwhile", "v")
	r.checkEpochs()
}

// After a switchover the servers' users are as before: only proxies know, and the
// loop listens to those that were there before it does anything.
func TestOnlyAProxyKnowsThatTheRecordIsOlder(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	p := r.proxy("p1")
	p.fill("shard-0", 20)
	backup := r.loop.Topology().Clone()
	if report := r.switchover("shard-0"); report.NewMaster != "shard-0-1" {
		t.Fatalf("report %+v", report)
	}
	r.settled("shard-0")
	// The users of seats that nobody has come a moment later, when they are seen to be missing.
	r.eventually("granted", 5*time.Second, func() bool {
		return strings.Count(r.states(), "user basalt-proxy-") == 2*len(r.loop.Topology().Seats)
	})
	before := r.states()
	r.restore(backup, store.Member{ID: "p1", Address: "127.0.0.1:2"})
	time.Sleep(hearFirst / 2)
	p.connect()
	r.eventually("noticed", 5*time.Second, func() bool { return r.hasProblem("RecordIsOlder") })
	time.Sleep(2 * time.Second)
	p.mustSet("shard-0", "meanwhile", "v")
	if after := r.states(); after != before {
		t.Errorf("servers were changed: they were\n%s\nand are\n%s", before, after)
	}
	// What is contradictory is refused: a second node that could be the master.
	r.servers["shard-0-0"].MustDo("REPLICAOF", "NO", "ONE")
	var refused *topology.PreconditionError
	if a, err := r.loop.AdoptTopology(t.Context(), false); !errors.As(err, &refused) || !strings.Contains(err.Error(), "shard-0-0 and shard-0-1 are masters") {
		t.Errorf("adopted %+v, %v", a, err)
	}
	r.follow("shard-0-0", r.servers["shard-0-1"].Address)
	adopted, err := r.loop.AdoptTopology(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	p.obeys(adopted.Epoch)
	r.settled("shard-0")
	if s := r.shard("shard-0"); s.Master != "shard-0-1" || s.Generation != 2 {
		t.Errorf("shard %+v", s)
	}
	p.holds("shard-0", 20)
	p.has("shard-0", "meanwhile", "v")
	r.checkEpochs()
}

// A proxy of another cluster that had the same name says nothing about this one.
func TestAProxyOfAnotherClusterIsNoWitness(t *testing.T) {
	t.Parallel()
	r := bare(t)
	if _, err := r.loop.Connect(t.Context(), Hello{ID: "p1", Address: "127.0.0.1:2", Epoch: 1000, UID: "another"}); err != nil {
		t.Fatal(err)
	}
	r.nextEpoch()
	if r.hasProblem("RecordIsOlder") {
		t.Error("its epoch counts")
	}
}

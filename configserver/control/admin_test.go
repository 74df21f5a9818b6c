package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

func (r *rig) add(shard, id string, o redistest.Options, discard bool) error {
	r.t.Helper()
	if o.AdminPassword == "" {
		o.AdminPassword = adminPassword
	}
	s := redistest.Start(r.t, o)
	r.servers[id] = s
	s.MustDo("CONFIG", "SET", "save", "")
	return r.addServer(shard, id, s, discard)
}

func (r *rig) addServer(shard, id string, s *redistest.Server, discard bool) error {
	_, err := r.loop.RegisterNode(r.t.Context(), shard, topology.Node{ID: id, Address: s.Address, Readable: true, Priority: 100}, discard)
	return err
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	var precondition *topology.PreconditionError
	if !errors.As(err, &precondition) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want a precondition about %q", err, want)
	}
}

func TestRegistering(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	r.form(1, 1)
	refused(t, r.add("shard-0", "open", redistest.Options{Open: true}, false), "user default off")
	narrow := redistest.Start(t, redistest.Options{AdminPassword: adminPassword})
	narrow.MustDo("ACL", "SETUSER", "default", "-@all")
	refused(t, r.addServer("shard-0", "narrow", narrow, false), "user default off ~* &* +@all")
	refused(t, r.add("shard-0", "other", redistest.Options{AdminPassword: "somebody-elses"}, false), "admin password")
	dead := redistest.Start(t, redistest.Options{AdminPassword: adminPassword})
	dead.Kill()
	refused(t, r.addServer("shard-0", "dead", dead, false), "connection refused")
	if err := r.addServer("shard-7", "shard-7-0", r.servers["open"], false); !errors.Is(err, store.ErrNotFound) && err == nil {
		t.Errorf("unknown shard: %v", err)
	}
	full := redistest.Start(t, redistest.Options{AdminPassword: adminPassword})
	full.MustDo("SET", "mine", "1")
	refused(t, r.addServer("shard-0", "shard-0-1", full, false), "discard_data")
	if full.MustDo("GET", "mine") != "1" {
		t.Error("a refused server lost its data")
	}
	if err := r.addServer("shard-0", "shard-0-1", full, true); err != nil {
		t.Fatal(err)
	}
	r.servers["shard-0-1"] = full
	r.settled("shard-0")
	r.eventually("a copy", 3*time.Second, func() bool { return full.MustDo("DBSIZE") == int64(0) })
	if err := r.addServer("shard-0", "shard-0-1", full, false); err != nil {
		t.Errorf("a second time: %v", err)
	}
	r.checkEpochs()
}

func TestDeregistering(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	_, err := r.loop.DeregisterNode(t.Context(), "shard-0-0")
	refused(t, err, "switch over")
	if _, err := r.loop.DeregisterNode(t.Context(), "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown node: %v", err)
	}
	c, err := r.loop.DeregisterNode(t.Context(), "shard-0-1")
	if err != nil || len(c.Shards[0].Nodes) != 1 {
		t.Fatalf("%+v, %v", c.Shards, err)
	}
	users, _ := r.servers["shard-0-1"].MustDo("ACL", "USERS").([]any)
	if len(users) != 3 || r.servers["shard-0-1"].Info("role") != "master" {
		t.Errorf("users %v", users)
	}
	if err := r.addServer("shard-0", "shard-0-2", r.servers["shard-0-1"], true); err != nil {
		t.Error(err)
	}
	r.settled("shard-0")
	r.checkEpochs()
}

func TestReadable(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	c, err := r.loop.SetReadable(t.Context(), "shard-0-1", false)
	if err != nil || c.Shards[0].Nodes[1].InReadSet {
		t.Errorf("%+v, %v", c.Shards[0], err)
	}
	time.Sleep(100 * time.Millisecond)
	if r.shard("shard-0").Nodes[1].InReadSet {
		t.Error("it came back by itself")
	}
	if _, err := r.loop.SetReadable(t.Context(), "shard-0-1", true); err != nil {
		t.Error(err)
	}
	r.settled("shard-0")
	r.servers["shard-0-1"].Kill()
	r.eventually("out of the read set", 2*time.Second, func() bool { return !r.shard("shard-0").Nodes[1].InReadSet })
	r.servers["shard-0-1"].Restart()
	r.settled("shard-0")
	r.eventually("told", 5*time.Second, func() bool { return len(r.events("ReplicaLost")) == 1 && len(r.events("ReplicaRecovered")) == 1 })
	r.checkEpochs()
}

func TestRotation(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 2, 2, nil)
	p := r.proxy("p1")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := p.set(fmt.Sprint("shard-", i%2), "k", fmt.Sprint(i)); err != nil {
				t.Errorf("write %d: %v", i, err)
				return
			}
		}
	}()
	old := p.present("shard-0")
	r.writeSecrets("another-admin-password\n"+adminPassword, "another-root-of-passwords\nthe-root-of-all-passwords", "what-clients-say")
	generations, err := r.loop.Rotate(t.Context())
	if err != nil || generations["shard-0"] != 2 || generations["shard-1"] != 2 {
		t.Fatalf("%v, %v", generations, err)
	}
	close(stop)
	<-done
	if err := old.Ping(t.Context()).Err(); err == nil {
		t.Error("the old credentials still work")
	}
	for id, server := range r.servers {
		if _, err := server.Do("PING"); err == nil {
			t.Errorf("%s still takes the old admin password", id)
		}
		server.AdminPassword = "another-admin-password"
		server.MustDo("PING")
	}
	c := r.loop.Topology()
	if len(c.ClientSecretIDs) != 1 || c.Shards[0].Operation != nil || len(r.events("CredentialsRotated")) != 2 {
		t.Errorf("%+v", c)
	}
	p.mu.Lock()
	if len(p.view.ClientPasswordSHA256) != 1 {
		t.Error("proxies do not know the client password")
	}
	p.mu.Unlock()
	// Replication goes on with the new password, also after a reconnect.
	r.writeSecrets("another-admin-password", "another-root-of-passwords", "what-clients-say")
	r.servers["shard-0-0"].MustDo("CLIENT", "KILL", "TYPE", "replica")
	r.eventually("linked", 5*time.Second, func() bool { return r.servers["shard-0-1"].Info("master_link_status") == "up" })
	report, err := r.loop.Switchover(t.Context(), "shard-0", "")
	if err != nil || !report.Succeeded {
		t.Errorf("%+v, %v", report, err)
	}
	if err := p.set("shard-0", "k", "v"); err != nil {
		t.Error(err)
	}
	r.checkEpochs()
}

func TestDelete(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	p := r.proxy("p1")
	c := p.present("shard-0")
	if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.loop.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Cluster(t.Context(), "c"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	if err := c.Get(t.Context(), "k").Err(); err == nil || errors.Is(err, redis.Nil) {
		t.Errorf("proxies still read: %v", err)
	}
	for id, s := range r.servers {
		if s.MustDo("GET", "k") != "v" {
			t.Errorf("%s lost its data", id)
		}
	}
	if _, err := r.loop.SetReadable(t.Context(), "shard-0-0", true); !errors.Is(err, ErrStopped) {
		t.Errorf("after the end: %v", err)
	}
}

func TestBarrier(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	r.form(1, 1)
	p := r.proxy("p1")
	epoch, proxies, err := r.loop.Barrier(t.Context(), 0)
	if err != nil || epoch != r.loop.Topology().Epoch || len(proxies) != 1 {
		t.Errorf("%d, %v, %v", epoch, proxies, err)
	}
	p.setMute(true)
	if _, err := r.loop.UpdatePolicy(t.Context(), r.loop.Topology().Policy); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var unacked *UnackedError
	if _, _, err := r.loop.Barrier(ctx, 0); !errors.As(err, &unacked) || !strings.Contains(err.Error(), "p1 at 127.0.0.1:2") {
		t.Errorf("error %v", err)
	}
	if err := p.stream.Goodbye(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, proxies, err := r.loop.Barrier(t.Context(), 0); err != nil || len(proxies) != 0 {
		t.Errorf("%v, %v", proxies, err)
	}
	if members, _ := r.store.Members(t.Context(), "c"); len(members) != 0 {
		t.Errorf("members %v", members)
	}
}

func TestAllNodesRestartWithTheirData(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 2, nil)
	for n := range 2 {
		id := fmt.Sprintf("shard-0-%d", n)
		r.servers[id] = redistest.Start(t, redistest.Options{AdminPassword: adminPassword, Persist: true})
		if err := r.addServer("shard-0", id, r.servers[id], false); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("serving", 15*time.Second, func() bool { return r.loop.Topology().Phase == topology.Serving })
	p := r.proxy("p1")
	p.setUntil("shard-0", "k", "v")
	time.Sleep(50 * time.Millisecond)
	for _, s := range r.servers {
		s.MustDo("SAVE")
	}
	for _, s := range r.servers {
		s.Kill()
	}
	for _, s := range r.servers {
		s.Restart()
	}
	t.Logf("writes after %v", p.setUntil("shard-0", "after", "1"))
	p.has("shard-0", "k", "v")
	r.settled("shard-0")
	r.checkEpochs()
}

func TestASingleNodeIsAdmittedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	r.form(1, 1)
	p := r.proxy("p1")
	p.setUntil("shard-0", "k", "v")
	r.servers["shard-0-0"].RestartEmpty()
	t.Logf("writes after %v", p.setUntil("shard-0", "k", "w"))
	r.checkEpochs()
}

func TestAnEmptyMasterIsNotTakenWhileAReplicaIsAway(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, func(p *topology.Policy) { p.RestartGrace = 500 * time.Millisecond })
	p := r.proxy("p1")
	p.setUntil("shard-0", "k", "v")
	time.Sleep(50 * time.Millisecond)
	r.servers["shard-0-1"].Pause()
	time.Sleep(2500 * time.Millisecond)
	r.servers["shard-0-0"].RestartEmpty()
	time.Sleep(1500 * time.Millisecond)
	if s := r.shard("shard-0"); s.Master == "shard-0-0" && s.Nodes[0].Incarnation == r.servers["shard-0-0"].Info("run_id") {
		t.Error("an empty master was admitted although a replica has the data")
	}
	r.servers["shard-0-1"].Resume()
	r.eventually("replaced", 5*time.Second, func() bool { return r.shard("shard-0").Master == "shard-0-1" })
	p.setUntil("shard-0", "after", "1")
	p.has("shard-0", "k", "v")
	r.settled("shard-0")
	r.checkEpochs()
}

func TestMinReplicasToWrite(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, func(p *topology.Policy) { p.MinReplicasToWrite = 1 })
	p := r.proxy("p1")
	value := func() string {
		reply, _ := r.servers["shard-0-0"].MustDo("CONFIG", "GET", "min-replicas-to-write").([]any)
		return fmt.Sprint(reply[1])
	}
	r.eventually("set", 3*time.Second, func() bool { return value() == "1" })
	r.servers["shard-0-1"].Kill()
	p.setUntil("shard-0", "k", "v")
	r.eventually("lowered", 3*time.Second, func() bool { return value() == "0" })
}

// What CONFIG SET says about min-replicas-to-write holds for every master, also
// when that stops the writes, and the policy adds to it.
func TestMinReplicasThatAnAdminSet(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, func(p *topology.Policy) { p.MinReplicasToWrite = 1 })
	p := r.proxy("p1")
	is := func(node, want string) {
		t.Helper()
		r.eventually(node+" has "+want, 5*time.Second, func() bool {
			reply, _ := r.servers[node].MustDo("CONFIG", "GET", "min-replicas-to-write").([]any)
			return fmt.Sprint(reply[1]) == want
		})
	}
	is("shard-0-0", "1")
	if err := r.setConfig("min-slaves-to-write", "2"); err != nil {
		t.Fatal(err)
	}
	is("shard-0-0", "2")
	if err := p.set("shard-0", "k", "v"); err == nil || !strings.Contains(err.Error(), "NOREPLICAS") {
		t.Errorf("a write with one of two replicas: %v", err)
	}
	// A node that was made master has it at once.
	r.servers["shard-0-0"].Kill()
	r.eventually("replaced", 5*time.Second, func() bool { return r.shard("shard-0").Master == "shard-0-1" })
	is("shard-0-1", "2")
	r.servers["shard-0-0"].Restart()
	r.settled("shard-0")
	is("shard-0-0", "2")
	// Taken back, the policy's holds again.
	if err := r.setConfig("min-replicas-to-write", "0"); err != nil {
		t.Fatal(err)
	}
	is("shard-0-1", "1")
	p.setUntil("shard-0", "k", "v")
	r.checkEpochs()
}

func TestAServerOfAnotherClusterIsNotTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	r.form(1, 1)
	taken := redistest.Start(t, redistest.Options{AdminPassword: adminPassword})
	taken.MustDo("ACL", "SETUSER", "basalt-proxy-4", "on")
	refused(t, r.addServer("shard-0", "shard-0-1", taken, false), "proxies of a cluster")
	if err := r.addServer("shard-0", "shard-0-1", taken, true); err != nil {
		t.Error(err)
	}
	r.settled("shard-0")
}

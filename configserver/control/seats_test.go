package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// fenceWithin is the most that a proxy may cost an operation for which it is out.
const fenceWithin = 50 * time.Millisecond

// letIn lists the servers that let a proxy in by what it knows.
func (r *rig) letIn(p *fakeProxy) (nodes []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, s := range r.servers {
		for _, known := range p.logins {
			c := s.Client(known.username, known.password)
			err := c.Ping(context.Background()).Err()
			_ = c.Close()
			if err == nil {
				nodes = append(nodes, id)
			}
		}
	}
	slices.Sort(nodes)
	return nodes
}

// holdsNoCredential checks that what a proxy knows is of no use to it.
func (r *rig) holdsNoCredential(p *fakeProxy) {
	r.t.Helper()
	if len(p.logins) == 0 {
		r.t.Fatalf("%s never had a credential", p.id)
	}
	if at := r.letIn(p); len(at) > 0 {
		r.t.Errorf("%s is let in at %v", p.id, at)
	}
}

// isForgotten tells if a proxy is a member no more, here and in the store.
func (r *rig) isForgotten(id string) bool {
	return !slices.ContainsFunc(r.membersInStore(), func(m store.Member) bool { return m.ID == id }) &&
		!slices.ContainsFunc(r.loop.Status().Proxies, func(p ProxyStatus) bool { return p.ID == id })
}

// dead is a proxy that was killed: it knows what it knew, and says nothing more.
func (r *rig) dead(id string) *fakeProxy {
	r.t.Helper()
	p := r.proxy(id)
	p.setMute(true)
	p.stream.Close()
	return p
}

// held is how long a switchover held requests because of proxies.
func held(report *topology.Report) (d time.Duration) {
	for _, p := range report.Phases {
		if p.Name == "freezing" || p.Name == "fencing" {
			d += p.Duration
		}
	}
	return d
}

// settledShards makes a cluster whose proxies are waited for as by default.
func settledShards(t *testing.T, shards, nodes int) *rig {
	t.Helper()
	return settledRig(t, shards, nodes, func(p *topology.Policy) { p.AckTimeout = 500 * time.Millisecond })
}

func (r *rig) generations() (list []uint64) {
	for _, s := range r.loop.Topology().Shards {
		list = append(list, s.Generation)
	}
	return list
}

// TestADeadProxyIsWaitedForOnce: the first switchover waits for it, and no other one,
// nor does another proxy notice that it was shut out.
func TestADeadProxyIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 3, 2)
	good, dead := r.proxy("good"), r.dead("dead")
	for i := range 3 {
		good.mustSet(fmt.Sprintf("shard-%d", i), "k", "v")
	}
	for i := range 3 {
		report := r.switchover(fmt.Sprintf("shard-%d", i))
		t.Logf("shard-%d: held for %v, unacked %v", i, held(&report), report.Unacked)
		if i == 0 && (!report.Fenced || !slices.Equal(report.Unacked, []string{"dead"})) {
			t.Errorf("the first one: %+v", report)
		}
		if i > 0 && held(&report) > fenceWithin {
			t.Errorf("shard-%d was held for %v", i, held(&report))
		}
	}
	r.eventually("forgotten", 5*time.Second, func() bool { return r.isForgotten("dead") })
	r.holdsNoCredential(dead)
	if got := r.generations(); !slices.Equal(got, []uint64{1, 1, 1}) {
		t.Errorf("generations %v", got)
	}
	good.mu.Lock()
	for to, c := range good.clients {
		if n := c.PoolStats().Misses; n != 1 {
			t.Errorf("the other proxy connected %d times to %s", n, to)
		}
	}
	good.mu.Unlock()
	if n := len(r.events("ProxiesShutOut")); n != 1 {
		t.Errorf("%d events tell that proxies were shut out", n)
	}
	// Its seat is for another one, who gets in.
	next := r.proxy("next")
	if seat := next.view.Seat; seat != (credentials.Seat{Number: 1, Version: 2}) {
		t.Errorf("the next proxy has seat %+v", seat)
	}
	next.mustSet("shard-1", "k", "w")
	r.holdsNoCredential(dead)
	r.checkEpochs()
}

// TestAHungProxyIsLetInAgain: its stream is open, it does not obey, and nobody waits
// for it a second time. It gets its seat again by its stream when it obeys, also when
// it comes back on another one.
func TestAHungProxyIsLetInAgain(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"by its stream", "by a hello"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := settledShards(t, 2, 2)
			good, hung := r.proxy("good"), r.proxy("hung")
			hung.mustSet("shard-1", "k", "v")
			hung.setMute(true)
			for i := range 2 {
				report := r.switchover(fmt.Sprintf("shard-%d", i))
				if i > 0 && held(&report) > fenceWithin {
					t.Errorf("shard-%d was held for %v", i, held(&report))
				}
			}
			// The other shard is at rest: it may stay there for as long as leaveFor.
			r.eventually("shut out", 2*leaveFor, func() bool { return len(r.letIn(hung)) == 0 })
			r.eventually("exact", 5*time.Second, r.allExact)
			if r.isForgotten("hung") {
				t.Error("a proxy that is connected was forgotten")
			}
			good.mustSet("shard-0", "k", "w")
			hung.setMute(false)
			if how == "by a hello" {
				hung.stream.Close()
				hung.connect()
			} else {
				r.nextEpoch() // which it acks
			}
			r.eventually("let in again", 5*time.Second, func() bool { return hung.set("shard-1", "k", "x") == nil })
			report := r.switchover("shard-0")
			if report.Fenced || len(report.Unacked) > 0 {
				t.Errorf("it obeys: %+v", report)
			}
			if got := r.generations(); !slices.Equal(got, []uint64{1, 1}) {
				t.Errorf("generations %v", got)
			}
			r.checkEpochs()
		})
	}
}

// TestASlowProxyMayLeave: one that obeys too late loses its connections only at the
// shard that could not wait.
func TestASlowProxyMayLeave(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 2, 2)
	slow := r.proxy("slow")
	slow.mustSet("shard-0", "k", "v")
	slow.mustSet("shard-1", "k", "v")
	before := slow.present("shard-1")
	slow.setMute(true)
	if report := r.switchover("shard-0"); !report.Fenced {
		t.Fatalf("%+v", report)
	}
	if err := before.Set(t.Context(), "k", "w", 0).Err(); err != nil || before.PoolStats().Misses != 1 {
		t.Errorf("at the other shard: %v after %d connections", err, before.PoolStats().Misses)
	}
	slow.setMute(false)
	r.nextEpoch()
	r.eventually("let in again", 5*time.Second, func() bool { return slow.set("shard-0", "k", "x") == nil })
	slow.mustSet("shard-1", "k", "x")
	r.eventually("the old user is gone", 2*leaveFor, r.allExact)
	r.checkEpochs()
}

// TestAFailoverShutsADeadProxyOut: the shard whose master died gets a new generation,
// the others do not, and wait for nobody.
func TestAFailoverShutsADeadProxyOut(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 2, 2)
	good, dead := r.proxy("good"), r.dead("dead")
	r.servers["shard-0-0"].Kill()
	good.setUntil("shard-0", "k", "v")
	r.servers["shard-0-0"].Restart()
	if report := r.switchover("shard-1"); held(&report) > fenceWithin {
		t.Errorf("shard-1 was held for %v", held(&report))
	}
	r.settled("shard-0")
	r.eventually("forgotten", 5*time.Second, func() bool { return r.isForgotten("dead") })
	r.holdsNoCredential(dead)
	r.eventually("exact", 5*time.Second, r.allExact)
	if got := r.generations(); !slices.Equal(got, []uint64{2, 1}) {
		t.Errorf("generations %v", got)
	}
	r.checkEpochs()
}

// TestUsersWithLimitsTakeANewGeneration: all proxies know their password, so shutting
// one out takes another.
func TestUsersWithLimitsTakeANewGeneration(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 2, 2)
	good := r.proxy("good")
	r.setUser("app", "on", "nopass", "~app:*", "+@all")
	dead := r.dead("dead")
	scripts := dead.view.Credentials[1]
	for i := range 2 {
		report := r.switchover(fmt.Sprintf("shard-%d", i))
		if i > 0 && held(&report) > fenceWithin {
			t.Errorf("shard-%d was held for %v", i, held(&report))
		}
	}
	r.eventually("forgotten", 5*time.Second, func() bool { return r.isForgotten("dead") })
	r.holdsNoCredential(dead)
	for id, s := range r.servers {
		c := s.Client(scripts.ScriptUsername+":"+r.loop.NodeUsers()[0].Rights, scripts.ScriptPassword)
		if err := c.Eval(t.Context(), "return 1", nil).Err(); err == nil {
			t.Errorf("%s runs scripts for a proxy that was shut out", id)
		}
		_ = c.Close()
	}
	if got := r.generations(); !slices.Equal(got, []uint64{2, 2}) {
		t.Errorf("generations %v", got)
	}
	good.mustSet("shard-1", "k", "v")
	r.eventually("exact", 5*time.Second, r.allExact)
	r.checkEpochs()
}

// TestANodeThatWasAwayShutsOut: it gets the news with the first thing that it is told.
func TestANodeThatWasAwayShutsOut(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 2, 2)
	r.proxy("good")
	away, restarted := r.servers["shard-1-1"], r.servers["shard-0-1"]
	dead := r.dead("dead")
	away.Pause()
	restarted.Kill()
	r.eventually("noticed", 10*time.Second, func() bool { return !r.shard("shard-1").Nodes[1].InReadSet && !r.shard("shard-0").Nodes[1].InReadSet })
	if err := r.loop.ShutOut(t.Context(), []string{"dead"}, true); err != nil {
		t.Fatal(err)
	}
	r.eventually("forgotten", 10*time.Second, func() bool { return r.isForgotten("dead") })
	away.Resume()
	restarted.Restart()
	r.settled("shard-0")
	r.settled("shard-1")
	r.eventually("exact", 5*time.Second, r.allExact)
	r.holdsNoCredential(dead)
	r.checkEpochs()
}

// TestAnotherOwnerShutsOut stops the owner at every step and lets another
// Configserver go on.
func TestAnotherOwnerShutsOut(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"seats/committed", "seats/fenced"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := settledShards(t, 2, 2)
			good, dead := r.proxy("good"), r.dead("dead")
			r.arm(step + "=error")
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			go func() { _, _ = r.loop.Switchover(ctx, "shard-0", "") }()
			r.eventually("committed", 5*time.Second, func() bool { return r.loop.Topology().Seats[1] == 2 })
			time.Sleep(200 * time.Millisecond)
			r.takeOver()
			good.connect()
			good.setUntil("shard-0", "k", "v")
			r.eventually("forgotten", 5*time.Second, func() bool { return r.isForgotten("dead") })
			r.holdsNoCredential(dead)
			r.settled("shard-0")
			if got := r.loop.Topology().Seats[1]; got != 2 {
				t.Errorf("it was shut out again: version %d", got)
			}
			if report := r.switchover("shard-1"); held(&report) > fenceWithin {
				t.Errorf("shard-1 was held for %v", held(&report))
			}
			r.checkEpochs()
		})
	}
}

// TestAnotherOwnerGivesTheSeat: the owner was killed after the store knew that a proxy
// has its seat again, and before the proxy did.
func TestAnotherOwnerGivesTheSeat(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 1, 2)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	p.setMute(true)
	r.switchover("shard-0")
	r.arm("seats/given=error")
	p.setMute(false)
	r.nextEpoch()
	r.eventually("given", 5*time.Second, func() bool { return r.membersInStore()[0].SeatVersion == 2 })
	r.holdsNoCredential(p)
	r.takeOver()
	p.connect()
	p.setUntil("shard-0", "k", "w")
	// It may know the credential, so it is waited for.
	p.setMute(true)
	if report := r.switchover("shard-0"); !slices.Equal(report.Unacked, []string{"p1"}) {
		t.Errorf("%+v", report)
	}
	r.holdsNoCredential(p)
	r.checkEpochs()
}

// TestASeatIsGivenLater: what goes wrong is tried again, though no epoch comes that
// the proxy could ack.
func TestASeatIsGivenLater(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 1, 2)
	p := r.proxy("p1")
	p.setMute(true)
	r.switchover("shard-0")
	r.arm("seats/given=error@1")
	p.setMute(false)
	r.nextEpoch()
	r.eventually("let in again", 5*time.Second, func() bool { return p.set("shard-0", "k", "v") == nil })
}

// TestAProxyThatIsLetInAgainMustObeyUsers: an ack of the epoch in which it lost its
// seat says nothing about users that changed after that.
func TestAProxyThatIsLetInAgainMustObeyUsers(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 1, 1)
	s := r.hello("p1", r.loop.Topology().Epoch)
	if err := r.loop.ShutOut(t.Context(), []string{"p1"}, true); err != nil {
		t.Fatal(err)
	}
	lost := r.loop.Topology().Epoch
	answered := make(chan error, 1)
	go func() {
		_, err := r.loop.SetUser(t.Context(), "app", []string{"on", "nopass", "+get"})
		answered <- err
	}()
	r.eventually("committed", 5*time.Second, func() bool { return r.loop.Topology().Epoch > lost })
	s.Ack(lost)
	r.eventually("let in again", 5*time.Second, func() bool { return r.membersInStore()[0].SeatVersion == 2 })
	select {
	case err := <-answered:
		t.Errorf("answered before the ack: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.Ack(r.loop.Topology().Epoch)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// TestSeats: each proxy has one of its own, there are always some to spare whose users
// are at the servers, and those that were left are taken again.
func TestSeats(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 2, 1)
	seats := map[credentials.Seat]string{}
	streams := map[string]ProxyStream{}
	for i := range 3 * topology.MinSeats {
		id := fmt.Sprintf("p%d", i)
		streams[id] = r.hello(id, 0)
		view := <-streams[id].Updates()
		if other, taken := seats[view.Seat]; taken || !view.Seated() {
			t.Errorf("%s has seat %+v, as %s", id, view.Seat, other)
		}
		seats[view.Seat] = id
	}
	r.eventually("seats to spare", 5*time.Second, func() bool { return 4*(len(r.loop.Topology().Seats)-len(seats)) >= len(r.loop.Topology().Seats) })
	r.eventually("exact", 5*time.Second, r.allExact)
	for _, m := range r.membersInStore() {
		if seats[credentials.Seat{Number: m.Seat, Version: m.SeatVersion}] != m.ID {
			t.Errorf("in the store: %+v", m)
		}
	}
	before := r.loop.Topology().Seats
	if err := streams["p3"].Goodbye(t.Context()); err != nil {
		t.Fatal(err)
	}
	view := <-r.hello("late", 0).Updates()
	if seats[view.Seat] != "p3" {
		t.Errorf("a seat that was left is not taken: %+v", view.Seat)
	}
	view = <-r.hello("p7", 0).Updates()
	if seats[view.Seat] != "p7" {
		t.Errorf("a proxy that connects again has seat %+v", view.Seat)
	}
	if now := r.loop.Topology().Seats; !slices.Equal(now, before) {
		t.Errorf("%d seats after %d", len(now), len(before))
	}
}

// TestTooManyProxies: one more is told why it is not let in.
func TestTooManyProxies(t *testing.T) {
	t.Parallel()
	r := bare(t)
	_, err := r.loop.Commit(t.Context(), "as many seats as possible", func(c *topology.Cluster) ([]topology.Event, error) {
		for c.MoreSeats() {
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = r.loop.do(t.Context(), func() {
		for i := range topology.MaxSeats {
			id := fmt.Sprint("p", i)
			r.loop.members[id] = &member{Member: store.Member{ID: id, Seat: i, SeatVersion: 1}, since: time.Now()}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.loop.Connect(t.Context(), Hello{ID: "one more", Address: "127.0.0.1:2"})
	if err == nil {
		t.Fatal("it was let in")
	}
	_, err = r.loop.Connect(t.Context(), Hello{ID: "one-more", Address: "127.0.0.1:2"})
	var precondition *topology.PreconditionError
	if !errors.As(err, &precondition) || !strings.Contains(err.Error(), "4096 proxies") {
		t.Errorf("%v", err)
	}
}

// TestARecordOfBefore: a cluster whose proxies shared one user gets seats at once, and
// the shared user goes.
func TestARecordOfBefore(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 1, 2)
	r.stop()
	r.forgetSeats()
	r.run()
	r.eventually("seats", 5*time.Second, func() bool { return len(r.loop.Topology().Seats) == topology.MinSeats })
	p := r.proxy("p1")
	p.setUntil("shard-0", "k", "v")
	r.eventually("exact", 5*time.Second, r.allExact)
	r.eventually("the proxy of before is forgotten", 5*time.Second, func() bool { return r.isForgotten("old") })
	r.checkSeatsOnce(p)
	if report := r.switchover("shard-0"); report.Fenced || len(report.Unacked) > 0 {
		t.Errorf("%+v", report)
	}
}

// forgetSeats makes everything as it was before there were seats.
func (r *rig) forgetSeats() {
	r.t.Helper()
	session, err := r.store.Join(r.t.Context(), store.Replica{ID: "cs-old", Address: "127.0.0.1:1"})
	if err != nil {
		r.t.Fatal(err)
	}
	own, err := session.Claim(r.t.Context(), "c")
	if err != nil {
		r.t.Fatal(err)
	}
	next := r.loop.Topology().Clone()
	next.Epoch++
	next.Seats = nil
	if err := errors.Join(own.Commit(r.t.Context(), next), own.PutMember(r.t.Context(), store.Member{ID: "old", Address: "127.0.0.1:3"})); err != nil {
		r.t.Fatal(err)
	}
	r.store.ExpireLease("cs-old")
	for _, s := range r.servers {
		for _, name := range s.MustDo("ACL", "USERS").([]any) {
			if credentials.IsProxyUser(name.(string)) {
				s.MustDo("ACL", "DELUSER", name)
			}
		}
		s.MustDo("ACL", "SETUSER", credentials.ScriptUser(1), "on", ">shared", "~*", "&*", "+@all")
	}
}

// checkSeatsOnce checks that a proxy is let in by its seat at every server.
func (r *rig) checkSeatsOnce(p *fakeProxy) {
	r.t.Helper()
	if at := r.letIn(p); len(at) != len(r.servers) {
		r.t.Errorf("%s is let in at %v", p.id, at)
	}
	for id, s := range r.servers {
		var users []string
		for _, name := range s.MustDo("ACL", "USERS").([]any) {
			users = append(users, name.(string))
		}
		if _, exact := (&redisadmin.Proxies{Generation: 1, Seats: r.loop.Topology().Seats}).Match(users); !exact {
			r.t.Errorf("%s has the users %q", id, users)
		}
	}
}

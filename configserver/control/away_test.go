package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// statusOf is what the status says of a proxy.
func (r *rig) statusOf(id string) (found ProxyStatus) {
	r.t.Helper()
	for _, p := range r.loop.Status().Proxies {
		if p.ID == id {
			found = p
		}
	}
	return found
}

// TestADeadProxyIsForgottenByItself: no operation has to wait for it first.
func TestADeadProxyIsForgottenByItself(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 3, 2)
	good, dead := r.proxy("good"), r.dead("dead")
	r.eventually("away", time.Second, func() bool { p := r.statusOf("dead"); return !p.Connected && time.Since(p.AwaySince) < time.Minute })
	for i := range 3 {
		good.mustSet(fmt.Sprintf("shard-%d", i), "k", "v")
	}
	took := r.eventually("forgotten", 3*goneAfter, func() bool { return r.isForgotten("dead") })
	t.Logf("forgotten after %v", took)
	r.holdsNoCredential(dead)
	for i := range 3 {
		if report := r.switchover(fmt.Sprintf("shard-%d", i)); report.Fenced || len(report.Unacked) > 0 || held(&report) > fenceWithin {
			t.Errorf("shard-%d was held for %v, unacked %v", i, held(&report), report.Unacked)
		}
	}
	if shut, forgotten := r.events("ProxiesShutOut"), r.events("ProxiesForgotten"); len(shut) != 1 || len(forgotten) != 1 || !strings.Contains(shut[0].Message, "dead at 127.0.0.1:2") {
		t.Errorf("events %+v, %+v", shut, forgotten)
	}
	if got := r.generations(); !slices.Equal(got, []uint64{1, 1, 1}) {
		t.Errorf("generations %v", got)
	}
	r.checkEpochs()
}

// TestAProxyThatIsCutOffServesOn: it has connections to masters, so it is left alone,
// until it has none.
func TestAProxyThatIsCutOffServesOn(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 2, 2)
	cut := r.proxy("cut")
	cut.mustSet("shard-1", "k", "v")
	cut.setMute(true)
	cut.stream.Close()
	r.eventually("looked for", 3*goneAfter, func() bool { return r.statusOf("cut").Serving })
	time.Sleep(goneAfter + time.Second) // and it is looked for again
	cut.mustSet("shard-1", "k", "w")
	if p := r.statusOf("cut"); p.ShutOut {
		t.Errorf("%+v", p)
	}
	cut.mu.Lock()
	for _, c := range cut.clients {
		_ = c.Close()
	}
	cut.mu.Unlock()
	r.eventually("forgotten", 4*goneAfter, func() bool { return r.isForgotten("cut") })
	r.holdsNoCredential(cut)
}

// TestADeadProxyAndUsersWithLimits: their password moves on, too.
func TestADeadProxyAndUsersWithLimits(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 2, 2)
	good := r.proxy("good")
	r.setUser("app", "on", "nopass", "~app:*", "+@all")
	dead := r.dead("dead")
	r.eventually("forgotten", 4*goneAfter, func() bool { return r.isForgotten("dead") })
	r.holdsNoCredential(dead)
	if got := r.generations(); !slices.Equal(got, []uint64{2, 2}) {
		t.Errorf("generations %v", got)
	}
	good.mustSet("shard-1", "k", "v")
}

// TestAnotherOwnerForgets stops the owner at every step between the look at the masters
// and the end, and lets another Configserver go on.
func TestAnotherOwnerForgets(t *testing.T) {
	t.Parallel()
	for step, reached := range map[string]func(r *rig) bool{
		"seats/gone":      func(r *rig) bool { return time.Since(r.statusOf("dead").AwaySince) > goneAfter+time.Second },
		"seats/committed": func(r *rig) bool { return r.loop.Topology().Seats[1] == 2 },
		"seats/fenced":    func(r *rig) bool { return r.loop.Topology().Seats[1] == 2 },
		"seats/forgotten": func(r *rig) bool { return len(r.membersInStore()) == 1 },
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := settledShards(t, 2, 2)
			good, dead := r.proxy("good"), r.dead("dead")
			r.arm(step + "=error")
			r.eventually("reached", 3*goneAfter, func() bool { return reached(r) })
			if step != "seats/committed" { // where the loop goes on by the record
				time.Sleep(200 * time.Millisecond)
			}
			if (step == "seats/gone" || step == "seats/fenced") && !slices.ContainsFunc(r.membersInStore(), func(m store.Member) bool { return m.ID == "dead" }) {
				t.Fatal("the step was passed")
			}
			r.takeOver()
			good.connect()
			r.eventually("forgotten", 4*goneAfter, func() bool { return r.isForgotten("dead") })
			r.holdsNoCredential(dead)
			if got := r.loop.Topology().Seats[1]; got != 2 {
				t.Errorf("it was shut out again: version %d", got)
			}
			if report := r.switchover("shard-1"); report.Fenced || held(&report) > fenceWithin {
				t.Errorf("shard-1 was held for %v", held(&report))
			}
			r.checkEpochs()
		})
	}
}

// TestForgetProxy: an admin need not wait, and cannot forget one that is there.
func TestForgetProxy(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 2, 2)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	var refusal *topology.PreconditionError
	if err := r.loop.ForgetProxy(t.Context(), "p1"); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("one that is connected: %v", err)
	}
	if err := r.loop.ForgetProxy(t.Context(), "p2"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("one that nobody knows: %v", err)
	}
	p.setMute(true)
	p.stream.Close()
	if err := r.loop.ForgetProxy(t.Context(), "p1"); err != nil || !r.isForgotten("p1") {
		t.Errorf("one that is away: %v", err)
	}
	r.holdsNoCredential(p)
}

// TestForgetProxyAnswersInTime: while a server cannot be told, the caller learns so
// before it gives up.
func TestForgetProxyAnswersInTime(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 1, 2)
	r.dead("dead")
	r.arm("seats/fenced=error")
	const patience = time.Second
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	begun := time.Now()
	var refusal *topology.PreconditionError
	if err := r.loop.ForgetProxy(ctx, "dead"); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "forgotten as soon as") {
		t.Errorf("%v", err)
	}
	if took := time.Since(begun); took > patience-patience/20 {
		t.Errorf("answered after %v, to a caller who waits %v", took, patience)
	}
}

// TestABarrierSaysWhoIsMissing and why.
func TestABarrierSaysWhoIsMissing(t *testing.T) {
	t.Parallel()
	r := settledShards(t, 1, 2)
	slow := r.proxy("slow")
	slow.setMute(true)
	r.dead("dead")
	r.nextEpoch()
	var missing *UnackedError
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, _, err := r.loop.Barrier(ctx, 0)
	if !errors.As(err, &missing) || len(missing.Proxies) != 2 ||
		!strings.Contains(missing.Proxies[0], "dead at 127.0.0.1:2 has been away for") || !strings.Contains(missing.Proxies[1], "slow at 127.0.0.1:2 is connected and is at epoch") {
		t.Errorf("%v", err)
	}
}

package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/acl"
)

func names(users []topology.User) (list []string) {
	for _, u := range users {
		list = append(list, acl.NameOf(u.Rules))
	}
	return list
}

// TestUsersReachTheProxies: a change is in the view of the proxies, whose acks
// it waits for, and in the record that the next owner reads.
func TestUsersReachTheProxies(t *testing.T) {
	t.Parallel()
	r := bare(t)
	s := r.hello("p1", 0)
	<-s.Updates()
	type answer struct {
		c   topology.Cluster
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		c, err := r.loop.SetUser(t.Context(), "app", []string{"on", "nopass", "+get"})
		answered <- answer{c, err}
	}()
	view := <-s.Updates()
	if got := names(view.Users); !slices.Equal(got, []string{"app", "default"}) || view.Users[0].Created != view.Cluster.Epoch {
		t.Errorf("users of the view: %v", view.Users)
	}
	select {
	case a := <-answered:
		t.Errorf("answered before the ack: %v", a.err)
	case <-time.After(50 * time.Millisecond):
	}
	s.Ack(view.Cluster.Epoch)
	if a := <-answered; a.err != nil || a.c.Epoch != view.Cluster.Epoch {
		t.Errorf("epoch %d, %v", a.c.Epoch, a.err)
	}
	var rule *acl.Error
	if _, err := r.loop.SetUser(t.Context(), "app", []string{"+nosuch"}); !errors.As(err, &rule) {
		t.Errorf("a wrong rule: %v", err)
	}
	kept, err := r.store.Cluster(t.Context(), "c")
	if err != nil || !slices.Equal(names(kept.Users), []string{"app"}) {
		t.Errorf("kept: %v, %v", kept.Users, err)
	}
	if err := s.Goodbye(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, _, err := r.loop.DeleteUsers(t.Context(), []string{"app", "nobody", "default"}); n != 1 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	if got := names(r.loop.Users()); !slices.Equal(got, []string{"default"}) {
		t.Errorf("users left: %v", got)
	}
	if len(r.events("UserChanged")) != 1 || len(r.events("UsersDeleted")) != 1 {
		t.Error("a change of users is no event")
	}
	for _, e := range append(r.events("UserChanged"), r.events("UsersDeleted")...) {
		if !strings.Contains(e.Message, "+get") {
			t.Errorf("an event does not tell the rules: %s", e.Message)
		}
	}
}

// TestAProxyThatDoesNotObeyIsShutOut: it may be cut off from here and go on
// serving by the rights it knew, so its credentials are taken away.
func TestAProxyThatDoesNotObeyIsShutOut(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 2, 1, nil)
	p, away := r.proxy("p1"), r.proxy("away")
	away.mustSet("shard-0", "k", "v")
	away.setMute(true)
	away.stream.Close()
	begun := time.Now()
	c, err := r.loop.SetUser(t.Context(), "app", []string{"on", "nopass"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("took %v", time.Since(begun))
	if err := away.set("shard-0", "k", "w"); err == nil {
		t.Error("a proxy that did not obey still writes")
	}
	if err := p.set("shard-0", "k", "x"); err != nil {
		t.Errorf("a proxy that obeys: %v", err)
	}
	r.holdsNoCredential(away)
	r.eventually("forgotten", 5*time.Second, func() bool {
		members := r.membersInStore()
		return len(members) == 1 && members[0].ID == "p1"
	})
	now := r.loop.Topology()
	for _, s := range now.Shards {
		if s.Generation != 1 || s.Operation != nil {
			t.Errorf("%s: generation %d, operation %v", s.ID, s.Generation, s.Operation)
		}
	}
	// The next change has nobody to wait for.
	begun = time.Now()
	if again, err := r.loop.SetUser(t.Context(), "app", []string{"off"}); err != nil || again.Epoch <= c.Epoch || time.Since(begun) > time.Second {
		t.Errorf("the next change: %v after %v", err, time.Since(begun))
	}
	r.checkEpochs()
}

// TestAProxyThatHangsIsShutOutSoon: its stream is open and stays so for a while,
// but it was given its time.
func TestAProxyThatHangsIsShutOutSoon(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 1, nil)
	p, hung := r.proxy("p1"), r.proxy("hung")
	hung.setMute(true)
	change := func(rule string, within time.Duration) {
		t.Helper()
		begun := time.Now()
		if _, err := r.loop.SetUser(t.Context(), "app", []string{rule}); err != nil || time.Since(begun) > within {
			t.Errorf("%s: %v after %v", rule, err, time.Since(begun))
		}
	}
	before := r.loop.Topology().Seats
	change("on", usersAck+5*time.Second)
	now := r.loop.Topology().Seats
	if now[1] != before[1]+1 || now[0] != before[0] {
		t.Errorf("seats %v after %v: it was not shut out", now, before)
	}
	r.holdsNoCredential(hung)
	change("off", time.Second)
	if err := p.set("shard-0", "k", "v"); err != nil {
		t.Errorf("a proxy that obeys: %v", err)
	}
	// One that answers again is waited for again.
	hung.setMute(false)
	change("on", time.Second)
	r.eventually("let in again", 5*time.Second, func() bool { return hung.set("shard-0", "k", "w") == nil })
	change("off", time.Second)
	if last := r.loop.Topology().Seats; !slices.Equal(last, now) {
		t.Errorf("seats %v after %v: a proxy that obeys was shut out", last, now)
	}
	r.checkEpochs()
}

// TestAChangeThatCannotBeEnforcedSaysSo.
func TestAChangeThatCannotBeEnforcedSaysSo(t *testing.T) {
	t.Parallel()
	r := bare(t)
	s := r.hello("p1", 0)
	<-s.Updates()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := r.loop.SetUser(ctx, "app", []string{"on"})
	var precondition *topology.PreconditionError
	if !errors.As(err, &precondition) || !strings.Contains(err.Error(), "not every proxy obeys yet") {
		t.Errorf("%v", err)
	}
	if got := names(r.loop.Users()); !slices.Equal(got, []string{"app", "default"}) {
		t.Errorf("users: %v", got)
	}
}

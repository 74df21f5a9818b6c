package control

import (
	"context"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/failover"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// bare is a loop without servers, to look at members alone.
func bare(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, 1, 1, nil)
	r.eventually("running", 5*time.Second, func() bool { return r.loop.Status().Cluster.Epoch == 1 })
	return r
}

func (r *rig) hello(id string, epoch uint64) ProxyStream {
	r.t.Helper()
	s, err := r.loop.Connect(r.t.Context(), Hello{ID: id, Address: "127.0.0.1:2", Epoch: epoch})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// nextEpoch commits something that changes nothing.
func (r *rig) nextEpoch() uint64 {
	r.t.Helper()
	c, err := r.loop.Commit(r.t.Context(), "another epoch", failover.Change(func(*topology.Cluster) ([]topology.Event, error) { return nil, nil }))
	if err != nil {
		r.t.Fatal(err)
	}
	return c.Epoch
}

// unacked lists who did not ack the newest epoch within a moment.
func (r *rig) unacked() []string {
	r.t.Helper()
	return r.loop.AwaitAcks(r.t.Context(), "shard-0", r.loop.Topology().Epoch, 50*time.Millisecond, 50*time.Millisecond)
}

func (r *rig) requireUnacked(what string, want ...string) {
	r.t.Helper()
	got := r.unacked()
	if len(got) != len(want) || len(want) > 0 && got[0] != want[0] {
		r.t.Errorf("%s: unacked are %q, want %q", what, got, want)
	}
}

// A proxy that obeys an epoch which this cluster has not reached obeys another
// cluster of the same name, or what an etcd knew that was restored since. It
// routes by that, so it has acked nothing here.
func TestAnEpochFromElsewhereIsNoAck(t *testing.T) {
	t.Parallel()
	r := bare(t)
	r.nextEpoch()
	s := r.hello("p1", 40)
	r.requireUnacked("hello of epoch 40", "p1")
	s.Ack(41)
	r.requireUnacked("ack of epoch 41", "p1")
	s.Ack(r.loop.Topology().Epoch)
	r.requireUnacked("a true ack")
}

// A proxy that is known and says that it obeys nothing may have sent commands
// by a view that it was still about to ack when its stream broke.
func TestAKnownProxyThatObeysNothingHasNotAcked(t *testing.T) {
	t.Parallel()
	r := bare(t)
	s := r.hello("p1", 0)
	r.requireUnacked("a new proxy")
	<-s.Updates()
	s.Close()
	r.nextEpoch()
	s = r.hello("p1", 0)
	r.requireUnacked("the same proxy again", "p1")
	<-s.Updates()
	s.Ack(r.loop.Topology().Epoch)
	r.requireUnacked("after its ack")
}

// The goodbye of a stream that was replaced says nothing about the one that
// replaced it: the proxy stays a member, in the store too.
func TestAGoodbyeOnAnOldStreamForgetsNobody(t *testing.T) {
	t.Parallel()
	r := bare(t)
	old := r.hello("p1", 0)
	r.hello("p1", 1)
	if err := old.Goodbye(t.Context()); err != nil {
		t.Fatal(err)
	}
	if members := r.membersInStore(); len(members) != 1 {
		t.Errorf("members in the store: %v", members)
	}
	r.nextEpoch()
	r.requireUnacked("after the old stream's goodbye", "p1")
}

func (r *rig) membersInStore() []store.Member {
	r.t.Helper()
	members, err := r.store.Members(context.Background(), "c")
	if err != nil {
		r.t.Fatal(err)
	}
	return members
}

// A connection that was opened and never used says nothing about whether the
// server answers.
func TestAProxyWithoutAReplyIsNoWitness(t *testing.T) {
	t.Parallel()
	r := bare(t)
	s := r.hello("p1", 0)
	s.Report([]NodeSight{{Node: "n1", Sight: topology.SightOK, SinceReply: -1}, {Node: "n2", Sight: topology.SightOK, SinceReply: time.Second}})
	err := r.loop.do(t.Context(), func() {
		sights := r.loop.members["p1"].sights
		if at := sights["n1"].ReplyAt; !at.IsZero() {
			t.Errorf("a reply %v ago", time.Since(at))
		}
		if ago := time.Since(sights["n2"].ReplyAt); ago < time.Second || ago > 2*time.Second {
			t.Errorf("a reply %v ago", ago)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

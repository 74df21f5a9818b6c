package control

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// steps are the fault points of failovers and switchovers, in order.
var steps = []string{"began", "fenced", "elected", "promoting-committed", "promoted", "repointed", "finished"}

// TestAnotherOwnerFinishesAFailover stops the owner at every step and lets
// another Configserver go on.
func TestAnotherOwnerFinishesAFailover(t *testing.T) {
	t.Parallel()
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := settledRig(t, 1, 3, nil)
			p := r.proxy("p1")
			p.fill("shard-0", 10)
			time.Sleep(50 * time.Millisecond)
			r.arm("failover/" + step + "=error")
			r.servers["shard-0-0"].Kill()
			r.eventually("begun", 5*time.Second, func() bool { return len(r.events("FailoverBegan")) == 1 })
			time.Sleep(200 * time.Millisecond) // it is stuck at the step, trying again and again
			r.takeOver()
			p.connect()
			took := p.setUntil("shard-0", "after", "1")
			t.Logf("writes after %v", took)
			p.holds("shard-0", 10)
			r.servers["shard-0-0"].Restart()
			r.settled("shard-0")
			if n := len(r.events("FailoverFinished")); n != 1 {
				t.Errorf("%d failovers finished", n)
			}
			r.checkEpochs()
			r.oneWritable("shard-0")
		})
	}
}

// TestAnotherOwnerFinishesASwitchover is the same for a switchover.
func TestAnotherOwnerFinishesASwitchover(t *testing.T) {
	t.Parallel()
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := settledRig(t, 1, 2, nil)
			p := r.proxy("p1")
			p.mustSet("shard-0", "k", "v")
			r.arm("switchover/" + step + "=error")
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			defer cancel()
			answer, owner := make(chan error, 1), r.loop
			go func() {
				_, err := owner.Switchover(ctx, "shard-0", "shard-0-1")
				// The replica may just not have answered, on a busy machine.
				for cannot := (*topology.PreconditionError)(nil); errors.As(err, &cannot) && ctx.Err() == nil; {
					_, err = owner.Switchover(ctx, "shard-0", "shard-0-1")
				}
				answer <- err
			}()
			r.eventually("begun", 6*time.Second, func() bool {
				s := r.shard("shard-0")
				return s.Operation != nil || s.Master == "shard-0-1"
			})
			time.Sleep(200 * time.Millisecond)
			r.takeOver()
			if err := <-answer; err == nil && step != "finished" {
				t.Error("the old owner said that it succeeded")
			}
			p.connect()
			t.Logf("writes after %v", p.setUntil("shard-0", "after", "1"))
			r.settled("shard-0")
			s := r.shard("shard-0")
			if s.Master != "shard-0-1" {
				t.Errorf("master %s", s.Master)
			}
			p.has("shard-0", "k", "v")
			r.checkEpochs()
			r.oneWritable("shard-0")
		})
	}
}

// takeOver ends the owner as if it was killed, and begins another one.
func (r *rig) takeOver() {
	r.t.Helper()
	r.stop()
	r.arm("")
	r.run()
}

// oneWritable checks that no server but the master is one.
func (r *rig) oneWritable(shard string) {
	r.t.Helper()
	s := r.shard(shard)
	for _, n := range s.Nodes {
		want := "slave"
		if n.ID == s.Master {
			want = "master"
		}
		if role := r.servers[n.ID].Info("role"); role != want {
			r.t.Errorf("%s is %s, want %s", n.ID, role, want)
		}
	}
}

func TestASwitchoverIsRolledBackWhenTheCandidateHangs(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	p := r.proxy("p1")
	// It hangs between the last check before the freeze and the first after it.
	r.arm("switchover/began=pause:300ms")
	go func() {
		for r.shard("shard-0").Operation == nil {
			time.Sleep(time.Millisecond)
		}
		r.servers["shard-0-1"].Pause()
	}()
	report, err := r.loop.Switchover(t.Context(), "shard-0", "")
	r.servers["shard-0-1"].Resume()
	if err != nil || report.Succeeded || report.NewMaster != "shard-0-0" || report.Error == "" {
		t.Errorf("report %+v, %v", report, err)
	}
	if took := p.setUntil("shard-0", "k", "v"); took > 5*time.Second {
		t.Errorf("writes were held for %v after the end", took)
	}
	if s := r.shard("shard-0"); s.Frozen || s.Operation != nil {
		t.Errorf("shard %+v", s)
	}
	r.checkEpochs()
}

func TestTheCandidateDiesAfterThePromotionWasCommitted(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 3, nil)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	r.arm("switchover/promoting-committed=pause:200ms")
	go func() {
		for s := r.shard("shard-0"); s.Operation == nil || s.Operation.Phase != "promoting"; s = r.shard("shard-0") {
			time.Sleep(time.Millisecond)
		}
		r.servers["shard-0-1"].Kill()
	}()
	report, err := r.loop.Switchover(t.Context(), "shard-0", "shard-0-1")
	if err != nil || report.NewMaster == "shard-0-1" {
		t.Errorf("report %+v, %v", report, err)
	}
	p.setUntil("shard-0", "after", "1")
	p.has("shard-0", "k", "v")
	r.checkEpochs()
}

func TestTheLoopStopsWhenItLosesItsLease(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	epoch := r.loop.Topology().Epoch
	r.store.ExpireLease("cs-1")
	r.eventually("stopped", 2*time.Second, func() bool {
		_, err := r.loop.SetReadable(t.Context(), "shard-0-1", false)
		return err != nil
	})
	r.servers["shard-0-0"].Kill()
	time.Sleep(300 * time.Millisecond)
	c, err := r.store.Cluster(t.Context(), "c")
	if err != nil || c.Epoch != epoch || r.servers["shard-0-1"].Info("role") != "slave" {
		t.Errorf("epoch %d, want %d, %v", c.Epoch, epoch, err)
	}
	r.stop()
	r.run()
	r.eventually("replaced", 3*time.Second, func() bool { return r.shard("shard-0").Master == "shard-0-1" })
	if r.loop.Topology().Phase != topology.Serving {
		t.Error("not serving")
	}
	r.checkEpochs()
}

// TestAnotherOwnerFinishesARotation is the same for a rotation.
func TestAnotherOwnerFinishesARotation(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"began", "granted", "published", "drained", "finished"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := settledRig(t, 1, 2, nil)
			p := r.proxy("p1")
			old := p.present("shard-0")
			r.writeSecrets("another-admin-password\n"+adminPassword, "another-root-of-passwords\nthe-root-of-all-passwords", "")
			r.arm("rotation/" + step + "=error")
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			defer cancel()
			answer, owner := make(chan error, 1), r.loop
			go func() {
				_, err := owner.Rotate(ctx)
				answer <- err
			}()
			r.eventually("begun", 5*time.Second, func() bool {
				s := r.shard("shard-0")
				return s.Operation != nil || s.Generation == 2
			})
			time.Sleep(200 * time.Millisecond)
			r.takeOver()
			if err := <-answer; err == nil && step != "finished" {
				t.Error("the old owner said that it succeeded")
			}
			p.connect()
			r.eventually("rotated", 5*time.Second, func() bool {
				s := r.shard("shard-0")
				return s.Operation == nil && s.Generation == 2
			})
			if err := p.set("shard-0", "k", "v"); err != nil {
				t.Error(err)
			}
			if err := old.Ping(t.Context()).Err(); err == nil {
				t.Error("the old credentials still work")
			}
			for id, s := range r.servers {
				if _, err := s.Do("PING"); err == nil {
					t.Errorf("%s still takes the old admin password", id)
				}
				s.AdminPassword = "another-admin-password"
			}
			if n := len(r.events("CredentialsRotated")); n != 1 {
				t.Errorf("%d rotations finished", n)
			}
			r.checkEpochs()
		})
	}
}

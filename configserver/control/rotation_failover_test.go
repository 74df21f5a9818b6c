package control

import (
	"context"
	"testing"
	"time"
)

// An owner that rotates to a new secret dies when the nodes have the new users, before
// anything is published, and the master dies with it. The failover goes on with the
// secret of before; its proxies get in.
func TestAFailoverInARotationLetsProxiesIn(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 3, nil)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	r.writeSecrets(adminPassword, "another-root-of-passwords\nthe-root-of-all-passwords", "")
	r.arm("rotation/granted=error")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	owner, answer := r.loop, make(chan error, 1)
	go func() {
		_, err := owner.Rotate(ctx)
		answer <- err
	}()
	r.eventually("begun", 5*time.Second, func() bool { return r.shard("shard-0").Operation != nil })
	time.Sleep(300 * time.Millisecond) // the users of the next generation are made
	r.stop()
	r.servers["shard-0-0"].Kill()
	r.arm("")
	r.run()
	<-answer
	p.connect()
	r.eventually("replaced", 10*time.Second, func() bool {
		s := r.shard("shard-0")
		return s.Master != "" && s.Master != "shard-0-0" && s.Operation == nil
	})
	t.Logf("%s, generation %d", r.shard("shard-0").Master, r.shard("shard-0").Generation)
	var err error
	for begun := time.Now(); time.Since(begun) < 8*time.Second; time.Sleep(100 * time.Millisecond) {
		if err = p.set("shard-0", "k", "w"); err == nil {
			return
		}
	}
	t.Errorf("8 s after the failover no proxy can log in to the new master: %v; users there: %v", err, r.servers[r.shard("shard-0").Master].MustDo("ACL", "USERS"))
}

package control

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
)

// An owner dies in a switchover when the nodes let in proxies of the next generation
// only, which it was about to commit (fenceShard). The next owner finds that everybody
// obeys by now, and that the candidate is gone: the way back is a way back, and no
// record that is older than its servers.
func TestAWayBackAfterAFenceThatWasNotCommitted(t *testing.T) {
	t.Parallel()
	r := settledRig(t, 1, 2, nil)
	p := r.proxy("p1")
	p.mustSet("shard-0", "k", "v")
	r.arm("switchover/began=error")
	owner, answer := r.loop, make(chan error, 1)
	go func() {
		_, err := owner.Switchover(t.Context(), "shard-0", "shard-0-1")
		answer <- err
	}()
	r.eventually("begun", 6*time.Second, func() bool { return r.shard("shard-0").Operation != nil })
	r.stop()
	<-answer
	c, s := owner.Topology(), r.shard("shard-0")
	set := owner.Credentials()
	key, err := set.SeatKey(s.SecretID, c.UID, s.ID, s.Generation+1)
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range r.servers { // as fenceShard does with users of applications
		conn, err := redisadmin.Dial(t.Context(), server.Address, set.AdminPasswords())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.OnlyProxies(t.Context(), &redisadmin.Proxies{Generation: s.Generation + 1, Seats: c.Seats, Key: key, Scripts: "x"}); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	r.servers["shard-0-1"].Kill()
	r.arm("")
	r.run()
	p.connect()
	var last error
	for begun := time.Now(); time.Since(begun) < 8*time.Second; time.Sleep(50 * time.Millisecond) {
		if last = p.set("shard-0", "k", "w"); last == nil {
			return
		}
	}
	t.Errorf("8 s later nobody can write: %v; generation %d, operation %v, record is older: %t", last, r.shard("shard-0").Generation,
		r.shard("shard-0").Operation, r.hasProblem("RecordIsOlder"))
}

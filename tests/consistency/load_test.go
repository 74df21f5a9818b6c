package consistency_test

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/slot"
	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

func shards(n int) []consistency.Shard {
	var all []consistency.Shard
	for i := range n {
		all = append(all, consistency.Shard{ID: string(rune('a' + i)), Slots: slot.Even(i, n)})
	}
	return all
}

// start runs a small load on a plain server.
func start(t *testing.T, addr string) *consistency.Load {
	t.Helper()
	l, err := consistency.Start(t.Context(), consistency.Config{
		Addresses: []string{addr}, Shards: shards(3), Connections: 12, Pace: 2 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Stop)
	return l
}

func do(t *testing.T, addr string, args ...string) consistency.Reply {
	t.Helper()
	c, err := consistency.Dial(t.Context(), addr, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Do(args...)
	if err == nil {
		err = r.Err
	}
	if err != nil {
		t.Fatalf("%s: %v", args, err)
	}
	return r
}

// TestHealthyServerPasses: nothing is found where nothing is wrong, every shard
// gets its share, and what the replica holds is confirmed.
func TestHealthyServerPasses(t *testing.T) {
	master := harness.StartRedis(t)
	host, port, err := net.SplitHostPort(master.Address)
	if err != nil {
		t.Fatal(err)
	}
	replica := harness.StartRedis(t, "--replicaof", host+" "+port)
	l := start(t, master.Address)
	stop := l.Confirm(t.Context(), consistency.ConfirmConfig{Replicas: func() []consistency.ReplicaAddress {
		return []consistency.ReplicaAddress{{Shard: 0, Address: replica.Address}, {Shard: 1, Address: replica.Address}}
	}})
	defer stop()
	time.Sleep(time.Second)
	l.Stop()
	harness.Eventually(t, 5*time.Second, "all writes are confirmed", func() error {
		if n := l.Unconfirmed(0); n > 0 {
			return errText("keys are not confirmed")
		}
		return nil
	})
	if n := l.Unconfirmed(2); n == 0 {
		t.Error("writes of a shard without a replica count as confirmed")
	}
	final, err := l.ReadAll(t.Context(), master.Address)
	if err != nil || final.Keys != 120 || final.Behind != 0 {
		t.Errorf("final read: %+v, %v", final, err)
	}
	if texts, n := l.Violations(); n > 0 {
		t.Errorf("%d violations: %s", n, texts)
	}
	line := l.Timeline()
	t.Log(line.Summary())
	for i := range 3 {
		if share := len(line.Shard(i)); share < len(line)/5 {
			t.Errorf("shard %d got %d of %d requests", i, share, len(line))
		}
	}
	if len(line) < 500 || len(line.Errors()) > 0 {
		t.Errorf("%d requests, errors: %s", len(line), line.ErrorTexts())
	}
}

type errText string

func (e errText) Error() string { return string(e) }

// TestDamageIsFound: each kind of damage done behind the load's back must come
// to light.
func TestDamageIsFound(t *testing.T) {
	damages := map[string]struct {
		how  func(t *testing.T, addr string)
		want string
	}{
		"DataLost": {func(t *testing.T, addr string) { do(t, addr, "FLUSHALL") }, "acknowledged or read"},
		"OldValueBack": {func(t *testing.T, addr string) {
			c, err := consistency.Dial(t.Context(), addr, "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			key := string(do(t, addr, "RANDOMKEY").Text)
			old := string(do(t, addr, "GET", key).Text)
			for range 40 {
				time.Sleep(10 * time.Millisecond)
				if r, err := c.Do("SET", key, old); err != nil || r.Err != nil {
					t.Fatal(r.Err, err)
				}
			}
		}, "acknowledged or read"},
		"ForeignValue": {func(t *testing.T, addr string) {
			for range 40 {
				time.Sleep(10 * time.Millisecond)
				do(t, addr, "EVAL", "local a = redis.call('RANDOMKEY') local b = redis.call('RANDOMKEY') redis.call('SET', b, redis.call('GET', a))", "0")
			}
		}, "a value of something else"},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			server := harness.StartRedis(t)
			l := start(t, server.Address)
			time.Sleep(200 * time.Millisecond)
			damage.how(t, server.Address)
			time.Sleep(200 * time.Millisecond)
			l.Stop()
			texts, n := l.Violations()
			if n == 0 || !strings.Contains(strings.Join(texts, "\n"), damage.want) {
				t.Errorf("%d violations %q, want some with %q", n, texts, damage.want)
			}
		})
	}
}

// TestKilledServerIsSeen: the errors of a killed server are recorded for what
// they are, at most one for each connection that had a request in flight.
func TestKilledServerIsSeen(t *testing.T) {
	server := harness.StartRedis(t)
	l := start(t, server.Address)
	time.Sleep(200 * time.Millisecond)
	at := l.Now()
	if err := server.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	l.Stop()
	lost := map[int]int{}
	for _, r := range l.Timeline().Errors() {
		switch {
		case r.End() < at:
			t.Errorf("error before the kill: %+v", r)
		case r.Class == consistency.Disconnected:
			lost[r.Conn]++
		case r.Class != consistency.Refused:
			t.Errorf("class %s: %+v", r.Class, r)
		}
	}
	for conn, n := range lost {
		if n > 1 {
			t.Errorf("connection %d lost %d requests", conn, n)
		}
	}
	if len(lost) == 0 {
		t.Error("no connection noticed the kill")
	}
	if _, ok := l.Timeline().LongestWriteGap(at, l.Now()); ok {
		t.Error("writes count as resumed at a dead server")
	}
}

// TestRegistersOnHealthyServer: a real history of several writers passes.
func TestRegistersOnHealthyServer(t *testing.T) {
	server := harness.StartRedis(t)
	r, err := consistency.StartRegisters(t.Context(), server.Address, "", "", []string{"a", "b"}, 6, 2*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	r.Stop()
	n, failures, err := r.Check(20 * time.Second)
	if err != nil || len(failures) > 0 || n < 100 {
		t.Errorf("%d operations, failures %v: %v", n, failures, err)
	}
}

// TestWitnessSeesAStalledMachine: a stall that hits everybody is noise, one that
// hits only the system under test is not.
func TestWitnessSeesAStalledMachine(t *testing.T) {
	server, plain := harness.StartRedis(t), harness.StartRedis(t)
	l := start(t, server.Address)
	stop, err := l.Witness(t.Context(), plain.Address)
	if err != nil {
		t.Fatal(err)
	}
	stall := func(victims ...*harness.Redis) (from, to time.Duration) {
		time.Sleep(200 * time.Millisecond)
		from = l.Now()
		for _, v := range victims {
			if err := v.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(600 * time.Millisecond)
		for _, v := range victims {
			if err := v.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
		to = l.Now()
		time.Sleep(300 * time.Millisecond)
		return from, to
	}
	allFrom, allTo := stall(server, plain)
	oneFrom, oneTo := stall(server)
	l.Stop()
	stop()
	worst := func(from, to time.Duration) (stall time.Duration) {
		for _, r := range l.Timeline().Touching(from, to) {
			stall = max(stall, l.Stall(r))
		}
		return stall
	}
	if s := worst(allFrom, allTo); s > 100*time.Millisecond {
		t.Errorf("%s of a stall of the machine is blamed on the system", s)
	}
	if s := worst(oneFrom, oneTo); s < 100*time.Millisecond {
		t.Errorf("only %s of the system's own stall of 600 ms is seen", s)
	}
}

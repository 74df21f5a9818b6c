package redisadmin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

func dialTest(t *testing.T, s *redistest.Server) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), s.Address, []string{s.AdminPassword})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestAConnectionNeverMovesToAnotherIncarnation(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	c := dialTest(t, s)
	before := c.Info.RunID
	s.Restart()
	if err := c.Promote(t.Context()); err == nil {
		t.Fatal("a command reached the restarted server")
	}
	if err := c.Promote(t.Context()); err == nil {
		t.Fatal("the connection was replaced")
	}
	if _, err := DialIncarnation(t.Context(), s.Address, []string{s.AdminPassword}, before); !errors.Is(err, ErrIncarnation) {
		t.Fatalf("dial of the dead incarnation: %v", err)
	}
}

func TestPreviousPassword(t *testing.T) {
	s := redistest.Start(t, redistest.Options{AdminPassword: "the-old-one"})
	c, err := Dial(t.Context(), s.Address, []string{"the-new-one", "the-old-one"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.AllowAdmin(t.Context(), "the-new-one"), c.OnlyAdmin(t.Context(), "the-new-one")); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), s.Address, []string{"the-old-one"}); !errors.Is(err, ErrPassword) {
		t.Fatalf("old password: %v", err)
	}
	if sight, _ := SightOf(ErrPassword); sight != topology.SightFenced {
		t.Errorf("sight %q", sight)
	}
	s.AdminPassword = "the-new-one"
}

func TestRevokeClosesConnections(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	c := dialTest(t, s)
	if err := c.GrantProxies(t.Context(), proxies(7, 1)); err != nil {
		t.Fatal(err)
	}
	proxy := seatClient(s, 7, credentials.Seat{Version: 1})
	defer proxy.Close()
	pinned := proxy.Conn()
	if err := pinned.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for _, forbidden := range []string{"REPLICAOF NO ONE", "ACL LIST", "CONFIG SET maxmemory 1", "SHUTDOWN", "DEBUG CHANGE-REPL-ID", "CONFIG REWRITE", "CLUSTER INFO"} {
		args := []any{}
		for f := range strings.FieldsSeq(forbidden) {
			args = append(args, f)
		}
		if err := pinned.Do(t.Context(), args...).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("%s: %v", forbidden, err)
		}
	}
	for _, allowed := range []string{"DEBUG SLEEP 0", "MODULE LIST", "CONFIG RESETSTAT", "CONFIG GET maxmemory", "SLOWLOG GET", "LATENCY LATEST", "MEMORY STATS"} {
		args := []any{}
		for f := range strings.FieldsSeq(allowed) {
			args = append(args, f)
		}
		if err := pinned.Do(t.Context(), args...).Err(); err != nil {
			t.Errorf("%s: %v", allowed, err)
		}
	}
	if _, err := c.RevokeProxies(t.Context(), proxies(8, 1)); err != nil {
		t.Fatal(err)
	}
	if err := pinned.Get(t.Context(), "k").Err(); err == nil {
		t.Error("a revoked proxy still reads")
	}
	users, err := c.Users(t.Context())
	if err != nil || slices.ContainsFunc(users, credentials.IsProxyUser) {
		t.Errorf("users %v, %v", users, err)
	}
	if _, err := c.RevokeProxies(t.Context(), nil); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestReplication(t *testing.T) {
	master, replica := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})
	master.MustDo("SET", "k", "v")
	m, r := dialTest(t, master), dialTest(t, replica)
	if err := errors.Join(m.Config(t.Context(), "repl-diskless-sync-delay", "0"), m.GrantReplication(t.Context(), "old", "new")); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(r.Config(t.Context(), "masteruser", "basalt-replication", "masterauth", "new", "repl-ping-replica-period", "1"),
		r.Follow(t.Context(), master.Address))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !r.Info.LinkUp; {
		if time.Now().After(deadline) {
			t.Fatalf("no link: %+v", r.Info)
		}
		time.Sleep(10 * time.Millisecond)
		if _, err := r.Replication(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r.Info.Master || r.Info.MasterAddress != master.Address || r.Info.RunID == "" {
		t.Errorf("replica: %+v", r.Info)
	}
	if n, err := r.Keys(t.Context()); n != 1 || err != nil {
		t.Errorf("keys %d, %v", n, err)
	}
	if err := r.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	history := r.Info.ReplID
	if _, err := r.Replication(t.Context()); err != nil || !r.Info.Master || r.Info.ReplID2 != history {
		t.Errorf("promoted: %+v, %v", r.Info, err)
	}
}

func TestTheContextEndsABlockedCall(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Dial(ctx, s.Address, []string{s.AdminPassword})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Bind(ctx)
	s.Pause()
	defer s.Resume()
	time.AfterFunc(20*time.Millisecond, cancel)
	begun := time.Now()
	if _, err := c.Read(t.Context()); err == nil || time.Since(begun) > CallTimeout/2 {
		t.Errorf("error %v after %v", err, time.Since(begun))
	}
}

func TestSights(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	s.Kill()
	_, err := Dial(t.Context(), s.Address, []string{s.AdminPassword})
	if sight, _ := SightOf(err); sight != topology.SightRefused {
		t.Errorf("killed: %v: %v", sight, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	s.Restart()
	s.Pause()
	_, err = Dial(ctx, s.Address, []string{s.AdminPassword})
	s.Resume()
	if sight, _ := SightOf(err); sight != topology.SightTimeout {
		t.Errorf("paused: %v: %v", sight, err)
	}
}

func TestErrorsHoldNoSecret(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	c := dialTest(t, s)
	s.Kill()
	_, granted := c.GrantUsers(t.Context(), 1, "hunter2", []NodeUser{{Rights: "some"}})
	for _, err := range []error{granted, c.Config(t.Context(), "masterauth", "hunter2")} {
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), hash("hunter2")) {
			t.Errorf("error: %v", err)
		}
	}
}

package redisadmin

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/redistest"
)

func TestGuard(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	c := dialTest(t, s)
	lost := errors.New("the lease is lost")
	c.Guard = func() error { return lost }
	for name, err := range map[string]error{
		"follow":  c.Follow(t.Context(), "127.0.0.1:1"),
		"shut":    c.OnlyProxies(t.Context(), proxies(7, 1)),
		"grant":   c.GrantProxies(t.Context(), proxies(7, 1)),
		"config":  c.Config(t.Context(), "min-replicas-to-write", "3"),
		"pause":   c.PauseWrites(t.Context(), 1e9),
		"replica": c.GrantReplication(t.Context(), "secret"),
	} {
		if !errors.Is(err, lost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	info, err := c.Replication(t.Context())
	if err != nil || !info.Master {
		t.Errorf("the server changed: %+v, %v", info, err)
	}
	users, err := c.Users(t.Context())
	if err != nil || len((*Proxies)(nil).stale(users)) > 0 {
		t.Errorf("users %v, %v", users, err)
	}
	c.Guard = nil
	if err := c.GrantProxies(t.Context(), proxies(7, 1)); err != nil {
		t.Error(err)
	}
}

// What comes first on a connection is done once, before Guard is asked, and tried
// again until it worked.
func TestFirst(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	c := dialTest(t, s)
	busy := errors.New("not now")
	var done []string
	first := func(err error) func(context.Context) error {
		return func(ctx context.Context) error {
			done = append(done, "first")
			return errors.Join(err, c.Config(ctx, "maxmemory-samples", "7"))
		}
	}
	c.Guard = func() error { done = append(done, "guard"); return nil }
	c.First = first(busy)
	if err := c.Config(t.Context(), "maxmemory-samples", "8"); !errors.Is(err, busy) {
		t.Errorf("%v", err)
	}
	c.First = first(nil)
	for range 2 {
		if err := c.Config(t.Context(), "maxmemory-samples", "8"); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Join(done, " "); got != "first guard first guard guard guard" {
		t.Errorf("done: %s", got)
	}
}

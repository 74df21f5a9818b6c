package redisadmin

import (
	"testing"

	"github.com/basalt-redis/basalt/internal/redistest"
)

// A server loads the transactions of its append-only file exactly when its
// default user is not narrow.
func TestTheDefaultUserLoadsTransactions(t *testing.T) {
	s := redistest.Start(t, redistest.Options{Config: []string{"appendonly yes", "appendfsync always", "aof-use-rdb-preamble no"}})
	c := dialTest(t, s)
	loaded := func(rules ...any) {
		t.Helper()
		s.MustDo("FLUSHALL")
		if len(rules) > 0 {
			s.MustDo(append([]any{"ACL", "SETUSER", "default"}, rules...)...)
		}
		s.MustDo("EVAL", "redis.call('set', KEYS[1], 1) redis.call('rpush', KEYS[2], 2)", 2, "a", "b")
		s.MustDo("SET", "c", "3")
		s.MustDo("DEBUG", "LOADAOF")
		user, err := c.DefaultUser(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		keys := s.MustDo("DBSIZE").(int64)
		if user.On || user.Narrow != (keys < 3) {
			t.Errorf("%v: %+v, and %d keys are loaded", rules, user, keys)
		}
		if user.Narrow != (user.Problem() != "") {
			t.Errorf("%v: %+v has the problem %q", rules, user, user.Problem())
		}
	}
	loaded()
	loaded("-@write")
	loaded("reset", "~*", "&*", "+@all")
	loaded("reset", "off", "+@all", "~b")
	loaded("reset", "off", "allkeys", "allchannels", "allcommands")
	s.MustDo("ACL", "SETUSER", "default", "on", "nopass")
	if user, err := c.DefaultUser(t.Context()); err != nil || !user.On || user.Problem() == "" {
		t.Errorf("a user that is on: %+v, %v", user, err)
	}
}

// What a server is told when it starts is enough for what it loads.
func TestTransactionsSurviveARestart(t *testing.T) {
	s := redistest.Start(t, redistest.Options{Config: []string{"appendonly yes", "appendfsync always"}})
	s.MustDo("EVAL", "redis.call('set', KEYS[1], 1) redis.call('rpush', KEYS[2], 2)", 2, "a", "b")
	s.Restart()
	if keys := s.MustDo("DBSIZE"); keys != int64(2) {
		t.Errorf("%v of 2 keys are there after the restart", keys)
	}
}

package redistest

import (
	"strings"
	"testing"
)

func TestServerBootsFenced(t *testing.T) {
	s := Start(t, Options{Persist: true})
	nobody := s.Client("", "")
	defer nobody.Close()
	if err := nobody.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("PING without a login: %v", err)
	}
	s.MustDo("SET", "k", "v")
	s.MustDo("SAVE")
	before := s.Info("run_id")
	s.Restart()
	if got := s.MustDo("GET", "k"); got != "v" {
		t.Errorf("after a restart: %v", got)
	}
	if s.Info("run_id") == before {
		t.Error("run_id survived a restart")
	}
	s.RestartEmpty()
	if got := s.MustDo("DBSIZE"); got != int64(0) {
		t.Errorf("keys after an empty restart: %v", got)
	}
	s.Pause()
	s.Resume()
	s.MustDo("PING")
}

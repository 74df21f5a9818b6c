package software

import (
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/internal/redistest/replies"
)

// TestEveryServer: INFO is read as the same server's HELLO says it.
func TestEveryServer(t *testing.T) {
	for _, s := range replies.Servers(t) {
		got := Of([]byte(s.Text(t, "info-master")))
		hello := s.Raw(t, "hello-2")
		for field, value := range map[string]string{"server": got.Name, "version": got.Version} {
			_, rest, ok := strings.Cut(hello, "\r\n"+field+"\r\n")
			_, rest, _ = strings.Cut(rest, "\r\n")
			want, _, _ := strings.Cut(rest, "\r\n")
			if !ok || want != value {
				t.Errorf("%s: %s %q, HELLO says %q", s.Name, field, value, want)
			}
		}
		if s.Valkey == (got.Redis == s.Version) {
			t.Errorf("%s: %+v", s.Name, got)
		}
		if got != Of([]byte(s.Text(t, "info-replica"))) {
			t.Errorf("%s: its replica is other software", s.Name)
		}
	}
	if got := Of([]byte("# Server\r\nrun_id:x\r\n")); got != (Software{}) {
		t.Errorf("nothing said: %+v", got)
	}
}

func TestBefore(t *testing.T) {
	redis := func(v string) Software { return Software{"redis", v, v} }
	valkey := func(v string) Software { return Software{"valkey", v, "7.2.4"} }
	order := []Software{redis("6.2.16"), redis("7.0.9"), redis("7.0.15"), redis("7.2.4"), valkey("8.0.1"), valkey("8.0.11"), valkey("9.0.0"), redis("7.2.6"), redis("7.4.1")}
	for i, a := range order {
		for j, b := range order {
			if got := a.Before(b); got != (i < j) {
				t.Errorf("%+v before %+v: %v", a, b, got)
			}
		}
	}
}

package health

import (
	"bufio"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/internal/redistest/replies"
)

func parsed(t *testing.T, s replies.Server, file string) any {
	t.Helper()
	value, err := readReply(bufio.NewReader(strings.NewReader(s.Raw(t, file))), 0)
	if err != nil {
		t.Fatalf("%s of %s: %v", file, s.Name, err)
	}
	return value
}

// TestProbesUnderstandEveryServer: what a prober asks, as each server answers it.
func TestProbesUnderstandEveryServer(t *testing.T) {
	for _, s := range replies.Servers(t) {
		t.Run(s.Name, func(t *testing.T) {
			fields, _ := parsed(t, s, "acl-getuser-default").([]any)
			if d := defaultUser(fields); len(fields) == 0 || d != (redisadmin.DefaultUser{}) {
				t.Errorf("default user %+v of %q", d, fields)
			}
			// The administrator's is on, and has all rights.
			fields, _ = parsed(t, s, "acl-getuser-admin").([]any)
			if d := defaultUser(fields); d != (redisadmin.DefaultUser{On: true}) {
				t.Errorf("user %+v of %q", d, fields)
			}
			users, _ := parsed(t, s, "acl-users").([]any)
			if list := texts(users); len(list) != 4 {
				t.Errorf("users %q", list)
			}
			for file, word := range map[string]string{"error-busy": "BUSY", "error-loading": "LOADING", "error-masterdown": "MASTERDOWN"} {
				text, isError := parsed(t, s, file).(replyError)
				if !isError || firstWord(string(text)) != word {
					t.Errorf("%s: %q", file, text)
				}
			}
			for file, want := range map[string]bool{"error-wrongpass": true, "error-noperm": true, "error-busy": false, "error-loading": false} {
				if text, _ := parsed(t, s, file).(replyError); wrongPassword(string(text)) != want {
					t.Errorf("%s: %q", file, text)
				}
			}
			text, _ := parsed(t, s, "info-master").(string)
			if info := redisadmin.ParseInfo(text); info.Mode != "standalone" {
				t.Errorf("mode %q", info.Mode)
			}
		})
	}
}

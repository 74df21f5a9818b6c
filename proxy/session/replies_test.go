package session

import (
	"bytes"
	"testing"

	kept "github.com/basalt-redis/basalt/internal/redistest/replies"
)

// TestErrorsOfEveryServer: what is told apart by a server's words.
func TestErrorsOfEveryServer(t *testing.T) {
	for _, s := range kept.Servers(t) {
		if line := []byte(s.Raw(t, "error-noscript")); !isNoScript(line) {
			t.Errorf("%s does not have a script: %q", s.Name, line)
		}
		if line := []byte(s.Raw(t, "error-busy")); !bytes.HasPrefix(line, prefixBusy) || isNoScript(line) {
			t.Errorf("%s is busy: %q", s.Name, line)
		}
		if line := []byte(s.Raw(t, "error-busy-exec")); !bytes.HasPrefix(line, []byte(abortBecause+string(prefixBusy[1:]))) {
			t.Errorf("%s is busy in EXEC: %q", s.Name, line)
		}
		if line := []byte(s.Raw(t, "bgsave")); !bytes.HasPrefix(line, saveBegan) {
			t.Errorf("%s saves: %q", s.Name, line)
		}
		text := []byte(s.Text(t, "info-everything"))
		if !bytes.Contains(text, []byte("\r\nrdb_bgsave_in_progress:0\r\n")) || !bytes.Contains(text, []byte("\r\nrdb_last_bgsave_status:ok\r\n")) ||
			!bytes.Contains(text, []byte("\r\naof_enabled:0\r\n")) {
			t.Errorf("%s: INFO lacks what SAVE asks for", s.Name)
		}
	}
}

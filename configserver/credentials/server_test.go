package credentials

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A password is the line without its end, whether the file ends with one or not.
func TestServerLines(t *testing.T) {
	const sum = "#5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8" // of "password"
	var first []string
	for _, text := range []string{"password", "password\n", "password\r\n", "\npassword\n"} {
		path := filepath.Join(t.TempDir(), "pw")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		passwords, err := ReadAdminPasswords(path)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		lines := ServerLines(passwords, "basalt-node:u:shard-0:shard-0-1", false)
		if first == nil {
			first = lines
		}
		if !slices.Equal(lines, first) || !strings.Contains(lines[1], "on "+sum+" ") || len(lines) != 5 {
			t.Errorf("%q: %q", text, lines)
		}
	}
	if lines := ServerLines([]string{"new", "old"}, "", true); len(lines) != 3 || strings.Count(lines[1], "#") != 2 {
		t.Errorf("%q", lines)
	}
	if _, err := ReadAdminPasswords(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there")
	}
}

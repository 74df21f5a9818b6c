package credentials

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

// ReadAdminPasswords reads a file of admin passwords as Open does: the current one, and
// perhaps the one before. The file need not be in the folder of a cluster.
func ReadAdminPasswords(path string) ([]string, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return (&Set{}).read(path, true, true, 1)
}

// ServerLines are the lines of a server's configuration by which it boots fenced: only
// a Configserver with one of the passwords gets in, until that has admitted the server.
// They hold no password but its SHA-256. mark is the user that says which node it is
// (topology.Mark), or empty; before7 leaves out what servers before Redis 7.0 do not
// start with.
func ServerLines(passwords []string, mark string, before7 bool) []string {
	sums := make([]string, 0, len(passwords))
	for _, p := range passwords {
		sum := sha256.Sum256([]byte(p))
		sums = append(sums, "#"+hex.EncodeToString(sum[:]))
	}
	lines := []string{
		// A server loads the transactions of its append-only file as this user, and
		// drops what that one may not do.
		"user default off ~* &* +@all",
		fmt.Sprintf("user %s on %s ~* &* +@all", AdminUser, strings.Join(sums, " ")),
		"user basalt-probe on nopass resetkeys resetchannels -@all +ping",
	}
	if mark != "" {
		lines = append(lines, "user "+mark+" off")
	}
	if !before7 {
		lines = append(lines, "enable-protected-configs yes")
	}
	return lines
}

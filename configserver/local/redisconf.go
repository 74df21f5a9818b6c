package local

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/basalt-redis/basalt/configserver/credentials"
)

// adminPasswords reads the current admin password, and the previous one when a rotation is under way.
func (d *dataDir) adminPasswords() ([]string, error) {
	return credentials.ReadAdminPasswords(d.in("credentials", Cluster, credentials.AdminFile))
}

// redisConf is the config of a server that boots fenced: nobody but the
// Configserver gets in, until that admitted the incarnation. The config holds
// hashes of passwords only.
// A server that is started again says by mark which node it is, and those since 7.0
// may be told to keep diverged data in a file of its own.
func (d *dataDir) redisConf(dir string, port int, mark string, since7 bool, extra []string) (string, error) {
	passwords, err := d.adminPasswords()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("bind 127.0.0.1")
	line("port %d", port)
	line("protected-mode yes")
	line("daemonize no")
	line("dir %q", filepath.Join(dir, "data"))
	// A replica of a playground need not wait for others to sync with it.
	line("repl-diskless-sync yes")
	line("repl-diskless-sync-delay 0")
	if d.temporary {
		line(`save ""`)
		line("appendonly no")
	} else {
		line("appendonly yes")
	}
	for _, l := range credentials.ServerLines(passwords, mark, !since7) {
		line("%s", l)
	}
	if since7 { // an older server ends at a line it does not know
		line("shutdown-timeout 3")
	}
	for _, e := range extra {
		line("%s", e)
	}
	return b.String(), nil
}

// isSince7 tells if a server knows the config lines that came with Redis 7.0, as every
// Valkey does. binary is looked up in PATH.
func isSince7(binary string) bool {
	out, err := exec.Command(binary, "--version").Output()
	return err == nil && saysSince7(string(out))
}

// saysSince7 reads what a server prints for --version: "Redis server v=7.0.15 sha=…".
func saysSince7(text string) bool {
	_, rest, found := strings.Cut(text, " v=")
	major, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(major)
	return found && err == nil && n >= 7
}

// emptyDir removes what is in a directory, not the directory.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

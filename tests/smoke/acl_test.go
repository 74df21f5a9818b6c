package smoke

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/tests/harness"
)

// as is a client of a proxy that logs in as a user, on one connection.
func as(t *testing.T, addr, user, password string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, Username: user, Password: password, PoolSize: 1, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func wantError(t *testing.T, what string, err error, prefix string) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), prefix) {
		t.Errorf("%s: %v, want %s…", what, err, prefix)
	}
}

// TestUsers: what one proxy is told about users holds at the other at once, and
// outlives every process.
func TestUsers(t *testing.T) {
	const password = "s3cret-of-the-app"
	c := harness.Start(t, harness.Options{Shards: 2, Replicas: -1, Proxies: 2})
	ctx := context.Background()
	admin := as(t, c.Proxies[0], "", "")
	set := func(rules ...any) {
		t.Helper()
		if err := admin.Do(ctx, append([]any{"ACL", "SETUSER", "app"}, rules...)...).Err(); err != nil {
			t.Fatalf("SETUSER %v: %v", rules, err)
		}
	}
	set("on", ">"+password, "~app:*", "+@read", "+@write", "+@connection")
	app := as(t, c.Proxies[1], "app", password)
	if err := app.Set(ctx, "app:1", "v", 0).Err(); err != nil {
		t.Errorf("what is allowed: %v", err)
	}
	wantError(t, "another key", app.Set(ctx, "other", "v", 0).Err(), "NOPERM this user has no permissions to access one of the keys")
	wantError(t, "another command", app.ConfigGet(ctx, "port").Err(), "NOPERM this user has no permissions to run the 'config|get' command")
	wantError(t, "a wrong password", as(t, c.Proxies[1], "app", "wrong").Ping(ctx).Err(), "WRONGPASS")

	// Each change is in force at the other proxy when it has answered.
	for i := range 20 {
		if i%2 == 0 {
			set("-set")
			wantError(t, "SET after -set", app.Set(ctx, "app:1", i, 0).Err(), "NOPERM")
			continue
		}
		set("+set")
		if err := app.Set(ctx, "app:1", i, 0).Err(); err != nil {
			t.Errorf("SET after +set: %v", err)
		}
	}

	// The Configserver keeps them: through its death, and for a proxy that starts.
	harness.Signal(t, c.Process(t, "configserver-0"), syscall.SIGKILL)
	if err := app.Set(ctx, "app:1", "without a Configserver", 0).Err(); err != nil {
		t.Errorf("without a Configserver: %v", err)
	}
	wantError(t, "another key without a Configserver", app.Get(ctx, "other").Err(), "NOPERM")
	wantError(t, "SETUSER without a Configserver", admin.Do(ctx, "ACL", "SETUSER", "app", "+get").Err(), "ERR ")
	c.StartProcess(t, "configserver-0")
	c.WaitConfigservers(t, 20*time.Second)
	harness.Signal(t, c.Process(t, "proxy-1"), syscall.SIGKILL)
	c.StartProcess(t, "proxy-1")
	harness.Eventually(t, 20*time.Second, "the user logs in at a proxy that was started again", func() error {
		return as(t, c.Proxies[1], "app", password).Get(ctx, "app:1").Err()
	})
	app = as(t, c.Proxies[1], "app", password)
	wantError(t, "another key after restarts", app.Get(ctx, "other").Err(), "NOPERM")

	// The admin's side. The proxy that was killed is a member still: it is shut
	// out before the change is answered.
	wantLine(t, "acl list", c.CLI(t, "acl", "list"), "app", "on", "~app:*", "+@read")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("another-"+password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantLine(t, "acl set", c.CLI(t, "acl", "set", "--password-file", file, c.Name, "app", "resetpass", "-@write"), "every proxy obeys")
	wantError(t, "the old password", as(t, c.Proxies[0], "app", password).Ping(ctx).Err(), "WRONGPASS")
	wantError(t, "SET after -@write", as(t, c.Proxies[0], "app", "another-"+password).Set(ctx, "app:1", "v", 0).Err(), "NOPERM")
	if _, err := c.TryCLI("acl", "set", c.Name, "app", ">x"); err == nil || !strings.Contains(err.Error(), "must not be on the command line") {
		t.Errorf("a password on the command line: %v", err)
	}

	// Deleted: its connections end, at every proxy.
	app = as(t, c.Proxies[1], "app", "another-"+password)
	if err := app.Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	wantLine(t, "acl delete", c.CLI(t, "acl", "delete", c.Name, "app"), "1 of 1 users deleted")
	if err := app.Ping(ctx).Err(); err == nil { // "EOF", or that of the next connection
		t.Error("the connection of a deleted user lives on")
	}
	wantError(t, "the next one", app.Ping(ctx).Err(), "WRONGPASS")

	// Nothing that is kept or logged has a password in it, as a word.
	err := filepath.WalkDir(c.DataDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil //nolint:nilerr // files come and go
		}
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(password)) {
			return fmt.Errorf("%s has a password in it", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestDefaultUserOfTheFile: the file is the default user's password until
// somebody sets another.
func TestDefaultUserOfTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("of-the-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := harness.Start(t, harness.Options{Shards: 1, Replicas: -1, Flags: []string{"--client-password-file", file}})
	ctx := context.Background()
	ping := func(password string) error { return as(t, c.Proxies[0], "default", password).Ping(ctx).Err() }
	if err := ping("of-the-file"); err != nil {
		t.Fatal(err)
	}
	wantLine(t, "acl list", c.CLI(t, "acl", "list"), "default", "1 in client-password")
	c.CLI(t, "acl", "set", c.Name, "default", "-flushall")
	if err := ping("of-the-file"); err != nil {
		t.Errorf("after a rule: %v", err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.CLI(t, "acl", "set", "--password-file", other, c.Name, "default", "resetpass")
	wantError(t, "the file's password", ping("of-the-file"), "WRONGPASS")
	if err := ping("another"); err != nil {
		t.Errorf("the one that was set: %v", err)
	}
	c.CLI(t, "acl", "delete", c.Name, "default")
	wantError(t, "the one that was set, after it was reset", ping("another"), "WRONGPASS")
	if err := ping("of-the-file"); err != nil {
		t.Errorf("the file's password, after the reset: %v", err)
	}
}

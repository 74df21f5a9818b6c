package failover

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// aside is a server with a disk whose data is to be written aside.
type aside struct {
	t *testing.T
	s *redistest.Server
	x *Executor
	c *redisadmin.Conn
	d *topology.Diverged
}

func newAside(t *testing.T, config ...string) *aside {
	t.Helper()
	s := redistest.Start(t, redistest.Options{Persist: true, Config: append(config, "enable-protected-configs yes")})
	for i := range 20 {
		s.MustDo("SET", i, "v")
	}
	x := &Executor{log: slog.New(slog.DiscardHandler), host: &owned{owner: NewOwner("cs-1", "now"), look: func() error { return nil }}}
	c, err := redisadmin.Dial(t.Context(), s.Address, []string{s.AdminPassword})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &aside{t, s, x, x.guard(t.Context(), c), &topology.Diverged{FoundAt: time.Now().Add(-2 * time.Second), Target: divergedFiles[0], DBFile: "dump.rdb", SavedBefore: -1}}
}

// save saves until that has ended, and tells how.
func (a *aside) save() (string, error) {
	a.t.Helper()
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, err := a.c.Read(a.t.Context()); err != nil {
			a.t.Fatal(err)
		}
		file, err := a.x.saveAside(a.t.Context(), a.c, a.d, func(int64) error { return nil })
		if !errors.Is(err, ErrSaving) {
			return file, err
		}
		if time.Since(begun) > 20*time.Second {
			a.t.Fatal("it did not end")
		}
	}
}

func (a *aside) parameter(name string) string {
	a.t.Helper()
	value, err := a.c.Parameter(a.t.Context(), name)
	if err != nil {
		a.t.Fatal(err)
	}
	return value
}

// kept checks what became of it: the file is there when that is said, and the server
// writes its own file again.
func (a *aside) kept(file string) {
	a.t.Helper()
	if now := a.parameter("dbfilename"); now != "dump.rdb" {
		a.t.Errorf("the server goes on writing %s instead of its own file, and reads its old one when it restarts", now)
	}
	if file == "" {
		return
	}
	if _, err := os.Stat(filepath.Join(a.parameter("dir"), file)); err != nil {
		a.t.Errorf("%s is said to hold the data: %v", file, err)
	}
}

// A server that is busy with its append-only file saves a moment later.
func TestDataIsWrittenAsideWhileTheAppendOnlyFileIsRewritten(t *testing.T) {
	a := newAside(t, "appendonly yes")
	a.s.MustDo("CONFIG", "SET", "rdb-key-save-delay", "50000")
	a.s.MustDo("BGREWRITEAOF")
	file, err := a.save()
	if err != nil {
		t.Errorf("given up: %v", err)
	}
	a.kept(file)
}

// The owner died after it had set dbfilename and before it saved; an ordinary save had
// ended right before.
func TestDataIsWrittenAsideByTheNextOwner(t *testing.T) {
	a := newAside(t)
	a.s.MustDo("SAVE")
	a.s.MustDo("CONFIG", "SET", "dbfilename", a.d.Target)
	file, err := a.save()
	if err != nil {
		t.Errorf("given up: %v", err)
	}
	a.kept(file)
}

// The clocks of servers and Configservers differ.
func TestDataIsWrittenAsideByAServerWhoseClockIsBehind(t *testing.T) {
	a := newAside(t)
	a.d.FoundAt = time.Now().Add(5 * time.Second)
	file, err := a.save()
	if err != nil {
		t.Errorf("given up: %v", err)
	}
	a.kept(file)
}

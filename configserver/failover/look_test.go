package failover

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/health"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// looker is a host that an executor looks around for.
type looker struct {
	owned
	set *credentials.Set
	o   health.Observations
}

func (l *looker) Observe(string) health.Observations { return l.o }
func (l *looker) Credentials() *credentials.Set      { return l.set }
func (l *looker) AdminPasswords(string) []string     { return l.set.AdminPasswords() }

// A server that is busy while everybody connects to it anew lets nobody in for a
// moment. It was heard of right before, so it is waited for.
func TestANodeThatTakesNoConnectionIsSilent(t *testing.T) {
	s := redistest.Start(t, redistest.Options{Config: []string{"tcp-backlog 1"}})
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{credentials.AdminFile: s.AdminPassword, credentials.SecretFile: "the-root-of-all-passwords", credentials.ClientFile: ""} {
		if err := os.WriteFile(filepath.Join(dir, "c", name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, err := credentials.Open(dir, "c")
	if err != nil {
		t.Fatal(err)
	}
	c, err := redisadmin.Dial(t.Context(), s.Address, []string{s.AdminPassword})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	now := time.Now()
	w := newWorld(2)
	n := w.shard().Node("n1")
	n.Address, n.Incarnation = s.Address, c.Info.RunID
	w.shard().Nodes = w.shard().Nodes[1:]
	host := &looker{owned: owned{owner: NewOwner("cs-1", "now"), look: func() error { return nil }}, set: set,
		o: health.Observations{Started: now.Add(-time.Minute), Nodes: map[string]health.Node{"n1": {Probe: health.Probe{
			Sight: topology.SightOK, Heard: now, Info: c.Info, InfoAt: now}}}}}
	s.Pause()
	defer s.Resume()
	for {
		nc, err := net.DialTimeout("tcp", s.Address, 100*time.Millisecond)
		if err != nil {
			break // its queue is full
		}
		defer nc.Close()
	}
	x := NewExecutor(t.Context(), host, "s", slog.New(slog.DiscardHandler))
	defer x.Close()
	o := x.Look(t.Context(), w.shard())
	if v := stand(&w.c, w.shard(), &w.shard().Nodes[0], &Election{Old: "n0"}, &o, time.Now()); v.is != silent {
		t.Errorf("a node that answered %v ago and takes no connection now is held to be away, and others are promoted without waiting for it: %s",
			time.Since(now).Round(time.Millisecond), v.Refused)
	}
}

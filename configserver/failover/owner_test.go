package failover

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/internal/faultpoint"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// owned is a host that nothing is asked of but whose it is.
type owned struct {
	Host
	owner *Owner
	look  func() error
}

func (o *owned) Owner() *Owner { return o.owner }
func (o *owned) Owned() error  { return o.look() }

func (o *owned) Faults() *faultpoint.Points { return faultpoint.Process() }

// raw is a connection of an administrator, named as somebody likes.
func raw(t *testing.T, s *redistest.Server, name string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", s.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_, _ = fmt.Fprintf(nc, "AUTH %s %s\r\nCLIENT SETNAME %s\r\n", credentials.AdminUser, s.AdminPassword, name)
	_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(nc, make([]byte, len("+OK\r\n+OK\r\n"))); err != nil {
		t.Fatal(err)
	}
	return nc
}

// Whatever an earlier owner has sent by half is not executed any more when a later
// one changes the server for the first time.
func TestAnOwnerIsAlone(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	late := raw(t, s, namePrefix+"cs-0:before")
	prober := raw(t, s, "prober")
	_, _ = late.Write([]byte("*3\r\n$9\r\nREPLICAOF\r\n$9\r\n127.0.0.1\r\n$"))
	closed := func() bool {
		return !slices.Contains(names(t, s), namePrefix+"cs-0:before")
	}
	var looks []bool // was it closed already when the right was looked at?
	x := &Executor{log: slog.New(slog.DiscardHandler), host: &owned{owner: NewOwner("cs-1", "now"), look: func() error {
		looks = append(looks, closed())
		return nil
	}}}
	dial := func() *redisadmin.Conn {
		c, err := redisadmin.Dial(t.Context(), s.Address, []string{s.AdminPassword})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return x.guard(t.Context(), c)
	}
	c, sibling := dial(), dial()
	if err := sibling.SetName(t.Context(), x.host.Owner().name); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(t.Context()); err != nil || closed() {
		t.Errorf("a look at the server closed connections, %v", err)
	}
	if err := c.Config(t.Context(), "maxmemory-samples", "7"); err != nil {
		t.Fatal(err)
	}
	// The first look is before the connections are closed, the second before the change.
	if !slices.Equal(looks, []bool{false, true}) {
		t.Errorf("looks found the earlier owner's connection closed: %v", looks)
	}
	_, _ = late.Write([]byte("1\r\n1\r\n"))
	if n, err := late.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Error("the earlier owner's connection is open")
	}
	if role := s.Info("role"); role != "master" {
		t.Errorf("the server is a %s: the earlier owner's command was executed", role)
	}
	if _, err := fmt.Fprint(prober, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(prober, make([]byte, len("+PONG\r\n"))); err != nil {
		t.Errorf("a connection of another name was closed: %v", err)
	}
	if _, err := sibling.Read(t.Context()); err != nil {
		t.Errorf("another connection of the same owner was closed: %v", err)
	}
	// Once is enough for an incarnation: nothing is looked for again.
	raw(t, s, namePrefix+"cs-0:before")
	if err := dial().Config(t.Context(), "maxmemory-samples", "8"); err != nil || closed() {
		t.Errorf("looked for others again, %v", err)
	}
	s.Restart()
	again := raw(t, s, namePrefix+"cs-0:before")
	if err := dial().Config(t.Context(), "maxmemory-samples", "7"); err != nil || !closed() {
		t.Errorf("did not look for others at a new incarnation, %v", err)
	}
	_ = again.Close()
}

// names lists the names of a server's connections.
func names(t *testing.T, s *redistest.Server) []string {
	t.Helper()
	client := s.Client(redistest.AdminUser, s.AdminPassword)
	defer client.Close()
	var list []string
	text, err := client.ClientList(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.FieldsSeq(text) {
		if name, ok := strings.CutPrefix(field, "name="); ok {
			list = append(list, name)
		}
	}
	return list
}

package control

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/redistest"
)

// claiming is an address at which a server says that it is of another version: of one
// whose data those that say older cannot load, or of such an older one.
func claiming(t *testing.T, s *redistest.Server, older bool) string {
	t.Helper()
	field, claims := "redis_version:", map[bool]string{true: "6.0", false: "8.0"}[older]
	version := s.Info("valkey_version")
	if version != "" {
		field, claims = "valkey_version:", map[bool]string{true: "8.0", false: "9.0"}[older]
	} else {
		version = s.Info("redis_version")
	}
	claims += version[len("7.0"):] // of the same length
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", s.Address)
			if err != nil {
				client.Close()
				continue
			}
			forward := func(to, from net.Conn, old, next string) {
				defer to.Close()
				b := make([]byte, 1<<20)
				for {
					n, err := from.Read(b)
					if _, werr := io.WriteString(to, replace(b[:n], old, next)); err != nil || werr != nil {
						return
					}
				}
			}
			go forward(server, client, "", "")
			go forward(client, server, field+version, field+claims)
		}
	}()
	return l.Addr().String()
}

// TestOlderServerIsNotRegistered: a server that could not load its master's data is
// refused before anything is done to it.
func TestOlderServerIsNotRegistered(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, 1, nil)
	master := redistest.Start(t, redistest.Options{AdminPassword: adminPassword})
	r.servers["shard-0-0"] = master
	if _, err := r.loop.RegisterNode(t.Context(), "shard-0", topology.Node{ID: "shard-0-0", Address: claiming(t, master, false), Readable: true, Priority: 100}, false); err != nil {
		t.Fatal(err)
	}
	r.settled("shard-0")
	older := redistest.Start(t, redistest.Options{AdminPassword: adminPassword})
	_, err := r.loop.RegisterNode(t.Context(), "shard-0", topology.Node{ID: "shard-0-1", Address: claiming(t, older, true), Readable: true, Priority: 100}, false)
	refused(t, err, "is to follow shard-0-0: it runs")
	refused(t, err, "which cannot load a full copy from")
	if older.Info("role") != "master" {
		t.Error("it was made a replica")
	}
	// What says the same version is taken.
	same := redistest.Start(t, redistest.Options{AdminPassword: adminPassword})
	if _, err := r.loop.RegisterNode(t.Context(), "shard-0", topology.Node{ID: "shard-0-2", Address: claiming(t, same, false), Readable: true, Priority: 100}, false); err != nil {
		t.Error(err)
	}
}

func replace(b []byte, old, next string) string {
	if old == "" {
		return string(b)
	}
	return strings.ReplaceAll(string(b), old, next)
}

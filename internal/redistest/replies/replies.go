// Package replies holds what servers of many versions answer, word for word, for tests
// of whatever reads it.
//
// Each directory of testdata is one server: redis-7.4.1, valkey-8.0.1, or
// valkey-8.0.1-compatible, which has extended-redis-compatibility on. Each file in it is
// one reply as it came over the wire (RESP2), or what the program wrote. Command gen asks
// a server for all of them again:
//
//	go run ./redistest/replies/gen -to redistest/replies/testdata /path/to/redis-server /path/to/valkey-server
package replies

import (
	"embed"
	"strings"
	"testing"
)

//go:embed testdata
var files embed.FS

// Server is a server whose replies are kept.
type Server struct {
	// Name of its directory.
	Name string
	// Valkey, or Redis. Compatible: with extended-redis-compatibility, as every Redis.
	Valkey, Compatible bool
	// Version of Redis or Valkey, "8.0.1".
	Version string
}

// Servers are all of them.
func Servers(t testing.TB) (list []Server) {
	t.Helper()
	entries, err := files.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, compatible := strings.CutSuffix(e.Name(), "-compatible")
		software, version, _ := strings.Cut(name, "-")
		list = append(list, Server{Name: e.Name(), Valkey: software == "valkey", Compatible: compatible, Version: version})
	}
	return list
}

// Raw returns a file of a server: a whole reply in RESP2, or a text.
func (s Server) Raw(t testing.TB, name string) string {
	t.Helper()
	data, err := files.ReadFile("testdata/" + s.Name + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Has tells if there is such a file: not every server has every command.
func (s Server) Has(name string) bool {
	_, err := files.ReadFile("testdata/" + s.Name + "/" + name)
	return err == nil
}

// Text returns the string, status or error of a reply.
func (s Server) Text(t testing.TB, name string) string {
	t.Helper()
	raw := s.Raw(t, name)
	head, rest, _ := strings.Cut(raw, "\r\n")
	switch {
	case strings.HasPrefix(head, "+"), strings.HasPrefix(head, "-"):
		return head[1:]
	case strings.HasPrefix(head, "$"):
		return strings.TrimSuffix(rest, "\r\n")
	}
	t.Fatalf("%s of %s is no text: %q", name, s.Name, head)
	return ""
}

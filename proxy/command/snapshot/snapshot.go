// Package snapshot holds what a real redis-server says about its commands. The
// command table is generated from it, so that generating needs no server, and a
// test compares it with the server that is installed. Nothing of it is linked
// into the proxy.
package snapshot

import (
	"bufio"
	"bytes"
	_ "embed" // the snapshots below
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

//go:embed redis.json
var redisJSON []byte

//go:embed additions.json
var additionsJSON []byte

// Snapshot is the command table of one server.
type Snapshot struct {
	// Version of the server, "7.0.15".
	Version string `json:"version"`
	// Commands by name, without subcommands of their own (see Command).
	Commands map[string]Command `json:"commands"`
}

// Command is one command or one subcommand ("client|list").
type Command struct {
	// Info is its entry in COMMAND INFO; the last item, the subcommands, is empty.
	Info Value `json:"info"`
	// Docs is its entry in COMMAND DOCS, without the subcommands.
	Docs Value `json:"docs"`
}

// Indexes into Info.
const (
	InfoName = iota
	InfoArity
	InfoFlags
	InfoFirstKey
	InfoLastKey
	InfoStep
	InfoCategories
	InfoTips
	InfoKeySpecs
	InfoSubcommands
)

// Redis returns the snapshot in the repository.
func Redis() (Snapshot, error) { return parse(redisJSON) }

// Additions returns commands of later servers that the proxy has, and those of which
// later servers know more forms, as these describe them.
func Additions() (Snapshot, error) { return parse(additionsJSON) }

func parse(data []byte) (s Snapshot, err error) {
	err = json.Unmarshal(data, &s)
	return s, err
}

// Names returns the names of the commands, sorted; a container's subcommands
// follow it.
func (s Snapshot) Names() []string {
	names := make([]string, 0, len(s.Commands))
	for name := range s.Commands {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Fetch asks the server at addr.
func Fetch(addr string) (Snapshot, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return Snapshot{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(conn)
	ask := func(command string) (Value, error) {
		if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
			return Value{}, err
		}
		return Read(r)
	}
	hello, err := ask("HELLO 3")
	if err != nil {
		return Snapshot{}, fmt.Errorf("HELLO 3: %w", err)
	}
	s := Snapshot{Version: hello.Get("version").Text, Commands: map[string]Command{}}
	docs, err := ask("COMMAND DOCS")
	if err != nil {
		return Snapshot{}, fmt.Errorf("COMMAND DOCS: %w", err)
	}
	infos, err := ask("COMMAND")
	if err != nil {
		return Snapshot{}, fmt.Errorf("COMMAND: %w", err)
	}
	for _, info := range infos.Items {
		s.add(info, docs)
	}
	return s, nil
}

// add stores one command, and its subcommands as commands of their own. Sets
// and maps that a server writes in the order of its hash table are sorted.
func (s *Snapshot) add(info, docs Value) {
	name := info.Items[InfoName].Text
	doc := docs.Get(name)
	subDocs := doc.Get("subcommands")
	for _, sub := range info.Items[InfoSubcommands].Items {
		s.add(sub, subDocs)
	}
	info.Items[InfoSubcommands].Items = nil
	for i := 0; i+1 < len(doc.Items); i += 2 {
		if doc.Items[i].Text == "subcommands" {
			doc.Items = slices.Delete(slices.Clone(doc.Items), i, i+2)
			break
		}
	}
	s.Commands[name] = Command{Info: info, Docs: doc}
}

// MarshalJSON writes one command per line, sorted, so that the difference
// between two versions can be read.
func (s Snapshot) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n\"version\": %q,\n\"commands\": {", s.Version)
	for i, name := range s.Names() {
		line, err := json.Marshal(s.Commands[name])
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s\n%q: %s", strings.Repeat(",", min(i, 1)), name, line)
	}
	b.WriteString("\n}\n}")
	return b.Bytes(), nil
}

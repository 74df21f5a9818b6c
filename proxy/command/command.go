// Package command is the proxy's table of Redis commands: which exist, how many
// arguments they take, where their keys are, and what the proxy does with each.
//
// The facts come from a real server (package snapshot), the decisions from
// gen/overlay.go; `go generate` joins them into table_gen.go.
package command

//go:generate go run ./gen -table table_gen.go -replies ../introspect/commands_gen.go -acl ../../internal/acl/commands_gen.go

import (
	"bytes"
	"strings"
)

// Kind says what the proxy does with a command.
type Kind uint8

// Kinds.
const (
	// Keyed commands go to the shard that owns the slot of their keys.
	Keyed Kind = iota
	// Split commands take keys of any slots (MGET MSET DEL UNLINK EXISTS TOUCH):
	// each shard gets its part, the replies are merged in order.
	Split
	// AllShards commands go to every shard, the replies are merged.
	AllShards
	// Local commands are answered by the proxy itself.
	Local
	// Script commands run a script or function: at the shard that owns the slot
	// of their keys, at any without keys.
	Script
	// ScriptAdmin commands concern the scripts and functions of all shards.
	ScriptAdmin
	// PubSub commands publish, subscribe, or tell about subscriptions.
	PubSub
	// AnyShard commands name no key: any shard that serves can answer them. Slot
	// finds NoSlot, which is how a Keyed command without keys is routed, too.
	AnyShard
	// Unsupported commands are refused with a sentence.
	Unsupported
)

// String is the name in logs and metrics.
func (k Kind) String() string {
	return [...]string{"keyed", "split", "all-shards", "local", "script", "script-admin", "pubsub", "any-shard", "unsupported"}[k]
}

// Spec is one command or subcommand. Specs are read-only.
type Spec struct {
	// Name in lower case, a subcommand as Redis writes it: "get", "client|list".
	Name string
	// ID is a dense index from 0, in the order of the names.
	ID int
	// Arity counts the arguments, the name included; negative: at least so many.
	Arity int
	// Kind of the command.
	Kind Kind
	// Write: it may change data. ReadOnly: it cannot, and replicas may serve it.
	// Both are false for commands that do not touch data.
	Write, ReadOnly bool
	// Blocking commands may wait for data or replicas, some of them only with an
	// option (XREAD BLOCK): see Timeout.
	Blocking bool
	// Cursor is the index of the argument that is a cursor, in commands that iterate;
	// else 0.
	Cursor int
	// Hidden commands are not shown by MONITOR.
	Hidden bool
	// NoAuth commands are open to clients that did not authenticate.
	NoAuth bool
	// Reason why it is Unsupported: a sentence without "ERR" and line end.
	Reason string

	// refusal is the reply line of an Unsupported command.
	refusal []byte
	// first is the index of the only key of most commands, else 0.
	first int
	keys  []keySpec
	rule  rule
	// subcommands of a container are the specs [subFirst, subEnd).
	subFirst, subEnd int
}

// Databases is how many databases a server has unless it is told otherwise: a
// client may select 0 to 15.
const Databases = 16

// Count is the number of specs; their IDs are 0 to Count()-1.
func Count() int { return len(specs) }

// ByID returns a spec by its ID.
func ByID(id int) *Spec { return &specs[id] }

// ByName finds a spec by its name in any case; a subcommand is "client|list".
// nil when there is none.
func ByName(name string) *Spec {
	base, sub, isSub := strings.Cut(name, "|")
	s := find([]byte(base))
	if s == nil || !isSub {
		return s
	}
	return s.subcommand([]byte(sub))
}

// IsContainer tells if the command has subcommands.
func (s *Spec) IsContainer() bool { return s.subEnd > s.subFirst }

// IsScript tells if the command runs a script or function of the client's.
func (s *Spec) IsScript() bool { return s.Kind == Script }

// OnShards tells if servers execute the command as clients send it, each request on
// one of them, or on those that have its keys. The servers then know how often it
// was called, through whichever proxy or script, and how long it took. Of others,
// which the proxy answers or sends to every shard, the proxy knows.
func (s *Spec) OnShards() bool {
	switch s.Kind {
	case Keyed, Split, AnyShard, Script:
		return true
	}
	return false
}

// HasKeys tells if some arguments of the command are keys.
func (s *Spec) HasKeys() bool { return len(s.keys) > 0 || s.rule == ruleSort }

// Subcommands returns the subcommands of a container, by name.
func (s *Spec) Subcommands() []Spec { return specs[s.subFirst:s.subEnd] }

// Lookup finds the command of a request and checks its arity. args is not
// empty. The second result is nil, or the complete error line to reply with;
// the Spec is then nil for an unknown command, and not nil, so that it can be
// counted, for a wrong number of arguments and for an Unsupported command.
// It does not allocate when the request is good.
func Lookup(args [][]byte) (*Spec, []byte) {
	s := find(args[0])
	if s == nil {
		return nil, unknownCommand(args)
	}
	if s.subEnd > s.subFirst && len(args) > 1 {
		sub := s.subcommand(args[1])
		if sub == nil {
			return nil, unknownSubcommand(s, args[1])
		}
		s = sub
	}
	if n := len(args); n != s.Arity && (s.Arity > 0 || n < -s.Arity) {
		return s, s.wrongArity()
	}
	return s, s.refusal
}

// FirstKey is the index of the only key of most commands, else 0.
func (s *Spec) FirstKey() int { return s.first }

// Refuses tells if an error line of Lookup is the sentence of an Unsupported
// command: the request is well-formed, so who sent it must be allowed to.
func (s *Spec) Refuses(line []byte) bool {
	return s != nil && len(line) > 0 && len(s.refusal) > 0 && &line[0] == &s.refusal[0]
}

// subcommand finds a subcommand by its own name in any case.
func (s *Spec) subcommand(name []byte) *Spec {
	for i := s.subFirst; i < s.subEnd; i++ {
		if own := specs[i].Name[len(s.Name)+1:]; len(own) == len(name) && equalFold(name, own) {
			return &specs[i]
		}
	}
	return nil
}

// wrongArity is Redis's reply to a wrong number of arguments.
func (s *Spec) wrongArity() []byte {
	return []byte("-ERR wrong number of arguments for '" + s.Name + "' command\r\n")
}

// errorEcho is how many bytes of the client's own words errors repeat.
const errorEcho = 128

// unknownCommand is Redis's reply, which repeats the beginning of the request.
func unknownCommand(args [][]byte) []byte {
	var echo []byte
	for _, a := range args[1:] {
		if len(echo) >= errorEcho {
			break
		}
		echo = append(echo, '\'')
		echo = append(echo, cString(a, errorEcho-len(echo)+1)...)
		echo = append(echo, "' "...)
	}
	reply := append([]byte("-ERR unknown command '"), cString(args[0], errorEcho)...)
	reply = append(reply, "', with args beginning with: "...)
	return endLine(append(reply, echo...))
}

// unknownSubcommand is Redis's reply.
func unknownSubcommand(container *Spec, sub []byte) []byte {
	reply := append([]byte("-ERR unknown subcommand '"), cString(sub, errorEcho)...)
	reply = append(reply, "'. Try "...)
	reply = append(reply, strings.ToUpper(container.Name)...)
	return endLine(append(reply, " HELP."...))
}

// cString is what C's "%.<n>s" prints of b: at most n bytes, to the first NUL.
func cString(b []byte, n int) []byte {
	b = b[:min(len(b), n)]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return b
}

// ErrorLine is an error reply that repeats a word of the client as Redis does:
// to its first NUL, without line breaks, which would end the reply early.
func ErrorLine(before string, echo []byte, after string) []byte {
	reply := append([]byte("-ERR "), before...)
	reply = append(reply, cString(echo, len(echo))...)
	return endLine(append(reply, after...))
}

// endLine ends an error reply; line breaks within become spaces, for they would
// end it early.
func endLine(reply []byte) []byte {
	for i, c := range reply {
		if c == '\r' || c == '\n' {
			reply[i] = ' '
		}
	}
	return append(reply, "\r\n"...)
}

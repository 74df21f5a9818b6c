package introspect

import (
	"strings"
	"sync"

	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/glob"
)

// Command appends the reply to COMMAND or one of its subcommands, in protocol
// version 2 or 3. It says of each command what the server says that the table was
// made from; those that the proxy refuses are among them, for they have an answer
// of their own, and who reads the list wants to know keys and flags, not what is
// refused here. The request has passed command.Lookup.
func Command(dst []byte, args [][]byte, proto int) []byte {
	if len(args) == 1 {
		return append(dst, everything(proto).info...)
	}
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = string(a)
	}
	names := words[2:]
	switch strings.ToLower(words[1]) {
	case "count":
		return appendHeader(dst, ':', len(commands()))
	case "info":
		if len(names) == 0 {
			return append(dst, everything(proto).info...)
		}
		return inProtocol(dst, infoOf(names), proto)
	case "docs":
		if len(names) == 0 {
			return append(dst, everything(proto).docs...)
		}
		return inProtocol(dst, docsOf(names), proto)
	case "list":
		return commandList(dst, names)
	case "getkeys":
		return getKeys(dst, args[2:], proto, false)
	default: // getkeysandflags
		return getKeys(dst, args[2:], proto, true)
	}
}

// commands returns the names of the commands without subcommands.
var commands = sync.OnceValue(func() (names []string) {
	for id := range command.Count() {
		if s := command.ByID(id); !strings.Contains(s.Name, "|") {
			names = append(names, s.Name)
		}
	}
	return names
})

// replies are the two longest, kept once they were asked for.
type replies struct{ info, docs []byte }

var (
	everything2 = sync.OnceValue(func() replies { return allReplies(2) })
	everything3 = sync.OnceValue(func() replies { return allReplies(3) })
)

func everything(proto int) replies {
	if proto >= 3 {
		return everything3()
	}
	return everything2()
}

func allReplies(proto int) replies {
	return replies{inProtocol(nil, infoOf(commands()), proto), inProtocol(nil, docsOf(commands()), proto)}
}

// infoOf is the reply to COMMAND INFO in RESP3; null for each unknown name.
func infoOf(names []string) []byte {
	out := appendHeader(nil, '*', len(names))
	for _, name := range names {
		if s := command.ByName(name); s != nil {
			out = appendInfo(out, s)
		} else {
			out = append(out, "_\r\n"...)
		}
	}
	return out
}

func appendInfo(out []byte, s *command.Spec) []byte {
	out = append(appendHeader(out, '*', 10), described[s.ID].info...)
	subs := s.Subcommands()
	if len(subs) == 0 {
		return append(out, "~0\r\n"...) // as the server: an empty set, but an array of some
	}
	out = appendHeader(out, '*', len(subs))
	for i := range subs {
		out = appendInfo(out, &subs[i])
	}
	return out
}

// docsOf is the reply to COMMAND DOCS in RESP3; unknown names are left out.
func docsOf(names []string) []byte {
	n, body := 0, []byte(nil)
	for _, name := range names {
		if s := command.ByName(name); s != nil {
			body = appendDocs(body, s)
			n++
		}
	}
	return append(appendHeader(nil, '%', n), body...)
}

func appendDocs(out []byte, s *command.Spec) []byte {
	d := described[s.ID]
	subs := s.Subcommands()
	fields := d.docFields
	if len(subs) > 0 {
		fields++
	}
	out = appendBulk(out, s.Name)
	out = append(appendHeader(out, '%', fields), d.docs...)
	if len(subs) > 0 {
		out = appendHeader(appendBulk(out, "subcommands"), '%', len(subs))
		for i := range subs {
			out = appendDocs(out, &subs[i])
		}
	}
	return out
}

// commandList answers COMMAND LIST; subcommands are listed too, as the server does.
func commandList(dst []byte, options []string) []byte {
	keep := func(*command.Spec) bool { return false }
	switch {
	case len(options) == 0:
		keep = func(*command.Spec) bool { return true }
	case len(options) != 3 || !strings.EqualFold(options[0], "filterby"):
		return appendError(dst, "syntax error")
	case strings.EqualFold(options[1], "pattern"):
		keep = func(s *command.Spec) bool { return glob.Fold(options[2], s.Name) }
	case strings.EqualFold(options[1], "aclcat"):
		category := "+@" + strings.ToLower(options[2]) + "\r\n"
		keep = func(s *command.Spec) bool { return strings.Contains(described[s.ID].info, category) }
	case !strings.EqualFold(options[1], "module"): // no module adds commands
		return appendError(dst, "syntax error")
	}
	n, body := 0, []byte(nil)
	for id := range command.Count() {
		s := command.ByID(id)
		if keep(s) {
			body = appendBulk(body, s.Name)
			n++
		}
	}
	return append(appendHeader(dst, '*', n), body...)
}

// getKeys answers COMMAND GETKEYS and GETKEYSANDFLAGS.
func getKeys(dst []byte, args [][]byte, proto int, flags bool) []byte {
	s := command.ByName(string(args[0]))
	if s != nil && s.IsContainer() && len(args) > 1 {
		s = command.ByName(s.Name + "|" + string(args[1]))
	}
	if s == nil {
		return appendError(dst, "Invalid command specified")
	}
	hasKeys := s.HasKeys()
	switch n := len(args); {
	case !hasKeys:
		return appendError(dst, "The command has no key arguments")
	case n != s.Arity && (s.Arity > 0 || n < -s.Arity):
		return appendError(dst, "Invalid number of arguments specified for command")
	}
	keys, ok := s.KeysWithFlags(args)
	if s.Name == "migrate" && ok && len(keys) > 0 {
		// Either the third argument is the key, or it is empty and KEYS has them.
		switch single := len(args[3]) > 0; {
		case single:
			ok = len(keys) == 1
		case len(keys) > 1:
			keys = keys[1:]
		}
	}
	if !ok || len(keys) == 0 {
		if strings.Contains(described[s.ID].info, "+no_mandatory_keys\r\n") {
			return appendHeader(dst, '*', 0)
		}
		return appendError(dst, "Invalid arguments specified for command")
	}
	out := appendHeader(nil, '*', len(keys))
	for _, k := range keys {
		if flags {
			out = appendHeader(out, '*', 2)
		}
		out = appendBulk(out, string(args[k.Index]))
		if flags {
			words := strings.Fields(k.Flags)
			out = appendHeader(out, '~', len(words))
			for _, w := range words {
				out = appendSimple(out, w)
			}
		}
	}
	return inProtocol(dst, out, proto)
}

// help lists the subcommands of a container with their summaries.
func help(dst []byte, container *command.Spec) []byte {
	name := strings.ToUpper(container.Name)
	lines := []string{name + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"}
	subs := container.Subcommands()
	for i := range subs {
		sub := &subs[i]
		lines = append(lines, strings.ToUpper(sub.Name[len(name)+1:]), "    "+summary(described[sub.ID].docs)+".")
	}
	dst = appendHeader(dst, '*', len(lines))
	for _, l := range lines {
		dst = appendSimple(dst, l)
	}
	return dst
}

// Help appends the reply to a HELP subcommand, "client|help".
func Help(dst []byte, s *command.Spec) []byte {
	container, _, _ := strings.Cut(s.Name, "|")
	return help(dst, command.ByName(container))
}

// summary is the value of the first field of the docs, which is the summary.
func summary(docs string) string {
	rest := strings.TrimPrefix(docs, "$7\r\nsummary\r\n$")
	_, rest, _ = strings.Cut(rest, "\r\n")
	text, _, _ := strings.Cut(rest, "\r\n")
	return text
}

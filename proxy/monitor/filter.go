// Package monitor tells, of the lines that a server sends after MONITOR, which
// are commands of applications and which are Basalt's own business.
//
// Who sent a line is known by its address and CLIENT LIST:
//
//  1. What a proxy's user sent is an application's, but for what proxies send
//     for themselves. Those are commands that a proxy answers itself when a
//     client sends them (PING, AUTH, SUBSCRIBE …), so they never come from an
//     application, unless between MULTI and EXEC; INFO behind a login; and PUBSUB
//     about names of their own.
//  2. What anybody else sent (the Configserver, replicas, a person logged in at
//     the server) is not shown.
//  3. A connection that ended before it was listed is judged by the command:
//     what is about data is shown.
//  4. What a script calls ("lua" in place of an address) is shown.
//
// While an unknown address is asked about, all lines wait, so their order stays.
package monitor

import (
	"bytes"
	"strings"

	"github.com/basalt-redis/basalt/proxy/backend"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/pubsub"
)

// maxHeld bounds the lines that wait, in bytes; beyond it, rule 3 is applied.
const maxHeld = 1 << 20

// Filter is what is known of one server's connections.
type Filter struct {
	// prefix begins the names of the proxies' users, whatever their generation and
	// seat.
	prefix  string
	sources map[string]*source
	held    [][]byte
	bytes   int
	// asked: the list that is on its way was asked for after the first line that
	// waits, so it says all that there is to know.
	asked bool
}

// source is one connection to the server.
type source struct {
	proxy bool
	// multi: between MULTI and EXEC. login: it logged in, and no application's
	// command came since.
	multi, login bool
}

// NewFilter makes a filter for a server where proxies log in as a user.
func NewFilter(user string) *Filter {
	if user == "" {
		user = "default"
	}
	return &Filter{prefix: prefix(user), sources: map[string]*source{}}
}

// prefix is the part of a name that all users of proxies share.
func prefix(user string) string { return strings.TrimRight(user, "-0123456789") }

// Take takes a line, with its line end, and gives what is to be shown to show,
// at once or later. It returns true when CLIENT LIST should be asked for.
func (f *Filter) Take(line []byte, show func([]byte)) (ask bool) {
	if len(f.held) == 0 && f.judge(line, false, show) {
		return false
	}
	f.held = append(f.held, bytes.Clone(line))
	f.bytes += len(line)
	if f.bytes > maxHeld {
		f.release(true, show)
		return false
	}
	return true
}

// Listed takes the reply to CLIENT LIST. It returns true when it should be asked
// for again, because lines wait that came while it was on its way.
func (f *Filter) Listed(reply []byte, show func([]byte)) (again bool) {
	old := f.sources
	f.sources = make(map[string]*source, len(old))
	for line := range bytes.Lines(reply) {
		var addr, user string
		for field := range bytes.FieldsSeq(line) {
			if v, ok := bytes.CutPrefix(field, []byte("addr=")); ok {
				addr = string(v)
			} else if v, ok := bytes.CutPrefix(field, []byte("user=")); ok {
				user = string(v)
			}
		}
		if addr == "" {
			continue
		}
		proxy := prefix(user) == f.prefix
		s := old[addr]
		if s == nil || s.proxy != proxy {
			s = &source{proxy: proxy}
		}
		f.sources[addr] = s
	}
	f.release(f.asked, show)
	f.asked = len(f.held) > 0
	return f.asked
}

// release judges the lines that wait, in their order, up to one that must wait
// on; certain says that nothing more can be learnt.
func (f *Filter) release(certain bool, show func([]byte)) {
	for i, line := range f.held {
		if !f.judge(line, certain, show) {
			f.held = f.held[i:]
			return
		}
		f.bytes -= len(line)
	}
	f.held, f.asked = nil, false
}

// judge shows a line if it is to be shown. It returns false when it is not known
// who sent it, unless certain.
func (f *Filter) judge(line []byte, certain bool, show func([]byte)) bool {
	addr, words := parse(line)
	if len(words) == 0 {
		return true // not a line of MONITOR
	}
	if addr == "lua" {
		show(line)
		return true
	}
	s := f.sources[addr]
	spec, _ := command.Lookup(words)
	if s == nil {
		if !certain {
			return false
		}
		if spec != nil && (spec.Write || spec.ReadOnly || spec.MayReplicate(words)) {
			show(line)
		}
		return true
	}
	if s.proxy && s.applications(spec, words) {
		show(line)
	}
	return true
}

// applications tells if an application sent a command that a proxy passed on.
func (s *source) applications(spec *command.Spec, words [][]byte) bool {
	if spec == nil {
		return true // of a later server
	}
	switch spec.Name {
	case "multi", "exec":
		if bytes.Contains(backend.RehearsalBegin, words[0]) {
			return false // its DISCARD is the proxy's own too
		}
		s.multi, s.login = spec.Name == "multi", false
		return true
	case "hello", "auth":
		s.login = true
		return false
	case "info":
		return !s.login
	case "pubsub|numsub", "pubsub|channels":
		if len(words) > 2 && bytes.HasPrefix(words[2], internal) {
			return false
		}
	}
	if !s.multi && spec.Name != "watch" && ownBusiness(spec) {
		return false
	}
	s.login = false
	return true
}

// internal begins the names of channels that proxies use among themselves.
var internal = []byte(pubsub.Internal)

// ownBusiness tells if proxies answer a command themselves when a client sends it.
func ownBusiness(spec *command.Spec) bool {
	switch spec.Kind {
	case command.Local, command.Unsupported:
		return true
	case command.PubSub:
		return strings.HasSuffix(spec.Name, "subscribe")
	}
	return false
}

// parse returns the address of a line and the first words of its command:
//
//	+1339518083.107412 [0 127.0.0.1:60866] "client" "list"
func parse(line []byte) (addr string, words [][]byte) {
	open := bytes.IndexByte(line, '[')
	end := bytes.Index(line, []byte("] \""))
	if open < 0 || end < open {
		return "", nil
	}
	_, from, ok := bytes.Cut(line[open+1:end], []byte{' '})
	if !ok {
		return "", nil
	}
	rest := line[end+2:]
	for len(rest) > 1 && rest[0] == '"' && len(words) < maxWords {
		n := 1
		for n < len(rest) && rest[n] != '"' {
			if rest[n] == '\\' {
				n++
			}
			n++
		}
		if n >= len(rest) {
			break
		}
		words = append(words, rest[1:n])
		rest = bytes.TrimLeft(rest[n+1:], " ")
	}
	return string(from), words
}

// maxWords is how many arguments are looked at: no command needs more to be
// known, and EVAL has its script in the second.
const maxWords = 8

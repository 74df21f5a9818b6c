package acl

import (
	"slices"
	"unsafe"

	rules "github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/glob"
)

// Verdict says whether a request may be run, and if not, why.
type Verdict uint8

// Verdicts, in the order in which the reasons of several selectors count.
const (
	Allowed Verdict = iota
	// DeniedCommand: the user may not run the command.
	DeniedCommand
	// DeniedKey and DeniedChannel: not with one of its keys or channels.
	DeniedKey
	DeniedChannel
	// DeniedBy and DeniedGet: SORT would read keys by a pattern, for which the
	// user must be allowed to read all keys.
	DeniedBy
	DeniedGet
	// DeniedAuth is of the log only: a user or a password was wrong.
	DeniedAuth
)

// Limits are what a user that may not do everything may do. They never change.
type Limits struct {
	// Rights names them: servers have a user of that name who may do as much, for
	// its scripts (rules.NodeUser).
	Rights string

	selectors []selector
}

// selector is a rules.Selector and what is often asked of it.
type selector struct {
	*rules.Selector
	allCommands bool
}

func newLimits(u *rules.User, text string) *Limits {
	l := &Limits{Rights: rules.Rights(text)}
	for i := range u.Selectors {
		s := selector{Selector: &u.Selectors[i], allCommands: true}
		for id := range command.Count() {
			s.allCommands = s.allCommands && s.Allows(id)
		}
		l.selectors = append(l.selectors, s)
	}
	return l
}

// Scratch is memory that checks use again and again.
type Scratch struct{ keys []command.Access }

// Check tells if a request whose arity is right may be run, and if not because
// of a key or channel, the index of that argument.
func (l *Limits) Check(spec *command.Spec, args [][]byte, scratch *Scratch) (Verdict, int) {
	if spec.NoAuth {
		return Allowed, 0
	}
	verdict, at := DeniedCommand, 0
	found := false // the keys are in scratch
	for i := range l.selectors {
		s := &l.selectors[i]
		if !found && !s.AllKeys && spec.HasKeys() {
			found = true
			scratch.keys = spec.Accesses(args, scratch.keys[:0])
		}
		v, index := s.check(spec, args, scratch.keys)
		if v == Allowed {
			return l.beyond(spec, args, scratch)
		}
		if v > verdict || v == verdict && index > at {
			verdict, at = v, index
		}
	}
	return verdict, at
}

// AllowsAll tells if a command may be run whatever its arguments are, and without
// looking at them. When it does not, Check decides.
func (l *Limits) AllowsAll(spec *command.Spec) bool {
	return slices.ContainsFunc(l.selectors, func(s selector) bool {
		return s.AllKeys && s.AllChannels && (s.allCommands || s.Allows(spec.ID))
	})
}

// check is Check for one selector.
func (s *selector) check(spec *command.Spec, args [][]byte, keys []command.Access) (Verdict, int) {
	if !s.allCommands && !s.Allows(spec.ID) && !s.allowsWith(spec, args) {
		return DeniedCommand, 0
	}
	if !s.AllKeys && spec.HasKeys() {
		for _, k := range keys {
			if !s.allowsKey(args[k.Index], k.Read, k.Write) {
				return DeniedKey, k.Index
			}
		}
	}
	if !s.AllChannels {
		names, literal := channels(spec.Name, args)
		for i, name := range names {
			if !s.allowsChannel(text(name), literal) {
				return DeniedChannel, i + 1
			}
		}
	}
	return Allowed, 0
}

// allowsWith tells if the command is allowed with its first argument.
func (s *selector) allowsWith(spec *command.Spec, args [][]byte) bool {
	if len(args) < 2 {
		return false
	}
	return slices.ContainsFunc(s.FirstArgs(spec.ID), func(word string) bool { return glob.EqualFold(word, text(args[1])) })
}

func (s *selector) allowsKey(key []byte, read, write bool) bool {
	for i := range s.Keys {
		if k := &s.Keys[i]; (k.Read || !read) && (k.Write || !write) && glob.Match(k.Pattern, text(key)) {
			return true
		}
	}
	return false
}

// readsAll tells if the selector allows to read every key.
func (s *selector) readsAll() bool {
	return s.AllKeys || slices.ContainsFunc(s.Keys, func(k rules.KeyPattern) bool { return k.Read && k.Pattern == "*" })
}

// allowsChannel tells if a channel is allowed, or with literal a pattern of
// channels: that must be one of the selector's own.
func (s *selector) allowsChannel(name string, literal bool) bool {
	return s.AllChannels || slices.ContainsFunc(s.Channels, func(pattern string) bool {
		if literal {
			return pattern == name
		}
		return glob.Match(pattern, name)
	})
}

// channels are the arguments from 1 on that are channels, or with literal
// patterns of channels. Nobody needs a right to stop listening.
func channels(name string, args [][]byte) (names [][]byte, literal bool) {
	switch name {
	case "publish", "spublish":
		return args[1:2], false
	case "subscribe", "ssubscribe":
		return args[1:], false
	case "psubscribe":
		return args[1:], true
	}
	return nil, false
}

// beyond looks at what a request that is allowed would do beyond its arguments.
func (l *Limits) beyond(spec *command.Spec, args [][]byte, scratch *Scratch) (Verdict, int) {
	option := spec.SortPattern(args)
	if option == "" {
		return Allowed, 0
	}
	keys := spec.Accesses(args, scratch.keys[:0])
	for i := range l.selectors {
		s := &l.selectors[i]
		if v, _ := s.check(spec, args, keys); v == Allowed && s.readsAll() {
			return Allowed, 0
		}
	}
	if option == "BY" {
		return DeniedBy, 0
	}
	return DeniedGet, 0
}

// MayListen tells if a client that listens to a channel, or with literal to a
// pattern of channels, may go on to.
func (u *User) MayListen(name string, literal bool) bool {
	if u.Limits == nil {
		return true
	}
	return slices.ContainsFunc(u.Limits.selectors, func(s selector) bool { return s.allowsChannel(name, literal) })
}

// KeepsChannels tells if the user may listen to everything that it might before,
// by its rules: then its clients need not be looked at.
func (u *User) KeepsChannels(before *User) bool {
	var now []string
	for i := range u.Rules.Selectors {
		if u.Rules.Selectors[i].AllChannels {
			return true
		}
		now = append(now, u.Rules.Selectors[i].Channels...)
	}
	for i := range before.Rules.Selectors {
		s := &before.Rules.Selectors[i]
		if s.AllChannels || slices.ContainsFunc(s.Channels, func(c string) bool { return !slices.Contains(now, c) }) {
			return false
		}
	}
	return true
}

// text is the bytes as a string, which must not be kept.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

package acl

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
)

// DefaultUser is the name of the user that connections belong to until they
// authenticate as another.
const DefaultUser = "default"

// Sanitize is what a user's rules say of the payloads of RESTORE. Servers decide
// for the proxies' user alone; it is kept because Redis shows it.
type Sanitize uint8

// Values of Sanitize.
const (
	Unspecified Sanitize = iota
	SkipPayload
	SanitizePayload
)

// User is one user and its rules.
//
// Invariants: Selectors is never empty, the first is the root, to which rules
// outside of parentheses belong; NoPass means no Passwords.
type User struct {
	Name string
	// On: one may authenticate as this user.
	On bool
	// NoPass: any password is right.
	NoPass   bool
	Sanitize Sanitize
	// Passwords are SHA-256 sums in lower case hex, in the order they were added.
	Passwords []string
	Selectors []Selector
}

// Selector is one set of rights. A user may run a command that one of its
// selectors allows as a whole.
type Selector struct {
	// AllKeys and AllChannels: there is no limit; Keys and Channels are empty.
	AllKeys, AllChannels bool
	Keys                 []KeyPattern
	// Channels are patterns of channels.
	Channels []string
	// allowed has a bit for each command; future means those of later versions,
	// too: the selector began with all commands, and some were taken away.
	allowed bitmap
	future  bool
	// firstArgs are first arguments with which a command is allowed that
	// otherwise is not.
	firstArgs map[int][]string
}

// KeyPattern is a pattern of keys that may be read, written or both.
type KeyPattern struct {
	Pattern     string
	Read, Write bool
}

// NewUser makes a user that may do nothing and is off.
func NewUser(name string) *User { return &User{Name: name, Selectors: []Selector{newSelector()}} }

// NewDefault makes the default user as Redis has it from the start: on, without a
// password, with all rights.
func NewDefault() *User {
	u := NewUser(DefaultUser)
	if err := u.Apply([]string{"on", "nopass", "allkeys", "allchannels", "allcommands"}); err != nil {
		panic(err)
	}
	return u
}

func newSelector() Selector { return Selector{allowed: newBitmap()} }

// Clone returns a copy that shares nothing with u.
func (u *User) Clone() *User {
	c := *u
	c.Passwords = slices.Clone(u.Passwords)
	c.Selectors = make([]Selector, len(u.Selectors))
	for i := range u.Selectors {
		c.Selectors[i] = u.Selectors[i].clone()
	}
	return &c
}

func (s *Selector) clone() Selector {
	c := *s
	c.Keys, c.Channels, c.allowed = slices.Clone(s.Keys), slices.Clone(s.Channels), slices.Clone(s.allowed)
	c.firstArgs = nil
	for id, words := range s.firstArgs {
		if c.firstArgs == nil {
			c.firstArgs = map[int][]string{}
		}
		c.firstArgs[id] = slices.Clone(words)
	}
	return c
}

// Full tells if the user may do everything, now and in later versions.
func (u *User) Full() bool {
	return slices.ContainsFunc(u.Selectors, func(s Selector) bool { return s.Full() })
}

// Full tells if the selector has no limit.
func (s *Selector) Full() bool {
	return s.AllKeys && s.AllChannels && s.future && s.allowed.all()
}

// Allows tells if a command may be run whatever its arguments.
func (s *Selector) Allows(id int) bool { return s.allowed.has(id) }

// FirstArgs are the first arguments that allow a command that is not allowed
// otherwise.
func (s *Selector) FirstArgs(id int) []string { return s.firstArgs[id] }

// Opens tells if a password is right, in constant time for each of the user's.
// A user that is off is not opened by any.
func (u *User) Opens(password []byte) bool {
	if !u.On {
		return false
	}
	if u.NoPass {
		return true
	}
	sum := sha256.Sum256(password)
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], sum[:])
	ok := 0
	for _, p := range u.Passwords {
		ok |= subtle.ConstantTimeCompare(text[:], []byte(p))
	}
	return ok == 1
}

// HashOf is the SHA-256 of a password in hex.
func HashOf(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}

// bitmap has one bit for each command.
type bitmap []uint64

func newBitmap() bitmap { return make(bitmap, (len(commands)+63)/64) }

func (b bitmap) has(id int) bool { return b[id/64]&(1<<(id%64)) != 0 }

func (b bitmap) set(id int, on bool) {
	if on {
		b[id/64] |= 1 << (id % 64)
	} else {
		b[id/64] &^= 1 << (id % 64)
	}
}

func (b bitmap) setAll(on bool) {
	for id := range commands {
		b.set(id, on)
	}
}

func (b bitmap) all() bool {
	for id := range commands {
		if !b.has(id) {
			return false
		}
	}
	return true
}

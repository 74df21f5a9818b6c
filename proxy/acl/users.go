package acl

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	rules "github.com/basalt-redis/basalt/internal/acl"
)

// User is one user. It never changes.
type User struct {
	// Rules are its rules; read-only.
	Rules *rules.User
	// Limits are what it may do; nil when that is everything.
	Limits *Limits
	// Created tells the user from one of the same name before it.
	Created uint64

	text string
	// understood: Rules are what text says.
	understood bool
}

// Text is a user as the topology brings it.
type Text struct {
	// Rules are those of rules.User.Text.
	Rules string
	// Created is User.Created.
	Created uint64
}

// Keeper is who keeps the users of a cluster: the Configserver. Both methods
// return when every proxy obeys; their errors are for clients to read, without
// "ERR".
type Keeper interface {
	// SetUser changes a user, or makes it, by modifiers that were merged and carry
	// no passwords (rules.Merge, rules.Hashed).
	SetUser(name string, modifiers []string) error
	// DeleteUsers tells how many of the users there were.
	DeleteUsers(names []string) (int, error)
}

// Name of the user.
func (u *User) Name() string { return u.Rules.Name }

// Describe is the user's line in ACL LIST behind "user <name> ".
func (u *User) Describe() string {
	if line, ok := rules.PlainRules(u.text); ok && u.understood {
		return line
	}
	return u.Rules.Describe()
}

// Users are all users of a cluster at one time. They never change.
type Users struct {
	// Default is the user of connections that did not authenticate.
	Default *User
	// Open: connections need not authenticate, the default user has no password.
	Open bool

	byName map[string]*User
	sorted []*User
}

// Find returns a user by its name, nil when there is none.
func (u *Users) Find(name []byte) *User { return u.byName[string(name)] }

// All returns the users by name. It is read-only.
func (u *Users) All() []*User { return u.sorted }

// Compile makes Users of texts (rules.User.Text). before, which may be nil, are
// those in force: users whose text did not change are taken over. The default
// user is made when it is not among the texts. The errors name users that
// cannot be understood; they are off.
func Compile(texts []Text, before *Users) (*Users, []error) {
	var errs []error
	users := &Users{byName: make(map[string]*User, len(texts)+1)}
	known := map[Text]*User{}
	if before != nil {
		for _, u := range before.sorted {
			known[Text{u.text, u.Created}] = u
		}
	}
	for _, text := range texts {
		if rules.NameOf(text.Rules) == rules.DefaultUser {
			text.Created = 0 // it is never deleted
		}
		u := known[text]
		if u == nil {
			r, err := rules.Parse(text.Rules)
			if err != nil {
				errs = append(errs, err)
				r = rules.NewUser(rules.NameOf(text.Rules))
			}
			u = newUser(r, text)
			u.understood = err == nil
		}
		users.byName[u.Name()] = u
	}
	if users.byName[rules.DefaultUser] == nil {
		r := rules.NewDefault()
		text := Text{Rules: r.Text()}
		u := known[text]
		if u == nil {
			u = newUser(r, text)
			u.understood = true
		}
		users.byName[rules.DefaultUser] = u
	}
	for _, u := range users.byName {
		users.sorted = append(users.sorted, u)
	}
	slices.SortFunc(users.sorted, func(a, b *User) int { return strings.Compare(a.Name(), b.Name()) })
	users.Default = users.byName[rules.DefaultUser]
	users.Open = users.Default.Rules.On && users.Default.Rules.NoPass
	return users, errs
}

// OnlyDefault are users of which there is one, the default user, with all
// rights and these passwords, or none.
func OnlyDefault(passwords [][sha256.Size]byte) *Users {
	u := rules.NewDefault()
	for _, sum := range passwords {
		if err := u.Apply([]string{"#" + hex.EncodeToString(sum[:])}); err != nil {
			panic(fmt.Sprintf("acl: %v", err)) // a sum in hex is always right
		}
	}
	users, _ := Compile([]Text{{Rules: u.Text()}}, nil)
	return users
}

func newUser(r *rules.User, text Text) *User {
	u := &User{Rules: r, text: text.Rules, Created: text.Created}
	if !r.Full() {
		u.Limits = newLimits(r, text.Rules)
	}
	return u
}

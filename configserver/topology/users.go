package topology

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/basalt-redis/basalt/internal/acl"
)

// User is whom applications may log in as at the proxies. Servers know what its
// scripts may do, and let nobody but proxies in by that (redisadmin.NodeUser).
type User struct {
	// Rules are the user's name and rules, with the SHA-256 of its passwords
	// (acl.User.Text).
	Rules string `json:"rules"`
	// Created is the epoch in which the user was created; 0 for the default user.
	Created uint64 `json:"created,omitempty"`
}

// Limits of the users of a cluster. All of them are in each record, which etcd
// takes up to 1.5 MiB.
const (
	// MaxUserBytes bounds the rules of all users together.
	MaxUserBytes = 256 << 10
	MaxUsers     = 4096
)

// SetUser changes a user by modifiers of ACL SETUSER, or makes it. passwords are
// the SHA-256 of those on file for the default user, as long as its own were
// never set. The error is an *acl.Error, an *InvalidError, or a
// *PreconditionError when there is no room.
func (c *Cluster) SetUser(name string, modifiers []string, passwords [][]byte) error {
	if !acl.ValidName(name) {
		return Invalidf("user", "names of users can't contain spaces or null characters")
	}
	for _, m := range modifiers {
		if strings.HasPrefix(m, ">") || strings.HasPrefix(m, "<") {
			return Invalidf("modifiers", "a password must be given as # or ! and its SHA-256, never as it is")
		}
	}
	var u *acl.User
	var err error
	at, known := c.findUser(name)
	switch {
	case name == acl.DefaultUser:
		u, err = c.defaultUser(passwords)
	case known:
		u, err = acl.Parse(c.Users[at].Rules)
	default:
		u = acl.NewUser(name)
	}
	if err == nil {
		err = u.Apply(modifiers)
	}
	if err != nil {
		return err
	}
	if name == acl.DefaultUser {
		if c.OwnPasswords = c.OwnPasswords || acl.SetsPasswords(modifiers); !c.OwnPasswords {
			// They are those of the file, whatever it says at the time.
			u.NoPass, u.Passwords = false, nil
		}
	}
	if known {
		c.Users[at].Rules = u.Text()
	} else {
		user := User{Rules: u.Text(), Created: c.Epoch}
		if name == acl.DefaultUser {
			user.Created = 0
		}
		c.Users = slices.Insert(c.Users, at, user)
	}
	return c.roomForUsers()
}

// DeleteUsers deletes users and tells how many there were. The default user
// becomes what it is at first.
func (c *Cluster) DeleteUsers(names []string) (deleted int) {
	for _, name := range names {
		if at, known := c.findUser(name); known {
			c.Users = slices.Delete(c.Users, at, at+1)
			deleted++
		}
		if name == acl.DefaultUser {
			c.OwnPasswords = false
		}
	}
	return deleted
}

// EffectiveUsers are the users as they are in force, by name, the default user
// among them. passwords are as in SetUser. Default users that cannot be read any
// more are left as they are: who gets them lets nobody in by them.
func (c *Cluster) EffectiveUsers(passwords [][]byte) []User {
	users := slices.Clone(c.Users)
	at, known := c.findUser(acl.DefaultUser)
	u, err := c.defaultUser(passwords)
	switch {
	case err != nil:
	case known:
		users[at].Rules = u.Text()
	default:
		users = slices.Insert(users, at, User{Rules: u.Text()})
	}
	return users
}

// DefaultPasswords are the SHA-256 of the default user's passwords; none when it
// needs none. For a user that nobody can log in as there is one that is nobody's.
func (c *Cluster) DefaultPasswords(passwords [][]byte) [][]byte {
	u, err := c.defaultUser(passwords)
	if err == nil && u.On && u.NoPass {
		return nil
	}
	sums := [][]byte{}
	if err == nil && u.On {
		for _, text := range u.Passwords {
			if sum, err := hex.DecodeString(text); err == nil {
				sums = append(sums, sum)
			}
		}
	}
	if len(sums) == 0 {
		sums = append(sums, make([]byte, 32))
	}
	return sums
}

// defaultUser is the default user as it is in force.
func (c *Cluster) defaultUser(passwords [][]byte) (*acl.User, error) {
	u := acl.NewDefault()
	if at, known := c.findUser(acl.DefaultUser); known {
		var err error
		if u, err = acl.Parse(c.Users[at].Rules); err != nil {
			return nil, err
		}
	}
	if c.OwnPasswords {
		return u, nil
	}
	set := []string{"nopass"}
	for _, sum := range passwords {
		set = append(set, "#"+hex.EncodeToString(sum))
	}
	return u, u.Apply(set)
}

// findUser is the place of a user among all, and whether it is there.
func (c *Cluster) findUser(name string) (int, bool) {
	return slices.BinarySearchFunc(c.Users, name, func(u User, name string) int { return strings.Compare(acl.NameOf(u.Rules), name) })
}

// roomForUsers says if there are too many, as Validate does.
func (c *Cluster) roomForUsers() error {
	n := 0
	for _, u := range c.Users {
		n += len(u.Rules)
	}
	if n > MaxUserBytes {
		return Preconditionf("the rules of all users of cluster %s would take %d bytes, at most %d are kept: delete users that are not needed, or name patterns and categories instead of single keys and commands", c.Name, n, MaxUserBytes)
	}
	if len(c.Users) > MaxUsers {
		return Preconditionf("cluster %s would have %d users, at most %d are kept: delete users that are not needed", c.Name, len(c.Users), MaxUsers)
	}
	return nil
}

func (c *Cluster) validateUsers() error {
	for i := 1; i < len(c.Users); i++ {
		if acl.NameOf(c.Users[i-1].Rules) >= acl.NameOf(c.Users[i].Rules) {
			return fmt.Errorf("cluster %s: user %d of %d does not come after the one before it", c.Name, i+1, len(c.Users))
		}
	}
	return c.roomForUsers()
}

// WithoutUsers is the record as it is kept as history: what a user's password
// once was must not be kept for ever, nor a thousand times.
func (c Cluster) WithoutUsers() Cluster {
	c.Users = nil
	return c
}

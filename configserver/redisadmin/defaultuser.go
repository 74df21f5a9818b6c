package redisadmin

import (
	"slices"
	"strings"
)

// DefaultUser is what a server's user named default may do.
//
// It must be off, or anybody could log in past every fence. And it must have all
// rights: a server loads its append-only file as this user, and of a transaction
// (and what a script wrote is one) it leaves out what the user may not do,
// without a word (redis/redis#14541). The rights of a user that is off are
// nobody's.
type DefaultUser struct {
	// On: anybody may log in without a name.
	On bool
	// Narrow: transactions in the append-only file are not loaded.
	Narrow bool
}

// DefaultUserOf reads the line of ACL LIST about the default user.
func DefaultUserOf(line string) DefaultUser {
	words := strings.Fields(line)
	narrower := func(word string) bool { return strings.HasPrefix(word, "-") }
	return DefaultUser{
		On:     slices.Contains(words, "on"),
		Narrow: !slices.Contains(words, "~*") || !slices.Contains(words, "+@all") || slices.ContainsFunc(words, narrower),
	}
}

// Problem says what is wrong with it and what to do, in words that follow the
// name of a node; "" when nothing is.
func (d DefaultUser) Problem() string {
	const mend = `: put "user default off ~* &* +@all" in its configuration and restart it`
	switch {
	case d.On:
		return "lets clients in without a name, so it cannot be fenced" + mend
	case d.Narrow:
		return "loses the transactions of its append-only file when it starts, as its user default has not all rights" + mend
	}
	return ""
}

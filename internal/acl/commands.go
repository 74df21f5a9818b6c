package acl

import (
	"slices"
	"strings"
)

// Command is one command or subcommand that rules can name.
type Command struct {
	// Name in lower case, "get" or "config|set".
	Name string
	// Categories has the bit 1<<i for Categories()[i].
	Categories uint32
	// Subcommands of a container are the commands [First, End).
	First, End int
	// Later: servers of the version that the table was made from do not have it.
	// It has no say in which text is the shortest.
	Later bool
}

// categories in the order in which Redis lists them.
var categories = []string{
	"keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo",
	"stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting",
}

// Categories are the names of all categories of commands, without "@". "all" is
// a rule, not a category.
func Categories() []string { return slices.Clone(categories) }

// Commands are all commands; the index of one is its ID, here and in the
// proxy's command table.
func Commands() []Command { return commands[:] }

// InCategory returns the names of a category's commands, by name, without Later
// ones; ok is false when there is no such category.
func InCategory(name string) (names []string, ok bool) {
	bit := categoryBit(name)
	if bit == 0 {
		return nil, false
	}
	for i := range commands {
		if commands[i].Categories&bit != 0 && !commands[i].Later {
			names = append(names, commands[i].Name)
		}
	}
	return names, true
}

func categoryBit(name string) uint32 {
	for i, c := range categories {
		if fold(c, name) {
			return 1 << i
		}
	}
	return 0
}

// lookup finds a command by its name in any case, "config|set" for a
// subcommand; -1 when there is none.
func lookup(name string) int {
	id, found := slices.BinarySearchFunc(commands[:], lower(name), func(c Command, name string) int { return strings.Compare(c.Name, name) })
	if !found {
		return -1
	}
	return id
}

// isSub tells if a command is a subcommand.
func isSub(id int) bool { return strings.IndexByte(commands[id].Name, '|') >= 0 }

// lower is ASCII lower case, as C's tolower.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] |= 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

// fold compares a lower case word with one in any case.
func fold(word, s string) bool { return len(word) == len(s) && word == lower(s) }

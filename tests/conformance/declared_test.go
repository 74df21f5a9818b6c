package conformance

import (
	"bytes"
	"strings"
)

// difference is a declared difference between the endpoint and a plain server.
type difference struct {
	// command and, where only some requests differ, a word of the request in
	// lower case, or how many words it has.
	command string
	word    string
	words   int
	// queued: only in a transaction.
	queued bool
	// reply begins the endpoint's reply, "" is any.
	reply string
	// harmless: the data are the same all the same, so the rest of a sequence is
	// still compared.
	harmless bool
	// why, for the table and the README.
	why string
	// seen counts how often the difference was seen.
	seen int
}

// matches tells if the difference explains a reply to a request, which was
// queued or not.
func (d *difference) matches(name string, args [][]byte, theirs reply) bool {
	if d.command != name || !bytes.HasPrefix(theirs.raw, []byte(d.reply)) || d.words != 0 && d.words != len(args) {
		return false
	}
	if d.word == "" {
		return true
	}
	for _, a := range args[1:] {
		if strings.EqualFold(string(a), d.word) {
			return true
		}
	}
	return false
}

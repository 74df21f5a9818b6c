// Package introspect writes what the proxy says about itself where a client
// expects a Redis server to speak: COMMAND, CONFIG and INFO.
package introspect

// description is what COMMAND says of one command, in RESP3 and without its
// subcommands.
type description struct {
	// docFields is the number of fields in docs.
	docFields int
	// info are the items of COMMAND INFO up to the subcommands; docs are keys and
	// values of COMMAND DOCS.
	info, docs string
}

package command

import "bytes"

// MayReplicate tells if a request may change data, or is passed on to replicas:
// what CLIENT PAUSE WRITE holds back. Of a script that is sent along, it reads
// the flags; of one that is called by its name or sum, it says what is true while
// nothing is known of its flags.
func (s *Spec) MayReplicate(args [][]byte) bool {
	switch s.Name {
	case "pfcount", "publish", "spublish":
		return true
	case "eval", "eval_ro":
		if len(args) > 1 {
			return s.ScriptMayReplicate(DeclaredBy(args[1]))
		}
	}
	return s.Write
}

// ScriptMayReplicate is MayReplicate for a command that runs a script of which
// this is declared. What a script declares counts for more than the command:
// EVAL_RO of one that declares that it writes is held back, too.
func (s *Spec) ScriptMayReplicate(d Declared) bool {
	if d == DeclaredNothing {
		return s.Write
	}
	return d == DeclaredWrites
}

// Declared is what a script or function says about itself by its flags.
type Declared uint8

// What there is to say.
const (
	// DeclaredNothing: it has no flags, or they are not well-formed, or it is not
	// known.
	DeclaredNothing Declared = iota
	// DeclaredWrites: it has flags, without no-writes.
	DeclaredWrites
	// DeclaredReads: it has the flag no-writes.
	DeclaredReads
)

// DeclaredBy reads the first line of a script: "#!lua flags=no-writes,allow-oom".
// A line that a server refuses declares nothing.
func DeclaredBy(script []byte) Declared {
	line, _, ended := bytes.Cut(script, []byte{'\n'})
	if !ended || !bytes.HasPrefix(line, []byte("#!lua")) {
		return DeclaredNothing
	}
	d := DeclaredWrites
	first := true
	for word := range bytes.FieldsSeq(line) {
		if first {
			if first = false; string(word) != "#!lua" {
				return DeclaredNothing
			}
			continue
		}
		flags, is := bytes.CutPrefix(word, []byte("flags="))
		if !is {
			return DeclaredNothing
		}
		if len(flags) == 0 {
			continue
		}
		for flag := range bytes.SplitSeq(flags, []byte{','}) {
			switch string(flag) {
			case "no-writes":
				d = DeclaredReads
			case "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys":
			default:
				return DeclaredNothing
			}
		}
	}
	return d
}

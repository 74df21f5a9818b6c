package command

import "bytes"

// MayReplicate tells if a request may change data, or is passed on to replicas:
// what CLIENT PAUSE WRITE holds back. Of a script that is sent along, it reads
// the flags; one that is called by its name or sum may do anything.
func (s *Spec) MayReplicate(args [][]byte) bool {
	switch s.Name {
	case "pfcount", "publish", "spublish":
		return true
	case "eval":
		return len(args) < 2 || !noWrites(args[1])
	}
	return s.Write
}

// noWrites tells if the first line of a script has the flag no-writes:
// "#!lua flags=no-writes,allow-oom".
func noWrites(script []byte) bool {
	line, _, _ := bytes.Cut(script, []byte{'\n'})
	if !bytes.HasPrefix(line, []byte("#!")) {
		return false
	}
	for word := range bytes.FieldsSeq(line) {
		flags, is := bytes.CutPrefix(word, []byte("flags="))
		if !is {
			continue
		}
		for flag := range bytes.SplitSeq(flags, []byte{','}) {
			if string(flag) == "no-writes" {
				return true
			}
		}
	}
	return false
}

package fanout

// ReadingFunctions reads replies to FUNCTION LIST: every function, and whether all
// shards that have it say that it does not write. A shard that did not answer
// tells nothing; when none did, the error is ErrReply.
func ReadingFunctions(parts [][]byte) (map[string]bool, error) {
	reads := map[string]bool{}
	answered := false
	for _, part := range parts {
		libraries, err := list(part)
		if err != nil {
			continue
		}
		answered = true
		for _, library := range libraries {
			for _, function := range library.field("functions").items {
				name, pure := string(function.field("name").text), false
				for _, flag := range function.field("flags").items {
					pure = pure || string(flag.text) == "no-writes"
				}
				before, known := reads[name]
				reads[name] = pure && (before || !known)
			}
		}
	}
	if !answered {
		return nil, ErrReply
	}
	return reads, nil
}

// field is a value of a map by its key; the zero value when there is none.
func (v value) field(key string) value {
	for i := 0; i+1 < len(v.items); i += 2 {
		if string(v.items[i].text) == key {
			return v.items[i+1]
		}
	}
	return value{}
}

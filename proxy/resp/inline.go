package resp

import "strconv"

// splitInline splits a line as Redis does (sdssplitargs): blanks separate, "…" knows \n \r \t
// \b \a \xHH and \", '…' knows \'. Plain words are parts of the line; quoted
// ones are copies. redcon's own splitter does not know \xHH and reads a
// leading '$' as another protocol.
func splitInline(line []byte, dst [][]byte) ([][]byte, error) {
	for i := 0; ; {
		for i < len(line) && blank(line[i]) {
			i++
		}
		if i == len(line) {
			return dst, nil
		}
		start := i
		for i < len(line) && !ends(line[i]) && line[i] != '"' && line[i] != '\'' {
			i++
		}
		if i == len(line) || ends(line[i]) {
			dst = append(dst, line[start:i:i])
			continue
		}
		word, next, ok := unquote(append([]byte(nil), line[start:i]...), line, i)
		if !ok {
			return dst, errQuotes
		}
		dst, i = append(dst, word), next
	}
}

// unquote appends the rest of a word, from its first quote at line[i].
func unquote(word, line []byte, i int) (_ []byte, next int, ok bool) {
	for i < len(line) && !ends(line[i]) {
		quote := line[i]
		if quote != '"' && quote != '\'' {
			word = append(word, quote)
			i++
			continue
		}
		for i++; ; i++ {
			if i >= len(line) {
				return nil, 0, false
			}
			c := line[i]
			if c == quote {
				i++
				break
			}
			if c == '\\' && i+1 < len(line) && (quote == '"' || line[i+1] == '\'') {
				var n int
				c, n = unescape(line[i+1:], quote)
				i += n
			}
			word = append(word, c)
		}
		// A closing quote must end the word.
		return word, i, i == len(line) || blank(line[i])
	}
	return word, i, true
}

// unescape reads what follows a backslash, and how many bytes that is.
func unescape(b []byte, quote byte) (c byte, n int) {
	if quote == '"' && b[0] == 'x' && len(b) >= 3 {
		if v, err := strconv.ParseUint(string(b[1:3]), 16, 8); err == nil {
			return byte(v), 3
		}
	}
	if quote == '"' {
		switch b[0] {
		case 'n':
			return '\n', 1
		case 'r':
			return '\r', 1
		case 't':
			return '\t', 1
		case 'b':
			return '\b', 1
		case 'a':
			return '\a', 1
		}
	}
	return b[0], 1
}

// blank tells if a byte is skipped before a word.
func blank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' || c == 0 }

// ends tells if a byte ends a word without quotes: \v and \f, which are skipped
// before it, are part of it.
func ends(c byte) bool { return blank(c) && c != '\v' && c != '\f' }

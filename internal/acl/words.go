package acl

// splitArgs splits a text into words as Redis does with configuration lines:
// words may stand in "…" with escapes or in '…'. ok is false when a quote is
// not closed, or not followed by a space; there are no words then.
func splitArgs(text string) (words []string, ok bool) {
	for i := 0; ; {
		for i < len(text) && isSpace(text[i]) {
			i++
		}
		if i >= len(text) || text[i] == 0 {
			return words, true
		}
		word, next, ok := splitOne(text, i)
		if !ok {
			return nil, false
		}
		words, i = append(words, word), next
	}
}

// splitOne reads the word that begins at i; next is the index behind it.
func splitOne(text string, i int) (word string, next int, ok bool) {
	at := func(i int) byte { // like C's text, it ends with a NUL
		if i < len(text) {
			return text[i]
		}
		return 0
	}
	var w []byte
	quote := byte(0)
	for ; ; i++ {
		c := at(i)
		switch {
		case quote == 0 && (c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == 0):
			return string(w), i, true
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0:
			w = append(w, c)
		case c == 0:
			return "", 0, false
		case c == quote:
			if next := at(i + 1); next != 0 && !isSpace(next) {
				return "", 0, false
			}
			return string(w), i + 1, true
		case quote == '\'' && c == '\\' && at(i+1) == '\'':
			w = append(w, '\'')
			i++
		case quote == '"' && c == '\\' && at(i+1) == 'x' && hexDigit(at(i+2)) >= 0 && hexDigit(at(i+3)) >= 0:
			w = append(w, byte(hexDigit(at(i+2))<<4|hexDigit(at(i+3))))
			i += 3
		case quote == '"' && c == '\\' && at(i+1) != 0:
			i++
			w = append(w, unescape(at(i)))
		default:
			w = append(w, c)
		}
	}
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

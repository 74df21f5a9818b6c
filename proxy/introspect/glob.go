package introspect

// glob matches text against one of Redis's patterns, in any case: * ? [a-z]
// [^a-z] and \ before a character that stands for itself. Only the last * is
// ever tried again, so the time is at most the product of the lengths.
func glob(pattern, text string) bool {
	p, t := 0, 0
	star, retry := -1, 0 // pattern after the last *, and where it goes on in text
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, retry = p, t
			continue
		}
		if next, ok := globOne(pattern, p, text[t]); ok {
			p, t = next, t+1
			continue
		}
		if star < 0 {
			return false
		}
		retry++
		p, t = star, retry
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// globOne matches one character against the pattern at p; next is the pattern
// behind what matched.
func globOne(pattern string, p int, c byte) (next int, ok bool) {
	if p >= len(pattern) {
		return 0, false
	}
	c = lower(c)
	switch pattern[p] {
	case '?':
		return p + 1, true
	case '[':
		return globClass(pattern, p+1, c)
	case '\\':
		if p+1 < len(pattern) {
			p++
		}
	}
	return p + 1, lower(pattern[p]) == c
}

// globClass matches a class that begins behind its bracket. A missing ] closes
// it at the end of the pattern, as in Redis.
func globClass(pattern string, p int, c byte) (next int, ok bool) {
	not := p < len(pattern) && pattern[p] == '^'
	if not {
		p++
	}
	for ; p < len(pattern) && pattern[p] != ']'; p++ {
		switch {
		case pattern[p] == '\\' && p+1 < len(pattern):
			p++
			ok = ok || lower(pattern[p]) == c
		case p+2 < len(pattern) && pattern[p+1] == '-':
			low, high := lower(pattern[p]), lower(pattern[p+2])
			ok = ok || min(low, high) <= c && c <= max(low, high)
			p += 2
		default:
			ok = ok || lower(pattern[p]) == c
		}
	}
	return min(p+1, len(pattern)), ok != not
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}

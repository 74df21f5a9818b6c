// Package glob matches names against Redis's patterns.
package glob

// Fold matches without regard to the case of letters, as in the names of
// parameters and commands.
func Fold(pattern, text string) bool { return match(pattern, text, lower) }

// Match matches byte by byte, as in the names of keys and channels.
func Match(pattern, text string) bool { return match(pattern, text, same) }

// match matches text against a pattern: * ? [a-z] [^a-z] and \ before a
// character that stands for itself. Only the last * is ever tried again, so the
// time is at most the product of the lengths. Nothing but the empty pattern
// matches an empty text, not even *: so it is in Redis.
func match(pattern, text string, fold func(byte) byte) bool {
	if text == "" {
		return pattern == ""
	}
	p, t := 0, 0
	star, retry := -1, 0 // pattern after the last *, and where it goes on in text
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, retry = p, t
			continue
		}
		if next, ok := matchOne(pattern, p, text[t], fold); ok {
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

// matchOne matches one character against the pattern at p; next is the pattern
// behind what matched.
func matchOne(pattern string, p int, c byte, fold func(byte) byte) (next int, ok bool) {
	if p >= len(pattern) {
		return 0, false
	}
	c = fold(c)
	switch pattern[p] {
	case '?':
		return p + 1, true
	case '[':
		return matchClass(pattern, p+1, c, fold)
	case '\\':
		if p+1 < len(pattern) {
			p++
		}
	}
	return p + 1, fold(pattern[p]) == c
}

// matchClass matches a class that begins behind its bracket. A missing ] closes
// it at the end of the pattern, as in Redis.
func matchClass(pattern string, p int, c byte, fold func(byte) byte) (next int, ok bool) {
	not := p < len(pattern) && pattern[p] == '^'
	if not {
		p++
	}
	for ; p < len(pattern) && pattern[p] != ']'; p++ {
		switch {
		case pattern[p] == '\\' && p+1 < len(pattern):
			p++
			ok = ok || fold(pattern[p]) == c
		case p+2 < len(pattern) && pattern[p+1] == '-':
			low, high := fold(pattern[p]), fold(pattern[p+2])
			ok = ok || min(low, high) <= c && c <= max(low, high)
			p += 2
		default:
			ok = ok || fold(pattern[p]) == c
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

func same(c byte) byte { return c }

// EqualFold compares without regard to the case of ASCII letters.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

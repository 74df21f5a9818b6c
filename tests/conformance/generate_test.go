package conformance

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

//go:embed testdata/grammar.txt
var grammarText string

// form is one line of the grammar.
type form struct {
	name   string // of the command, in lower case
	tokens []string
	random bool // deletes its key at once
	many   bool // names more than one key
}

// splits are the commands whose keys may lie in several slots.
var splits = words("mget mset del unlink exists touch")

func isSplit(name string) bool {
	return slices.ContainsFunc(splits, func(s []byte) bool { return string(s) == name })
}

// grammar reads the forms.
func grammar() (forms []form, err error) {
	for line := range strings.Lines(grammarText) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := form{}
		line, f.random = strings.CutPrefix(line, "random ")
		c, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		keys := 0
		braces := 0
		for _, w := range c.words {
			f.tokens = append(f.tokens, w.text)
			switch {
			case w.text == "{":
				braces++
			case w.text == "}":
				braces--
			case w.text[0] == '<' && (w.text[1] == 'n' || braces > 0):
				keys += 2
			case w.text[0] == '<':
				keys++
			}
		}
		f.name = strings.ToLower(f.tokens[0])
		f.many = keys > 1 && !isSplit(f.name)
		forms = append(forms, f)
	}
	return forms, nil
}

// generator makes sequences from a seed.
type generator struct {
	*rand.Rand
	forms []form
	multi bool // transactions are not missing
}

// sequence makes one of n steps. Keys that are spread need commands of one key.
func (g *generator) sequence(n int, tagged bool) (seq []command) {
	inMulti := 0
	for range n {
		f := g.forms[g.IntN(len(g.forms))]
		if f.many && !tagged {
			continue
		}
		c := g.command(f)
		if g.IntN(20) == 0 {
			c = g.spoil(c, tagged)
		}
		switch {
		case inMulti == 1:
			end := "EXEC"
			if g.IntN(4) == 0 {
				end = "DISCARD"
			}
			seq = append(seq, command{words: []word{{text: end}}})
			inMulti = 0
		case inMulti > 1:
			inMulti--
		case g.multi && tagged && g.IntN(12) == 0:
			seq = append(seq, command{words: []word{{text: "MULTI"}}})
			inMulti = 2 + g.IntN(4)
		}
		seq = append(seq, c)
		if f.random {
			for _, k := range c.keys() {
				seq = append(seq, command{words: []word{{text: "DEL"}, {k, true}}})
			}
		}
	}
	if inMulti > 0 {
		seq = append(seq, command{words: []word{{text: "EXEC"}}})
	}
	return seq
}

// spoil makes a request wrong in one place; keys stay.
func (g *generator) spoil(c command, tagged bool) command {
	at := 1 + g.IntN(max(1, len(c.words)-1))
	if at >= len(c.words) || c.words[at].key {
		return c
	}
	// What decides how long a command waits, or which keys are keys, stays.
	if name := c.words[0].text; name[0] == 'B' && name != "BITOP" || !tagged && strings.HasPrefix(name, "EVAL") {
		return c
	}
	switch g.IntN(4) {
	case 0:
		return c.with(at)
	case 1:
		return c.with(at, word{text: g.pick("", "abc", "-1", "99999999999999999999", "1.5", "nan", "\x00")})
	case 2:
		return c.with(at, c.words[at], word{text: g.pick("BOGUS", "1", "COUNT", "LIMIT")})
	default:
		c.words = append(slices.Clone(c.words), word{text: "extra"})
		return c
	}
}

func (g *generator) pick(of ...string) string { return of[g.IntN(len(of))] }

func (g *generator) command(f form) command {
	rest := f.tokens
	return command{words: g.expand(&rest, "", true)}
}

// expand makes words of tokens up to a closing one. Tokens of parts that are
// left out are passed over.
func (g *generator) expand(rest *[]string, closing string, use bool) (out []word) {
	for len(*rest) > 0 {
		token := (*rest)[0]
		*rest = (*rest)[1:]
		switch token {
		case closing:
			return out
		case "[":
			part := g.expand(rest, "]", use)
			if use && g.IntN(2) == 0 {
				out = append(out, part...)
			}
		case "{":
			body := *rest
			out = append(out, g.expand(rest, "}", use)...)
			for range g.IntN(3) {
				again := body
				out = append(out, g.expand(&again, "}", use)...)
			}
		case "(":
			var choices [][]word
			for {
				choice, more := g.choice(rest)
				choices = append(choices, choice)
				if !more {
					break
				}
			}
			out = append(out, choices[g.IntN(len(choices))]...)
		default:
			out = append(out, g.token(token)...)
		}
	}
	return out
}

// choice expands up to "|" (more is true) or ")".
func (g *generator) choice(rest *[]string) (out []word, more bool) {
	depth := 0
	for i, token := range *rest {
		switch token {
		case "(":
			depth++
		case ")":
			depth--
		}
		if depth < 0 || depth == 0 && token == "|" {
			part := (*rest)[:i:i]
			*rest = (*rest)[i+1:]
			return g.expand(&part, "", true), depth == 0
		}
	}
	return nil, false
}

// limits are numbers near which things go wrong.
var limits = strings.Fields("0 1 -1 2147483647 -2147483648 4294967296 9223372036854775807 -9223372036854775808 9007199254740993 10 100 007 1e3 3.0")

// keysOf is how many keys of each type there are.
const keysOf = 3

// token makes the words of one token.
func (g *generator) token(token string) []word {
	if token[0] == '<' {
		kind := token[1 : len(token)-1]
		if kind[0] == 'n' && len(kind) == 2 {
			n := 1 + g.IntN(3)
			out := []word{{text: strconv.Itoa(n)}}
			for range n {
				out = append(out, g.key(kind[1:]))
			}
			return out
		}
		return []word{g.key(kind)}
	}
	one := func(text string) []word { return []word{{text: text}} }
	switch token {
	case "v":
		return one(g.value())
	case "n":
		return one(g.number())
	case "i":
		return one(strconv.Itoa(g.IntN(14) - 5))
	case "c":
		return one(strconv.Itoa(g.IntN(12)))
	case "f":
		return one(g.pick("0", "1", "-1", "2.5", "0.1", "1e10", "-3.75", "inf", "-inf", "1e-7", "3", "4", "17"))
	case "m", "F":
		return one(g.pick("a", "b", "c", "d", "e", "1", "2", "3", "", "\x00\xff", "long-member-name-"+strconv.Itoa(g.IntN(20))))
	case "ttl":
		return one(g.pick("1000", "5000", "100000", "-1", "0", "9223372036854775807", "2000", "3000"))
	case "bit":
		return one(g.pick("0", "1", "0", "1", "2"))
	case "type":
		return one(g.pick("u8", "i8", "u4", "i5", "u63", "i64", "u1", "u64", "i65"))
	case "id":
		return one(g.pick("0", "1-1", "2-1", "3-2", "5", "7-7", "(2-1", "10-0"))
	case "newid":
		return one(fmt.Sprintf("%d-%s", 1+g.IntN(30), g.pick("1", "2", "*", "3")))
	case "grp":
		return one(g.pick("g1", "g1", "g2"))
	case "con":
		return one(g.pick("c1", "c1", "c2"))
	case "sb":
		return one(g.pick("-inf", "+inf", "0", "1", "(1", "(3", "2.5", "10", "abc"))
	case "lb":
		return one(g.pick("-", "+", "[a", "(b", "[c", "(d", "[1", "x"))
	case "pat":
		return one(g.pick("*", "a*", "?", "[ab]", "*1*", "{t}*", "nothing", "s*"))
	case "lon":
		return one(g.pick("13.361389", "15.087269", "0", "-74.0060", "179.9", "181"))
	case "lat":
		return one(g.pick("38.115556", "37.502669", "0", "40.7128", "85", "86"))
	}
	return one(token)
}

func (g *generator) number() string {
	if g.IntN(3) > 0 {
		return strconv.Itoa(g.IntN(200) - 50)
	}
	return limits[g.IntN(len(limits))]
}

func (g *generator) value() string {
	switch g.IntN(12) {
	case 0:
		return ""
	case 1, 2:
		return g.number()
	case 3:
		b := make([]byte, g.IntN(40))
		for i := range b {
			b[i] = byte(g.IntN(256))
		}
		return string(b)
	case 4:
		size := []int{64, 65, 500, 4000, 20_000, 66_000}[g.IntN(6)]
		return strings.Repeat(string(rune('a'+g.IntN(26))), size)
	}
	return g.pick("hello", "world", "foo", "bar", "a", "b", "\r\n", "value with spaces")
}

// key is one of a type, sometimes of another one.
func (g *generator) key(kind string) word {
	if kind == "any" || g.IntN(25) == 0 {
		kind = g.pick("s", "l", "h", "S", "i", "z", "x", "g", "p")
	}
	return word{kind + strconv.Itoa(g.IntN(keysOf)), true}
}

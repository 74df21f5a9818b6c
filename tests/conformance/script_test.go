package conformance

import (
	"bufio"
	"embed"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// The language of testdata/cases: a sequence is a paragraph, a line is a
// command, words are quoted as redis-cli quotes them. Beyond that
//
//	# text          is a comment,
//	@name           is a key: {t}name when all keys are in one hash tag, name
//	                when they are spread; so are patterns of keys,
//	~70000          is an argument of so many bytes,
//	2: COMMAND      goes to a second connection,
//	& COMMAND       is answered later: the sequence goes on meanwhile,
//	! COMMAND       goes to the endpoint only, which must refuse it: it would
//	                end the plain server, or its part in the test,
//	once            as the first line: nothing else is made of the sequence.

//go:embed testdata/cases/*.txt
var caseFiles embed.FS

// word is one argument of a command.
type word struct {
	text string
	key  bool
}

// command is one line of a sequence.
type command struct {
	words   []word
	second  bool
	later   bool
	refused bool
}

// sequence is a run of commands from an empty database.
type sequence struct {
	name     string
	commands []command
	once     bool
}

// args of the command on the wire.
func (c command) args(tagged bool) [][]byte {
	args := make([][]byte, len(c.words))
	for i, w := range c.words {
		args[i] = []byte(w.text)
		if w.key && tagged {
			args[i] = []byte("{t}" + w.text)
		}
	}
	return args
}

// line is the command as redis-cli takes it.
func (c command) line(tagged bool) string {
	var b strings.Builder
	for i, a := range c.args(tagged) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(quote(string(a)))
	}
	return b.String()
}

// keys are the different keys among the words.
func (c command) keys() (keys []string) {
	seen := map[string]bool{}
	for _, w := range c.words {
		if w.key && !seen[w.text] {
			seen[w.text] = true
			keys = append(keys, w.text)
		}
	}
	return keys
}

// with is the command with one word replaced, without when nothing replaces it.
func (c command) with(i int, replacement ...word) command {
	words := append([]word(nil), c.words[:i]...)
	words = append(words, replacement...)
	c.words = append(words, c.words[min(i+1, len(c.words)):]...)
	return c
}

// quote writes a word so that redis-cli and parse read it as it is.
func quote(s string) string {
	plain := s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'\\#@~&!", r) })
	if plain {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// parse reads one line.
func parse(line string) (command, error) {
	var c command
	for {
		switch {
		case strings.HasPrefix(line, "2: "):
			c.second, line = true, line[3:]
			continue
		case strings.HasPrefix(line, "& "):
			c.later, line = true, line[2:]
			continue
		case strings.HasPrefix(line, "! "):
			c.refused, line = true, line[2:]
			continue
		}
		break
	}
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		if line[0] == '"' {
			text, rest, err := unquote(line[1:])
			if err != nil {
				return c, err
			}
			c.words, line = append(c.words, word{text: text}), rest
			continue
		}
		text, rest, _ := strings.Cut(line, " ")
		line = rest
		switch {
		case text[0] == '@':
			c.words = append(c.words, word{text[1:], true})
		case text[0] == '~' && len(text) > 1:
			n, err := strconv.Atoi(text[1:])
			if err != nil {
				return c, err
			}
			c.words = append(c.words, word{text: strings.Repeat("x", n)})
		default:
			c.words = append(c.words, word{text: text})
		}
	}
	if len(c.words) == 0 {
		return c, fmt.Errorf("no command: %q", line)
	}
	return c, nil
}

// unquote reads a word behind its opening quote.
func unquote(s string) (text, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], nil
		case '\\':
			i++
			if i == len(s) {
				return "", "", fmt.Errorf("nothing behind a backslash: %q", s)
			}
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case 'x':
				n, err := strconv.ParseUint(s[i+1:min(i+3, len(s))], 16, 8)
				if err != nil {
					return "", "", err
				}
				b.WriteByte(byte(n))
				i += 2
			default:
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", fmt.Errorf("no closing quote: %q", s)
}

// cases reads the hand-written sequences.
func cases() (all []sequence, err error) {
	files, err := caseFiles.ReadDir("testdata/cases")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := caseFiles.ReadFile(path.Join("testdata/cases", f.Name()))
		if err != nil {
			return nil, err
		}
		var open *sequence
		number := 0
		lines := bufio.NewScanner(strings.NewReader(string(text)))
		for lines.Scan() {
			number++
			line := strings.TrimSpace(lines.Text())
			switch {
			case line == "":
				open = nil
				continue
			case line[0] == '#':
				continue
			}
			if open == nil {
				all = append(all, sequence{name: fmt.Sprintf("%s:%d", f.Name(), number)})
				open = &all[len(all)-1]
			}
			if line == "once" {
				open.once = true
				continue
			}
			c, err := parse(line)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", f.Name(), number, err)
			}
			open.commands = append(open.commands, c)
		}
	}
	return all, nil
}

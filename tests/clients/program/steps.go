package program

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Steps runs the commands of each section of the steps file as one feature of
// that name. Do sends one command and returns what its client made of the reply;
// an error that is not the server's makes lost true.
func Steps(r *Report, file string, do func(words []string) (value any, lost bool, err error)) {
	text, err := os.Open(file)
	if err != nil {
		r.Check("steps", func(*Seen) error { return err })
		return
	}
	defer text.Close()
	var name string
	var lines [][]string
	run := func() {
		if name == "" {
			return
		}
		r.Check(name, func(s *Seen) error {
			for _, words := range lines {
				value, lost, err := do(words)
				if lost {
					return fmt.Errorf("%s: %w", strings.Join(words, " "), err)
				}
				s.Add(strings.Join(words, " ")+":", value, err)
			}
			if len(lines) == 0 {
				return errors.New("the section is empty")
			}
			return nil
		})
	}
	in := bufio.NewScanner(text)
	for in.Scan() {
		line := strings.TrimSpace(in.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			run()
			name, lines = strings.Trim(line, "[]"), nil
		default:
			lines = append(lines, strings.Fields(line))
		}
	}
	run()
}

// Args are the words of a command as the clients take them that encode arguments
// of any type.
func Args(words []string) []any {
	args := make([]any, len(words))
	for i, w := range words {
		args[i] = w
	}
	return args
}

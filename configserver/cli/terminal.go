package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// confirm asks a person to go on. Where nobody can be asked it is a mistake in the
// command line that --yes is not there.
func (a *app) confirm(what string) error {
	if !isTerminal(a.in) || !isTerminal(a.err) {
		return usagef("%s; say --yes if that is meant", what)
	}
	fmt.Fprintf(a.err, "%s.\nGo on? [y/N] ", what)
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer == "y" || answer == "yes" {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return errors.New("nothing was done")
}

// isTerminal tells whether a person looks at w, or types there.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

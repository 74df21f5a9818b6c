// Package program is what the Go programs of tests/clients share: how they are
// called, how they report, and the loop that goes on while servers die.
//
// A program is called as
//
//	PROGRAM features HOST PORT STEPS
//	PROGRAM failover HOST PORT
//
// with the password in REDIS_PASSWORD. It prints one line per feature:
//
//	ok NAME WHAT IT SAW
//	FAIL NAME WHAT WENT WRONG
//	none NAME WHY THE CLIENT CANNOT
//
// What it saw must not depend on the moment: the same program is run against a
// plain server, and its lines must be the same there. Lines that begin with # are
// for people. The programs in other languages do the same in their words.
package program

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// Call is how the program was called.
type Call struct {
	// Addr is "host:port".
	Addr, Password string
	// Steps is the file of commands that Steps runs.
	Steps string
}

// Report prints what becomes of each feature.
type Report struct {
	failed bool
}

// Check runs one feature; what it returns is printed.
func (r *Report) Check(name string, feature func(s *Seen) error) {
	s := &Seen{}
	err := feature(s)
	if err != nil {
		r.failed = true
		fmt.Printf("FAIL %s %s\n", name, oneLine(fmt.Sprintf("%v, after: %s", err, strings.Join(s.parts, " | "))))
		return
	}
	fmt.Printf("ok %s %s\n", name, oneLine(strings.Join(s.parts, " | ")))
}

// None says why the client cannot do a feature.
func (r *Report) None(name, why string) { fmt.Printf("none %s %s\n", name, why) }

// Seen collects what a feature showed.
type Seen struct {
	parts []string
}

// Add adds what one step showed: its error, or its value.
func (s *Seen) Add(what string, value any, err error) {
	if err != nil {
		value = "error " + err.Error()
	}
	s.parts = append(s.parts, fmt.Sprintf("%s %v", what, value))
}

// Want is an error unless a value is the expected one.
func Want(what string, got, want any) error {
	if a, b := fmt.Sprint(got), fmt.Sprint(want); a != b {
		return fmt.Errorf("%s: got %.200s, want %.200s", what, a, b)
	}
	return nil
}

// Later does something while the program waits for what comes of it: most likely
// the server waits by then, too.
func Later(what func()) {
	go func() {
		time.Sleep(150 * time.Millisecond)
		what()
	}()
}

func oneLine(s string) string {
	return strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(s)
}

// Main runs a program and ends it with status 1 if a feature failed.
func Main(features func(Call, *Report), subject func(Call) (Subject, error)) {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: program features HOST PORT STEPS, or program failover HOST PORT")
		os.Exit(2)
	}
	call := Call{Addr: net.JoinHostPort(os.Args[2], os.Args[3]), Password: os.Getenv("REDIS_PASSWORD")}
	if len(os.Args) > 4 {
		call.Steps = os.Args[4]
	}
	r := &Report{}
	switch os.Args[1] {
	case "features":
		features(call, r)
	case "failover":
		r.Check("failover", func(*Seen) error {
			s, err := subject(call)
			if err != nil {
				return err
			}
			return failover(s)
		})
	default:
		fmt.Fprintln(os.Stderr, "the first word is features or failover")
		os.Exit(2)
	}
	if r.failed {
		os.Exit(1)
	}
}

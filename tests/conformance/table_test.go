package conformance

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// table prints what became of every command, and fails for declarations that
// nothing showed.
func (r *runner) table() {
	r.t.Helper()
	for name, d := range r.missing {
		switch {
		case r.specs[name] == nil:
			r.t.Errorf("%s is declared missing, but the server has no such command", name)
		case d.seen == 0:
			r.t.Errorf("%s is declared missing, and is not any more: strike it off", name)
		}
	}
	reasons := map[string][]string{}
	for _, d := range r.differences {
		if d.seen == 0 {
			r.t.Errorf("a declared difference was not seen, strike it off: %s %s %q: %s", d.command, d.word, d.reply, d.why)
		}
		reasons[d.command] = append(reasons[d.command], d.why)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	count := map[string]int{}
	for _, name := range r.names() {
		s := r.specs[name]
		class, why := "same", ""
		switch {
		case r.missing[name] != nil:
			class, why = "refused", r.missing[name].why
			if !refusedIn(readme, name) {
				class = "missing" // TestRefusalsAreDocumented fails
			}
		case r.allMissing(s):
			class, why = "refused", "with all of its subcommands"
		case len(reasons[name]) > 0:
			class, why = "difference", strings.Join(reasons[name], "; ")
		case s.calls == 0:
			class = "untested"
			r.t.Errorf("%s: never compared", name)
		}
		count[class]++
		fmt.Fprintf(&b, "%-28s %-10s %7d  %s\n", name, class, s.calls, why)
	}
	fmt.Fprintf(&b, "%d commands and subcommands: %d same, %d documented difference, %d documented refusal, %d missing, %d untested\n",
		len(r.specs), count["same"], count["difference"], count["refused"], count["missing"], count["untested"])
	fmt.Println(b.String())
}

// TestRefusalsAreDocumented: the README names every command that is refused.
func TestRefusalsAreDocumented(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range missing() {
		if !refusedIn(readme, d.command) {
			t.Errorf("%s is refused, and the README's table of refused commands does not say so", d.command)
		}
	}
	if refusedIn(readme, "get") {
		t.Error("the README seems to say that GET is refused")
	}
}

// refusedIn tells if the README's table of refused commands names a command.
func refusedIn(readme []byte, name string) bool {
	title := strings.ToUpper(strings.ReplaceAll(name, "|", " "))
	for line := range strings.Lines(string(readme)) {
		if cells := strings.Split(line, "|"); len(cells) == 4 {
			for command := range strings.SplitSeq(cells[1], ",") {
				if strings.TrimSpace(command) == title {
					return true
				}
			}
		}
	}
	return false
}

// allMissing tells of a container that has no subcommand which is not missing.
func (r *runner) allMissing(container *spec) bool {
	if !container.container {
		return false
	}
	for name := range r.specs {
		if strings.HasPrefix(name, container.name+"|") && r.missing[name] == nil {
			return false
		}
	}
	return true
}

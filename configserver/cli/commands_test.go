package cli

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Whoever reads an alert or an error at night types what it names. So every
// command line in the documentation, in the alerts and between backquotes in the
// messages of the Configserver must parse.
func TestCommandsThatTextsNameParse(t *testing.T) {
	const root = "../.."
	paths := []string{
		"README.md", "configserver/DESIGN.md", "deploy/alerts/basalt.rules.yaml",
		"configserver/failover/explain.go", "configserver/failover/problems.go", "configserver/health/identity.go",
	}
	mustName := slices.Clone(paths)
	paths = append(paths, "CONTRIBUTING.md")
	for _, dir := range []string{"configserver", "proxy", "internal", "proto"} {
		paths = append(paths, sources(t, root, dir)...)
	}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		lines := commandLines(string(text))
		if len(lines) == 0 && slices.Contains(mustName, path) {
			t.Errorf("%s: no command line was found; if none should be there, take it out of this test", path)
		}
		for _, line := range lines {
			if err := parses(line); err != nil {
				t.Errorf("%s: `basaltctl %s`: %v", path, line, err)
			}
		}
	}
}

// The table of the README names commands without the program, and those of one
// group after each other.
func TestCommandsOfTheTableExist(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| command | |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if !strings.Contains(table, "`") {
		t.Fatal("the README has no table of commands")
	}
	for _, row := range strings.Split(table, "\n") {
		group := ""
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			line := strings.NewReplacer("[", "", "]", "").Replace(name[1])
			if err := parses(line); err != nil {
				line = strings.TrimSpace(group + " " + line)
			}
			if err := parses(line); err != nil {
				t.Errorf("README: `%s`: %v", name[1], err)
			}
			if words := strings.Fields(line); group == "" {
				group = strings.Join(words[:len(words)-1], " ")
			}
		}
	}
}

// What is wrong must be found, or the tests above find nothing.
func TestCommandsThatDoNotParse(t *testing.T) {
	for line, why := range map[string]string{
		"diverged show":                      "unknown command",
		"failover CLUSTER SHARD NODE":        "usage:",
		"failover CLUSTER … --accept-losses": "unknown flag",
		"node mark CLUSTER NODE --shard x":   "unknown flag",
		"cluster update --prefer":            "needs an argument",
	} {
		if err := parses(line); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("`basaltctl %s`: %v, want %q", line, err, why)
		}
	}
}

// sources are the Go files below a folder that may hold messages.
func sources(t *testing.T, root, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			path, err = filepath.Rel(root, path)
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

var (
	quoted = regexp.MustCompile("`(?:bin/)?basaltctl ([^`\n]+)`")
	typed  = regexp.MustCompile(`(?m)^(?:bin/)?basaltctl ([^#\n]+)`)
	filled = regexp.MustCompile(`\{\{[^}]*\}\}|%\[?[0-9]*\]?[svqd]`)
)

// commandLines finds the arguments of the program in a text: between backquotes, or
// on lines of their own. What is filled in later stands for one word.
func commandLines(text string) (lines []string) {
	for _, pattern := range []*regexp.Regexp{quoted, typed} {
		for _, found := range pattern.FindAllStringSubmatch(text, -1) {
			lines = append(lines, strings.TrimSpace(filled.ReplaceAllString(found[1], "x")))
		}
	}
	return lines
}

// parses tells why a command line would not be run. One that names the command
// alone, or leaves arguments out with "…", need not have all of them.
func parses(line string) error {
	args := strings.Fields(line)
	whole := !slices.Contains(args, "…")
	args = slices.DeleteFunc(args, func(arg string) bool { return arg == "…" })
	a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	root := a.root()
	root.InitDefaultHelpCmd()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return err
	}
	rest = cmd.Flags().Args()
	if whole && len(rest) > 0 || !cmd.Runnable() || cmd.HasSubCommands() {
		return cmd.ValidateArgs(rest)
	}
	return nil
}

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// programs are built from these packages of the workspace.
var programs = []string{"./configserver/cmd/configserver", "./configserver/cmd/basaltctl", "./proxy/cmd/proxy"}

var built struct {
	once sync.Once
	dir  string
	temp bool
	err  error
}

// Binary returns the path of a built program: "configserver", "proxy" or
// "basaltctl". They come from $BASALT_BIN, or are built once for the test
// binary into a directory that Main removes.
func Binary(t testing.TB, name string) string {
	t.Helper()
	built.once.Do(func() { built.dir, built.err = build() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	path := filepath.Join(built.dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; build it with `make build` or unset BASALT_BIN", err)
	}
	return path
}

func build() (string, error) {
	if dir := os.Getenv("BASALT_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	root, err := workspace()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "basalt-bin-")
	if err != nil {
		return "", err
	}
	built.temp = true
	cmd := exec.Command("go", append([]string{"build", "-o", dir + string(filepath.Separator)}, programs...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
}

// workspace is the nearest directory above with a go.work.
func workspace() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.work above the tests: run them inside the repository, or set BASALT_BIN")
		}
		dir = parent
	}
}

// Main runs the tests of a package and removes the programs built for them. Use
// it as the body of TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if built.temp {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

package embedded

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// fullEnv names the folder of an etcd whose disk becomes full.
const fullEnv = "BASALT_TEST_FULL_DISK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(fullEnv); dir != "" {
		fmt.Fprintln(os.Stderr, "went on: ", runOnAFullDisk(dir))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// runOnAFullDisk runs etcd, and lets every write to its files meet a full disk once it
// serves.
func runOnAFullDisk(dir string) error {
	s, err := Start(context.Background(), Config{Dir: dir, Fatal: func(err error) { fmt.Fprintln(os.Stderr, "fatal:", err) }})
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := client.Put(ctx, "k", "v"); err != nil { // what etcd writes when it starts is written then
		return err
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, f := range files {
		var fd int
		path, err := os.Readlink(filepath.Join("/proc/self/fd", f.Name()))
		if _, bad := fmt.Sscan(f.Name(), &fd); bad != nil || err != nil || !strings.HasPrefix(path, dir) || strings.HasSuffix(path, "lock") {
			continue
		}
		if strings.HasSuffix(path, ".wal") || strings.HasSuffix(path, logFile) {
			if err := syscall.Dup3(int(full.Fd()), fd, syscall.O_CLOEXEC); err != nil {
				return err
			}
		}
	}
	_, err = client.Put(ctx, "k", strings.Repeat("v", 1<<20))
	return err
}

// A full disk ends the process with a line that says so; etcd's own log is on that disk.
func TestAFullDiskIsSaid(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fullEnv+"="+dir)
	out, err := child.CombinedOutput()
	if child.ProcessState.ExitCode() != 1 {
		t.Fatalf("%v:\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "fatal: the embedded etcd in "+dir+" cannot go on") || !strings.Contains(lines[0], "no space left on device") {
		t.Errorf("it said:\n%s", out)
	}
}

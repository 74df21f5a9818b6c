package size

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// used is what a process has used since it began.
type used struct {
	cpu time.Duration
	// reads and writes are system calls; wakes, how often one of its threads slept
	// and went on.
	reads, writes, wakes int
}

func (u used) since(before used) used {
	return used{u.cpu - before.cpu, u.reads - before.reads, u.writes - before.writes, u.wakes - before.wakes}
}

func (u used) String() string {
	return fmt.Sprintf("%v of CPU, %d reads, %d writes, %d wake-ups", u.cpu, u.reads, u.writes, u.wakes)
}

// tick is the unit of /proc/PID/stat on every machine that Linux runs on.
const tick = 10 * time.Millisecond

func (c *configserver) used(t *testing.T) (u used) {
	t.Helper()
	proc := func(file string) string {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.pid), file))
		if err != nil {
			t.Fatalf("the configserver is gone: %v", err)
		}
		return string(text)
	}
	stat := proc("stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	for _, field := range fields[14-3 : 16-3] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		u.cpu += time.Duration(n) * tick
	}
	u.reads, u.writes = number(proc("io"), "syscr:"), number(proc("io"), "syscw:")
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(c.pid), "task"))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		u.wakes += number(proc(filepath.Join("task", task.Name(), "status")), "voluntary_ctxt_switches:")
	}
	return u
}

// number is the value of a line "name value".
func number(text, name string) int {
	for line := range strings.Lines(text) {
		if value, is := strings.CutPrefix(line, name); is {
			n, _ := strconv.Atoi(strings.TrimSpace(value))
			return n
		}
	}
	return 0
}

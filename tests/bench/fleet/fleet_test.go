package fleet

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestCPUTimeCountsWork(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const work = 30 * time.Millisecond
	for begin := time.Now(); time.Since(begin) < work; {
		_ = strings.Repeat("x", 1000)
	}
	after, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used <= 0 || used > 20*work {
		t.Errorf("%v of work used %v of CPU time", work, used)
	}
	if _, err := CPUTime(1 << 22); err == nil {
		t.Error("a process that does not exist has a CPU time")
	}
}

func TestMachineCPULeavesOutIdleTime(t *testing.T) {
	got, err := parseMachineCPU([]byte("cpu  100 10 50 99999 7777 1 2 3 0 0\ncpu0 1 2 3\n"))
	if want := 166 * 10 * time.Millisecond; err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := parseMachineCPU([]byte("intr 1 2\n")); err == nil {
		t.Error("a text without a cpu line was read")
	}
}

func TestPeers(t *testing.T) {
	self := os.Getpid()
	targets, err := Peers("predixy=7617:" + strconv.Itoa(self) + ", codis=19000:" + strconv.Itoa(self))
	if err != nil || len(targets) != 2 || targets[1].Name != "codis" || targets[1].Addr.Port() != 19000 || targets[0].PIDs[0] != self {
		t.Errorf("got %+v, %v", targets, err)
	}
	if targets, err := Peers(""); err != nil || len(targets) != 0 {
		t.Errorf("no peers gave %+v, %v", targets, err)
	}
	for _, bad := range []string{"x", "x=1", "x=1:y", "=1:1", "x=70000:1", "x=1:4194304"} {
		if _, err := Peers(bad); err == nil {
			t.Errorf("%q was taken for a peer", bad)
		}
	}
}

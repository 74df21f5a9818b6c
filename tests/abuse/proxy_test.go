package abuse

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// proxy is the process under abuse.
type proxy struct {
	addr string
	pid  int
	born uint64 // start time in clock ticks since boot: a pid can be reused
}

// start runs a cluster whose proxy has the given flags.
func start(t testing.TB, flags ...string) (*harness.Cluster, *proxy) {
	t.Helper()
	o := harness.Options{Replicas: -1}
	for _, flag := range flags {
		o.Flags = append(o.Flags, "--proxy-flag="+flag)
	}
	c := harness.Start(t, o)
	p := &proxy{addr: c.Proxies[0], pid: c.Process(t, "proxy-0").PID}
	p.born = p.birth(t)
	return c, p
}

func (p *proxy) read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, file))
	if err != nil {
		t.Fatalf("the proxy (pid %d) is gone: %v", p.pid, err)
	}
	return string(text)
}

func (p *proxy) birth(t testing.TB) uint64 {
	t.Helper()
	stat := p.read(t, "stat")
	// The name in parentheses may hold blanks; starttime is field 22.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	n, err := strconv.ParseUint(fields[22-3], 10, 64)
	if err != nil {
		t.Fatalf("/proc/%d/stat: %v", p.pid, err)
	}
	return n
}

// requireAlive fails the test when the process is not the one it was.
func (p *proxy) requireAlive(t testing.TB) {
	t.Helper()
	if syscall.Kill(p.pid, 0) != nil {
		t.Fatalf("the proxy (pid %d) died", p.pid)
	}
	if b := p.birth(t); b != p.born {
		t.Fatalf("pid %d was started again", p.pid)
	}
	conn, err := consistency.Dial(t.Context(), p.addr, "", "")
	if err != nil {
		t.Fatalf("the proxy takes no connection any more: %v", err)
	}
	defer conn.Close()
	conn.Timeout = 10 * time.Second
	if r, err := conn.Do("PING"); err != nil || !bytes.Equal(r.Text, []byte("PONG")) {
		t.Fatalf("the proxy answers PING with %+v, %v", r, err)
	}
}

// status is a line of /proc/PID/status in bytes.
func (p *proxy) status(t testing.TB, name string) int64 {
	t.Helper()
	for line := range strings.Lines(p.read(t, "status")) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatalf("/proc/%d/status: %v", p.pid, err)
			}
			return kib << 10
		}
	}
	t.Fatalf("/proc/%d/status has no %s", p.pid, name)
	return 0
}

// rss is the resident memory now, peak the most it ever was; in bytes.
func (p *proxy) rss(t testing.TB) int64  { t.Helper(); return p.status(t, "VmRSS") }
func (p *proxy) peak(t testing.TB) int64 { t.Helper(); return p.status(t, "VmHWM") }

// resetPeak makes peak count from now on.
func (p *proxy) resetPeak(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0); err != nil {
		t.Logf("the peak counts from the start of the proxy: %v", err)
	}
}

// files is how many file descriptors the process has open.
func (p *proxy) files(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// secretFile holds a secret that only its owner may read.
func secretFile(t testing.TB, secret string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

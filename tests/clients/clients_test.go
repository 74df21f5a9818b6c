package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// features of one run of a program, and failover, which is a run of its own.
var features = []string{
	"connect", "pipelines", "transactions", "pubsub", "blocking", "scripts", "functions", "scan", "values",
	"client", "acl", "tracking", "types", "databases", "errors", "config",
}

const failover = "failover"

// patience bounds one run of a program.
const patience = 40 * time.Second

// TestClients runs every program on the endpoint and on a plain server, and then
// all of them while servers are killed.
func TestClients(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster := harness.Start(t, harness.Options{Proxies: 2, Flags: []string{"--client-password-file", secret}})
	plain := harness.StartRedis(t)
	admin, err := consistency.Dial(t.Context(), plain.Address, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if r, err := admin.Do("CONFIG", "SET", "requirepass", password); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	all := programs(dir)
	for _, c := range all {
		if c.build == nil {
			continue
		}
		if out, err := exec.Command(c.build[0], c.build[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s`make test-clients` installs what is missing", strings.Join(c.build, " "), err, out)
		}
	}
	b := &table{}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) { compare(t, c, b, cluster.Proxies[0], plain.Address) })
	}
	t.Run("redis-cli", func(t *testing.T) { tools(t, cluster.Proxies[0], plain.Address) })
	t.Run("redis-benchmark", func(t *testing.T) { benchmark(t, cluster.Proxies[1], plain.Address) })
	t.Run("socket.io", func(t *testing.T) { socketIO(t, cluster.Proxies, plain.Address) })
	t.Run(failover, func(t *testing.T) { survive(t, all, b, cluster) })
	t.Logf("clients and what they did as on a plain server:\n%s", b.print(append(features, failover)))
}

// compare runs a program on both sides at once.
func compare(t *testing.T, c client, b *table, endpoint, plain string) {
	begin := time.Now()
	var runs [2]*program
	for i, addr := range []string{endpoint, plain} {
		host, port := hostPort(t, addr)
		runs[i] = start(t, patience, append(c.command, "features", host, port, steps)...)
		_ = runs[i].stdin.Close()
	}
	var found [2]map[string]verdict
	for i, side := range []string{"the endpoint", "a plain server"} {
		ended := <-runs[i].ended
		var err error
		if found[i], err = verdicts(runs[i].output.String(), features); err != nil {
			t.Errorf("on %s: %v (ended: %v); its output:\n%s", side, err, ended, runs[i].output)
		}
	}
	for _, f := range features {
		here, there := found[0][f], found[1][f]
		state := here.state
		switch {
		case there.state == "FAIL":
			t.Errorf("%s fails on a plain server: %s", f, there.seen)
			state = "FAIL"
		case here.state == "FAIL":
			t.Errorf("%s: %s", f, here.seen)
		case here != there:
			t.Errorf("%s is not the same on the endpoint and on a plain server:\n%s", f, difference(here.seen, there.seen, " | "))
			state = "differs"
		}
		b.set(c.name, f, state)
	}
	t.Logf("%s took %s", c.name, time.Since(begin).Round(100*time.Millisecond))
}

// difference shows the parts of two texts that are not the same, and not more than
// a dozen of them.
func difference(here, there, separator string) string {
	a, b := strings.Split(here, separator), strings.Split(there, separator)
	var s strings.Builder
	shown := 0
	for i := 0; i < max(len(a), len(b)) && shown < 12; i++ {
		x, y := "nothing", "nothing"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			shown++
			fmt.Fprintf(&s, "  endpoint: %s\n  server:   %s\n", x, y)
		}
	}
	return s.String()
}

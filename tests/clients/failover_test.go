package clients

import (
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/harness"
)

// survive runs all programs at once on one proxy and kills, one after another, a
// master, another master and the proxy. Every program must come back with the
// client that it has.
func survive(t *testing.T, all []client, b *table, cluster *harness.Cluster) {
	host, port := hostPort(t, cluster.Proxies[0])
	runs := map[string]*program{}
	for _, c := range all {
		runs[c.name] = start(t, 90*time.Second, append(c.command, failover, host, port)...)
	}
	for name, p := range runs {
		harness.Eventually(t, 20*time.Second, name+" is ready", func() error {
			if strings.Contains(p.output.String(), "# ready\n") {
				return nil
			}
			return &notReady{p.output.String()}
		})
	}
	time.Sleep(time.Second)
	for i := range 2 {
		master := cluster.Master(t, i).GetId()
		cluster.Kill(t, master)
		harness.Eventually(t, 15*time.Second, "another master", func() error {
			if now := cluster.Master(t, i); now == nil || now.GetId() == master {
				return &notReady{"the shard has no other master yet"}
			}
			return nil
		})
		time.Sleep(time.Second)
		cluster.StartProcess(t, master)
		cluster.WaitHealthy(t, 30*time.Second)
	}
	cluster.Kill(t, "proxy-0")
	time.Sleep(500 * time.Millisecond)
	cluster.StartProcess(t, "proxy-0")
	cluster.WaitHealthy(t, 30*time.Second)
	time.Sleep(time.Second)
	for _, p := range runs {
		_, _ = p.stdin.Write([]byte("stop\n"))
	}
	for _, c := range all {
		p := runs[c.name]
		ended := <-p.ended
		found, err := verdicts(p.output.String(), []string{failover})
		state := found[failover].state
		if err != nil || ended != nil || state != "ok" {
			t.Errorf("%s: %v %v: %s\nits output:\n%s", c.name, err, ended, found[failover].seen, p.output)
			state = "FAIL"
		}
		for line := range strings.Lines(p.output.String()) {
			if about, ok := strings.CutPrefix(line, "# failover: "); ok {
				t.Logf("%-10s %s", c.name, strings.TrimSpace(about))
			}
		}
		b.set(c.name, failover, state)
	}
	cluster.RequireInvariants(t)
}

type notReady struct{ why string }

func (n *notReady) Error() string { return n.why }

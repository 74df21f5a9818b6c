package failover

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/harness"
)

// look fetches a page of a process.
func look(t *testing.T, c *harness.Cluster, process, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + c.Process(t, process).HTTPAddress + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// exitCode of a command of basaltctl.
func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// A shard whose nodes are all dead is said to serve nobody wherever somebody may look,
// and to serve again when they are back.
func TestAShardThatServesNobodyIsSaidTo(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 2, Disk: harness.AppendOnly})
	expect := func(serves bool) {
		t.Helper()
		word, value, code := "NOT SERVING: shard-0 (slots 0-8191)", "0", 2
		if serves {
			word, value, code = "cluster "+c.Name+" is serving", "1", 0
		}
		harness.Eventually(t, 30*time.Second, fmt.Sprintf("the status says %q and ends with %d", word, code), func() error {
			out, err := c.TryCLI("cluster", "status", c.Name)
			if exitCode(err) != code || !strings.Contains(out, word) || !serves && !strings.Contains(out, "start what is missing") {
				return fmt.Errorf("exit status %d: %s", exitCode(err), out)
			}
			return nil
		})
		if out := c.CLI(t, "cluster", "list"); strings.Contains(out, "NOT SERVING shard-0") == serves {
			t.Errorf("cluster list: %s", out)
		}
		if out := c.CLI(t, "topology", "show", c.Name); strings.Contains(out, "NOT SERVING: shard-0 (slots 0-8191) since ") == serves {
			t.Errorf("topology show: %s", out)
		}
		for _, process := range []string{"configserver-0", "proxy-0"} {
			if status, body := look(t, c, process, "/readyz"); status != http.StatusOK || strings.Contains(body, "NOT SERVING: shard-0") == serves {
				t.Errorf("/readyz of %s: %d %s", process, status, body)
			}
		}
		harness.Eventually(t, 5*time.Second, "the metrics", func() error {
			_, body := look(t, c, "configserver-0", "/metrics")
			for _, sample := range []string{
				fmt.Sprintf("basalt_configserver_shard_serving{cluster=%q,shard=\"shard-0\"} %s\n", c.Name, value),
				fmt.Sprintf("basalt_configserver_shard_serving{cluster=%q,shard=\"shard-1\"} 1\n", c.Name),
				fmt.Sprintf("basalt_configserver_cluster_serving{cluster=%q} %s\n", c.Name, value),
			} {
				if !strings.Contains(body, sample) {
					return fmt.Errorf("no %s", sample)
				}
			}
			return nil
		})
	}
	expect(true)
	last := c.LastEvent(t)
	c.Kill(t, "shard-0-1")
	c.Kill(t, "shard-0-0")
	expect(false)
	time.Sleep(2 * time.Second) // it is not said again and again
	for _, node := range []string{"shard-0-0", "shard-0-1"} {
		c.StartProcess(t, node)
	}
	expect(true)
	c.WaitHealthy(t, 30*time.Second)
	kinds := map[string]int{}
	harness.Eventually(t, 10*time.Second, "its end is told", func() error {
		clear(kinds)
		for _, e := range c.EventsAfter(t, last) {
			kinds[e.GetKind()]++
		}
		if kinds["ShardNotServing"] != 1 || kinds["ShardServing"] != 1 {
			return fmt.Errorf("events %v", kinds)
		}
		return nil
	})
	log, err := os.ReadFile(filepath.Join(c.DataDir, "logs", "configserver-0.log"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, `"level":"ERROR"`) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], "NOT SERVING: shard-0 (slots 0-8191)") {
		t.Errorf("%d lines of level ERROR, want one:\n%s", len(lines), strings.Join(lines, ""))
	}
}

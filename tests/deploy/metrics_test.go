// Package deploy checks what deploy/ says about running processes.
package deploy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/consistency"
	"github.com/basalt-redis/basalt/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	alerts    = "../../deploy/alerts/basalt.rules.yaml"
	dashboard = "../../deploy/dashboards/basalt.json"
)

// seldom are counters of what does not happen to a healthy cluster; they have no
// value until it does.
var seldom = []string{"basalt_configserver_own_pause_seconds_total"}

// TestMetricsExist: every metric that an alert or the dashboard names, and
// every label it selects by, is exported.
func TestMetricsExist(t *testing.T) {
	c := harness.Start(t, harness.Options{Shards: 1})
	conn, err := consistency.Dial(t.Context(), c.Proxies[0], "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if r, err := conn.Do("SET", "a", "b"); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	if _, err := c.Switchover(t.Context(), "shard-0"); err != nil {
		t.Fatal(err)
	}
	used := map[string][]string{}
	for _, file := range []string{alerts, dashboard} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// Quotes within JSON strings.
		collect(used, strings.ReplaceAll(string(text), `\"`, `"`))
	}
	if len(used) < 20 {
		t.Fatalf("only %d metrics were found in %s and %s", len(used), alerts, dashboard)
	}
	for _, name := range seldom {
		delete(used, name)
	}
	harness.Eventually(t, 10*time.Second, "all metrics are exported", func() error {
		exported := map[string]string{}
		for _, kind := range []string{"configserver", "proxy"} {
			for _, p := range c.Processes(t, kind) {
				scrape(t, exported, p.HTTPAddress)
			}
		}
		return missing(used, exported)
	})
}

var (
	metric   = regexp.MustCompile(`\b(basalt_[a-z_]+)(\{[^}]*\})?`)
	selector = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
)

// collect finds metrics and the labels in their selectors.
func collect(used map[string][]string, text string) {
	for _, m := range metric.FindAllStringSubmatch(text, -1) {
		labels := used[m[1]]
		for _, l := range selector.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(labels, l[1]) {
				labels = append(labels, l[1])
			}
		}
		used[m[1]] = labels
	}
}

// scrape adds one sample line of each metric of a process.
func scrape(t *testing.T, exported map[string]string, addr string) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s/metrics: %s, %v", addr, resp.Status, err)
	}
	for line := range strings.Lines(string(text)) {
		if m := metric.FindStringSubmatch(line); m != nil && !strings.HasPrefix(line, "#") {
			exported[m[1]] = m[2]
		}
	}
}

func missing(used map[string][]string, exported map[string]string) error {
	for name, labels := range used {
		have, ok := exported[name]
		if !ok {
			return fmt.Errorf("%s is not exported", name)
		}
		for _, label := range labels {
			if !strings.Contains(have, "{"+label+"=") && !strings.Contains(have, ","+label+"=") {
				return fmt.Errorf("%s has no label %s but %s", name, label, have)
			}
		}
	}
	return nil
}

// TestDashboardIsWhole: it is JSON, and no two panels share an id.
func TestDashboardIsWhole(t *testing.T) {
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID      int    `json:"id"`
			Title   string `json:"title"`
			Type    string `json:"type"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range d.Panels {
		if seen[p.ID] || p.Title == "" || (p.Type != "row" && len(p.Targets) == 0) {
			t.Errorf("panel %d, %q: its id is taken, or it shows nothing", p.ID, p.Title)
		}
		seen[p.ID] = true
	}
}

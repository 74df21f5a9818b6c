package conformance

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/tests/harness"
)

// info reads INFO everything: sections of fields.
func info(t *testing.T, w *wire) (fields map[string]map[string]string) {
	t.Helper()
	p, err := w.do(words("INFO everything"))
	if err != nil {
		t.Fatal(err)
	}
	fields = map[string]map[string]string{}
	section := ""
	for line := range strings.SplitSeq(string(p.text), "\r\n") {
		if title, is := strings.CutPrefix(line, "# "); is {
			section = title
			fields[section] = map[string]string{}
		} else if name, value, is := strings.Cut(line, ":"); is {
			fields[section][name] = value
		}
	}
	return fields
}

// moved does what moves the counters of INFO, and returns those of them whose values must
// be the same, and the names of all fields by section. Its connections stay open meanwhile.
func moved(t *testing.T, addr string) (values map[string]string, names map[string][]string) {
	t.Helper()
	connect := func() *wire {
		w, err := dial(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.close)
		return w
	}
	c := connect()
	for _, line := range strings.Split("FLUSHALL|CONFIG RESETSTAT|NOSUCH a|GET|AUTH nobody x|SET iv x|INCR iv|LPUSH iv 1|EVALSHA ffffffffffffffffffffffffffffffffffffffff 0|"+
		"GET iv|GET iv|GET gone|SET exp 1 PX 1|EXEC|MULTI|GET|EXEC|MULTI|INCR iv|EXEC|CLIENT NOSUCH|CLIENT KILL|BLPOP iv 0|OBJECT FREQ iv|SELECT 99", "|") {
		if _, err := c.do(words(line)); err != nil {
			t.Fatal(line, err)
		}
	}
	time.Sleep(50 * time.Millisecond) // until exp expired
	if _, err := c.do(words("GET exp")); err != nil {
		t.Fatal(err)
	}
	for _, lines := range []string{"BLPOP none 0", "BLPOP none 100", "XREAD BLOCK 100000 STREAMS none 0", "SUBSCRIBE a", "PSUBSCRIBE a*", "HELLO 3|CLIENT TRACKING ON|GET iv"} {
		w := connect()
		for line := range strings.SplitSeq(lines, "|") {
			w.write(appendRequest(nil, words(line)))
		}
	}
	var all map[string]map[string]string
	harness.Eventually(t, 10*time.Second, addr+": the others wait, listen and track", func() error {
		all = info(t, c)
		is := func(section, name string) string { return all[section][name] }
		if is("Clients", "blocked_clients") != "3" || is("Stats", "pubsub_channels") != "1" || is("Stats", "pubsub_patterns") != "1" || is("Stats", "tracking_total_keys") != "1" {
			return fmt.Errorf("blocked %s, channels %s, patterns %s, tracked %s", is("Clients", "blocked_clients"),
				is("Stats", "pubsub_channels"), is("Stats", "pubsub_patterns"), is("Stats", "tracking_total_keys"))
		}
		return nil
	})
	names = map[string][]string{}
	for section, fields := range all {
		names[section] = slices.Sorted(maps.Keys(fields))
	}
	values = all["Errorstats"]
	for _, name := range strings.Fields("blocked_clients tracking_clients clients_in_timeout_table") {
		values[name] = all["Clients"][name]
	}
	for _, name := range strings.Fields("keyspace_hits keyspace_misses expired_keys total_error_replies total_connections_received") {
		values[name] = all["Stats"][name]
	}
	usec := regexp.MustCompile(`usec=\d+,usec_per_call=[\d.]+,`)
	for _, name := range strings.Fields("get set incr lpush auth evalsha exec multi client|kill blpop object|freq select") {
		values["cmdstat_"+name] = usec.ReplaceAllString(all["Commandstats"]["cmdstat_"+name], "")
	}
	return values, names
}

// TestInfo: INFO has every field of a plain server's, and its counters move as there.
func TestInfo(t *testing.T) {
	c := harness.Start(t, harness.Options{Replicas: -1})
	want, all := moved(t, harness.StartRedis(t).Address)
	got, have := moved(t, c.Proxies[0])
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s is %q, of a plain server %q", name, got[name], want[name])
		}
	}
	for section, names := range all {
		for _, name := range names {
			if section != "Latencystats" && section != "Commandstats" && !slices.Contains(have[section], name) {
				t.Errorf("section %s lacks %s", section, name)
			}
		}
	}
}

// TestMonitorShowsWhatWasSent: a time limit is shown as the client wrote it.
func TestMonitorShowsWhatWasSent(t *testing.T) {
	c := harness.Start(t, harness.Options{Replicas: -1})
	monitor, err := dial(c.Proxies[0])
	if err != nil {
		t.Fatal(err)
	}
	defer monitor.close()
	if p, err := monitor.do(words("MONITOR")); err != nil || string(p.raw) != "+OK\r\n" {
		t.Fatalf("MONITOR: %s, %v", p, err)
	}
	for i := range 20 {
		// Each is the first of its connection, and some open one to the server.
		line := fmt.Sprintf("BLPOP none:%d 0.01", i)
		w, err := dial(c.Proxies[0])
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		if _, err := w.do(words(line)); err != nil {
			t.Fatal(err)
		}
		_ = monitor.net.SetReadDeadline(time.Now().Add(patience))
		p, err := read(monitor.r)
		if want := fmt.Sprintf(`"BLPOP" "none:%d" "0.01"`, i); err != nil || !strings.HasSuffix(strings.TrimSpace(string(p.raw)), want) {
			t.Errorf("%s, %v; want it to end with %s", p, err, want)
		}
	}
}

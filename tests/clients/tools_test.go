package clients

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// tool is one call of redis-cli.
type tool struct {
	name string
	args []string
	// input is what it reads.
	input string
	// keep picks what must be the same on both sides; nil keeps all.
	keep func(output string) string
	// endless: it is stopped after a while, and ends by itself otherwise.
	endless bool
}

// matching keeps the lines that match a pattern.
func matching(pattern string) func(string) string {
	re := regexp.MustCompile(pattern)
	return func(output string) string {
		var kept strings.Builder
		for line := range strings.Lines(output) {
			if re.MatchString(line) {
				kept.WriteString(strings.TrimRight(line, "\r\n") + "\n")
			}
		}
		return kept.String()
	}
}

// sorted keeps all lines, in order.
func sorted(output string) string {
	some := strings.Split(strings.TrimSpace(output), "\n")
	slices.Sort(some)
	return strings.Join(some, "\n")
}

// numbers replaces every number, of what cannot be the same twice.
func numbers(output string) string {
	return regexp.MustCompile(`[0-9]+(\.[0-9]+)?`).ReplaceAllString(output, "N")
}

func massInsertion(n int) string {
	var s strings.Builder
	for i := range n {
		key := fmt.Sprintf("cli:%d", i)
		fmt.Fprintf(&s, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$5\r\nvalue\r\n", len(key), key)
	}
	return s.String()
}

var redisCLI = []tool{
	{name: "command line", args: []string{"FLUSHALL"}},
	{name: "--pipe", args: []string{"--pipe"}, input: massInsertion(5000), keep: matching("errors")},
	{name: "--pipe with errors", args: []string{"--pipe"}, input: "SET cli:1 value\r\nNOSUCH x\r\nLPUSH cli:1 x\r\n", keep: matching("ERR|WRONGTYPE|errors")},
	{name: "standard input", input: "HSET cli:hash a 1 b 2\nSADD cli:set 1 2 3\nZADD cli:sorted 1.5 a\nRPUSH cli:list 1 2 3 4 5\nXADD cli:stream 1-1 a b\n" +
		"SELECT 3\nSET elsewhere x\nDBSIZE\nSELECT 0\nDBSIZE\nMULTI\nSET cli:1 longest-of-the-strings-by-far\nGET cli:1\nEXEC\nNOSUCH\n"},
	{name: "RESP3", args: []string{"-3", "HGETALL", "cli:hash"}},
	{name: "RESP3 double", args: []string{"-3", "ZSCORE", "cli:sorted", "a"}},
	{name: "--json", args: []string{"-3", "--json", "XRANGE", "cli:stream", "-", "+"}},
	{name: "--csv", args: []string{"--csv", "LRANGE", "cli:list", "0", "-1"}},
	{name: "-n", args: []string{"-n", "3", "GET", "elsewhere"}},
	{name: "-x", args: []string{"-x", "SET", "cli:input"}, input: "from the standard input"},
	{name: "-e", args: []string{"-e", "LPUSH", "cli:1", "x"}},
	{name: "--user", args: []string{"--user", "default", "--pass", password, "--no-auth-warning", "ACL", "WHOAMI"}},
	{name: "-r", args: []string{"-r", "20", "INCR", "cli:counter"}},
	{name: "--eval", args: []string{"--eval", "testdata/script.lua", "cli:1", "{cli:1}:missing", ",", "an argument"}},
	{name: "--eval of one key", args: []string{"--eval", "testdata/script.lua", "cli:1", ",", "an argument"}},
	{name: "--scan", args: []string{"--scan", "--pattern", "cli:*9*", "--count", "50"}, keep: sorted},
	{name: "--scan of all", args: []string{"--scan"}, keep: sorted},
	{name: "--scan --quoted-pattern", args: []string{"--scan", "--quoted-pattern", `"cli:\x6cist"`}},
	{name: "--bigkeys", args: []string{"--bigkeys"}, keep: matching("^Sampled|^Total|^Biggest|^[0-9]+ .*with [0-9]+ (bytes|items|fields|members|entries)")},
	{name: "--memkeys", args: []string{"--memkeys"}, keep: matching("^Sampled|^Total|^Biggest")},
	{name: "--hotkeys", args: []string{"--hotkeys"}, keep: matching("ERR")},
	{name: "--latency", args: []string{"--latency", "-i", "1"}, keep: numbers},
	{name: "--latency-history", args: []string{"--latency-history", "-i", "1"}, keep: func(s string) string { return numbers(s[:strings.Index(s+"\n", "\n")]) }, endless: true},
	{name: "--stat", args: []string{"--stat", "-i", "0.2"}, keep: func(s string) string {
		// The header, and of each row the number of keys.
		return matching("^keys|^------")(s) + strings.Join(slices.Compact(regexp.MustCompile(`(?m)^[0-9]+ `).FindAllString(s, 3)), "")
	}, endless: true},
	{name: "subscribe", args: []string{"SUBSCRIBE", "cli:news"}, keep: matching("subscribe|cli:news|integer"), endless: true},
	{name: "--help of commands", args: []string{"CONFIG", "HELP"}, keep: func(s string) string { return s[:strings.Index(s+"\n", "\n")] }},
	{name: "-u", args: []string{"CLIENT", "NO-EVICT", "on"}},
}

// tools compares what redis-cli says on both sides.
func tools(t *testing.T, endpoint, plain string) {
	for _, c := range redisCLI {
		t.Run(c.name, func(t *testing.T) {
			var said [2]string
			for i, addr := range []string{endpoint, plain} {
				said[i] = c.run(t, addr)
			}
			if said[0] != said[1] {
				t.Errorf("redis-cli %s: lines that are not the same:\n%s", strings.Join(c.args, " "), difference(said[0], said[1], "\n"))
			}
		})
	}
}

func (c tool) run(t *testing.T, addr string) string {
	host, port := hostPort(t, addr)
	p := start(t, 15*time.Second, append([]string{"redis-cli", "-h", host, "-p", port}, c.args...)...)
	go func() {
		_, _ = p.stdin.Write([]byte(c.input))
		_ = p.stdin.Close()
	}()
	status := "ended"
	if c.endless {
		select {
		case err := <-p.ended:
			t.Errorf("it ended: %v\n%s", err, p.output)
		case <-time.After(1500 * time.Millisecond):
			_ = p.cmd.Process.Signal(os.Interrupt)
			<-p.ended
		}
	} else if err := <-p.ended; err != nil {
		status = err.Error()
	}
	output := p.output.String()
	if c.keep != nil {
		output = c.keep(output)
	}
	return output + status
}

// benchmark runs the whole default list of redis-benchmark, in each way that it
// can send; the first error ends it.
func benchmark(t *testing.T, endpoint, plain string) {
	if _, err := exec.LookPath("redis-benchmark"); err != nil {
		t.Fatalf("%v; `make test-clients` installs what is missing", err)
	}
	test := regexp.MustCompile(`(?m)^"?([A-Z][^:"]*)[:"]`)
	var names [2]string
	for i, addr := range []string{plain, endpoint} {
		host, port := hostPort(t, addr)
		for _, args := range [][]string{{"-c", "20"}, {"-c", "20", "-P", "16", "-r", "1000"}} {
			out, err := run(t, 60*time.Second, append([]string{"redis-benchmark", "-h", host, "-p", port, "-a", password, "-n", "1000", "--csv"}, args...)...)
			if err != nil || strings.Contains(out, "Error") {
				t.Errorf("redis-benchmark %s: %v\n%s", strings.Join(args, " "), err, out)
			}
			for _, name := range test.FindAllStringSubmatch(out, -1) {
				names[i] += name[1] + "\n"
			}
			names[i] += "\n"
		}
	}
	if names[0] != names[1] || strings.Count(names[0], "\n") < 30 {
		t.Errorf("redis-benchmark ran on the endpoint:\n%sand on a plain server:\n%s", names[1], names[0])
	}
}

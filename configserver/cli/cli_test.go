package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var rewrite = flag.Bool("rewrite", false, "write what the commands print to testdata instead of comparing")

// run runs a command line against a fake Configserver.
func run(t *testing.T, address, line string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	a := &app{out: &o, err: &e, now: func() time.Time { return noon }}
	args := strings.Fields(line)
	if address != "" {
		args = append([]string{"--configserver", address}, args...)
	}
	code = a.main(context.Background(), args)
	return code, o.String(), e.String()
}

// Each file of testdata holds the transcript of one topic: the command line,
// what it printed, and its exit code when that is not 0.
func TestTranscripts(t *testing.T) {
	t.Setenv("TZ", "UTC")
	time.Local = time.UTC
	for topic, lines := range map[string][]string{
		"cluster": {
			"cluster list", "cluster list -o json", "cluster create green --shards 5 --hung-after 2s", "cluster create blue",
			"cluster status blue", "cluster status", "cluster update blue --hung-after 2s --read-policy read-set --max-read-lag 1MiB --cross-slot refuse",
			"cluster update blue", "cluster update --read-policy nobody", "cluster update --cross-slot ask", "cluster delete blue", "cluster delete blue --yes",
		},
		"config": {
			"cluster config get blue", "cluster config set maxmemory-policy allkeys-lru hz 20", "cluster config set hz", "cluster config set port 1",
			"cluster config unset hz", "cluster config set hz 20 -o json",
		},
		"node": {
			"node register blue shard-0 shard-0-2 127.0.0.1:7005", "node register shard-0 shard-0-2 127.0.0.1:7005",
			"node deregister blue shard-0-0", "node readable blue shard-0-1 false", "node readable shard-0-1 perhaps",
			"node mark blue shard-0-1", "node mark shard-9-9", "config-lines --password-file testdata/password.txt blue shard-0-1", "config-lines --password-file testdata/password.txt --before-7", "config-lines", "credentials rotate",
		},
		"proxy": {
			"proxy list blue", "proxy list -o json", "proxy forget blue deadbeef00000000", "proxy forget 127.0.0.1:6381", "proxy forget dead",
			"proxy forget c0ffee", "proxy forget nobody", "proxy forget deadbeef -o json",
		},
		"maintenance": {
			"maintenance on blue shard-0 --for 30m --reason disks", "maintenance on blue -o json", "maintenance off blue", "maintenance on blue --for 25h", "maintenance on",
		},
		"acl": {
			"acl list blue", "acl list -o json", "acl set blue app on ~app:* -@all +@read (~x +set)", "acl set --password-file testdata/password.txt blue app resetpass",
			"acl set blue app >secret", "acl set blue app (", "acl set blue app +nosuch", "acl set --password-file testdata/nosuch.txt blue app",
			"acl delete blue app other", "acl delete blue",
		},
		"operation": {
			"failover blue shard-0", "failover blue shard-0 --yes", "failover blue shard-0 --to shard-0-1 --accept-loss", "failover blue shard-0 --to shard-0-1 --accept-loss --yes",
			"failover blue shard-1", "failover shard-0 -o json --yes", "switchover blue shard-0 --to shard-0-1", "switchover",
		},
		"topology": {
			"topology show blue", "topology show --epoch 12 -o json", "topology epochs", "topology barrier blue", "topology barrier --epoch 99 --wait 100ms",
			"topology adopt", "topology adopt blue --yes", "topology adopt --plan -o json", "topology adopt --plan --yes", "topology adopt red",
		},
		"events": {
			"events list blue", "events list --severity warning --since 1h --shard shard-0", "events list --severity bad", "events list --since yesterday", "events list --after 41 --reports", "events show 42", "events show 7", "events show 41 -o json",
		},
		"diverged": {"diverged list blue", "diverged list blue -o json"},
		"usage": {
			"clusters", "cluster delete red -o json", "node deregister shard-0-0 -o json", "cluster frobnicate", "cluster list extra", "cluster list --nope", "cluster list -o yaml", "local kill",
		},
	} {
		t.Run(topic, func(t *testing.T) {
			_, address := startFake(t)
			var got strings.Builder
			for _, line := range lines {
				code, out, errOut := run(t, address, line)
				fmt.Fprintf(&got, "$ basaltctl %s\n%s%s", line, out, errOut)
				if code != 0 {
					fmt.Fprintf(&got, "exit %d\n", code)
				}
				got.WriteByte('\n')
			}
			path := filepath.Join("testdata", topic+".txt")
			if *rewrite {
				if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("%s differs (go test ./cli -rewrite writes it anew):\n%s", path, firstDifference(got.String(), string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			line := ""
			if i < len(w) {
				line = w[i]
			}
			return fmt.Sprintf("line %d\n got: %s\nwant: %s", i+1, g[i], line)
		}
	}
	return "it ends early"
}

func TestArgumentsReachTheConfigserver(t *testing.T) {
	f, address := startFake(t)
	for line, want := range map[string]string{
		"node register shard-1 shard-1-2 127.0.0.1:9":                              "register blue shard-1 shard-1-2 127.0.0.1:9",
		"node register red shard-1 shard-1-2 127.0.0.1:9":                          "register red shard-1 shard-1-2 127.0.0.1:9",
		"--cluster red node register shard-1 shard-1-2 127.0.0.1:9":                "register red shard-1 shard-1-2 127.0.0.1:9",
		"switchover shard-0 --to shard-0-1":                                        "switchover blue shard-0 to shard-0-1",
		"cluster delete --yes red":                                                 "delete red",
		"node register shard-1 shard-1-2 127.0.0.1:9 blue":                         "register blue shard-1 shard-1-2 127.0.0.1:9",
		"switchover shard-0 blue":                                                  "switchover blue shard-0 to ",
		"cluster config set blue hz 20":                                            "set blue hz=20",
		"cluster config set hz 20 blue":                                            "set blue hz=20",
		"cluster config set hz 20":                                                 "set blue hz=20",
		"cluster config unset hz port blue":                                        "unset blue hz port",
		"cluster config unset --cluster red blue":                                  "unset red blue",
		"acl set app on blue":                                                      "blue app on",
		"acl set app on":                                                           "blue app on",
		"acl delete app other blue":                                                "delete users app other of blue",
		"events list blue --severity warning --since 90m --until 2024-05-06T11:59": "list blue warning 10:30:00 11:59:00",
	} {
		run(t, address, line)
		if got := f.asked[len(f.asked)-1]; got != want {
			t.Errorf("%s: the configserver got %q, want %q", line, got, want)
		}
	}
}

func TestWaitsForAnOwner(t *testing.T) {
	f, address := startFake(t)
	f.ownerless = 2
	if code, _, errOut := run(t, address, "cluster status blue"); code != exitNotServing {
		t.Fatal(errOut)
	}
	f.ownerless = 1000
	code, _, errOut := run(t, address, "cluster status blue --timeout 300ms")
	if code != exitFailed || !strings.Contains(errOut, "no configserver owns") && !strings.Contains(errOut, "in time") {
		t.Fatal(code, errOut)
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Setenv("BASALT_LOCAL_STATE", t.TempDir())
	t.Setenv("BASALT_CONFIGSERVER", "")
	code, _, errOut := run(t, "127.0.0.1:1", "cluster list")
	if code != exitFailed || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, "no configserver answers at 127.0.0.1:1 (connection refused)") {
		t.Fatal(code, errOut)
	}
	code, _, errOut = run(t, "", "local status")
	if code != exitFailed || !strings.Contains(errOut, "no local playground is running") {
		t.Fatal(code, errOut)
	}
	if code, _, errOut = run(t, "nowhere", "cluster list"); code != exitUsage || !strings.Contains(errOut, "HOST:PORT") {
		t.Fatal(code, errOut)
	}
}

// The second of two Configservers answers when the first is away.
func TestTriesTheNextConfigserver(t *testing.T) {
	_, address := startFake(t)
	if code, _, errOut := run(t, "127.0.0.1:1,"+address, "cluster list"); code != exitOK {
		t.Fatal(errOut)
	}
}

func TestVersion(t *testing.T) {
	_, version, _ := run(t, "", "version")
	if code, out, _ := run(t, "", "--version"); code != exitOK || strings.TrimSpace(version) == "" || out != "basaltctl version "+version {
		t.Fatal(code, out, version)
	}
}

func TestCompletion(t *testing.T) {
	_, address := startFake(t)
	for line, want := range map[string]string{
		"__complete cluster status @":                     "blue",
		"__complete switchover blue @":                    "shard-1",
		"__complete node deregister blue @":               "shard-0-1",
		"__complete switchover @":                         "shard-1", // there is one cluster only
		"__complete switchover blue shard-0 --to @":       "shard-0-1",
		"__complete events list --shard @":                "shard-1",
		"__complete events list --severity @":             "critical",
		"__complete cluster list -o @":                    "json",
		"__complete cluster update --read-policy @":       "read-set",
		"__complete acl delete blue @":                    "guest",
		"__complete --cluster @":                          "blue",
		"__complete node register blue shard-0 new-one @": ":4", // an address nobody can know
	} {
		var out bytes.Buffer
		a := &app{out: &out, err: &out, now: func() time.Time { return noon }, configserver: address}
		args := strings.Fields(line)
		args[len(args)-1] = ""
		t.Setenv("BASALT_CONFIGSERVER", address)
		if code := a.main(context.Background(), args); code != exitOK || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %d %s", line, code, out.String())
		}
	}
}

// A password from a file travels as its sum, and is the only one with resetpass.
func TestPasswordsAreHashed(t *testing.T) {
	f, address := startFake(t)
	if code, _, errOut := run(t, address, "acl set --password-file testdata/password.txt blue app resetpass ( ~a +get )"); code != exitOK {
		t.Fatal(errOut)
	}
	if want := "blue app resetpass|( ~a +get )|#2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"; len(f.asked) != 1 || f.asked[0] != want {
		t.Errorf("asked %q, want %q", f.asked, want)
	}
}

// Names come from whoever may set them; they must not give orders to a terminal.
func TestTablesHaveNoControlCharacters(t *testing.T) {
	var out bytes.Buffer
	users := newTable("USER", "RULES")
	users.row("a\x1b[31mb\u009bc", "é ~k\r\n")
	if err := users.print(&out); err != nil {
		t.Fatal(err)
	}
	const want = "USER             RULES\na\\x1b[31mb\\x9bc  é ~k\\x0d\\x0a\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// Whoever gives up first when the time is over, people read the same.
func TestNoAnswerInTimeIsASentence(t *testing.T) {
	a := &app{dialled: []string{"127.0.0.1:7400"}}
	for _, words := range []string{"context deadline exceeded", "stream terminated by RST_STREAM with error code: CANCEL"} {
		if got := a.explain(status.Error(codes.DeadlineExceeded, words)); !strings.Contains(got, "no answer from the configserver at 127.0.0.1:7400 in time") {
			t.Errorf("%q: %s", words, got)
		}
	}
}

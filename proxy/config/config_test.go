package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDefaultsAreValid(t *testing.T) {
	c, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:6380" || c.HTTPListen != "127.0.0.1:6381" || c.MaxRequestBytes != 512<<20 || c.MaxArgs != 1<<20 ||
		c.MaxInlineBytes != 64<<10 || c.HoldTimeout != 10*time.Second || c.SlowLogThreshold != 10*time.Millisecond || c.SlowLogLength != 128 || c.MaxClients < 10000 {
		t.Errorf("defaults %+v", c)
	}
}

func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	if err := os.WriteFile(file, []byte("cluster: from-file\nloops: 3\nmax-request-bytes: 1MiB\nconfigserver: [a:1, b:2]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BASALT_PROXY_CLUSTER", "from-env")
	t.Setenv("BASALT_PROXY_LOOPS", "4")
	c, err := Load([]string{"--config", file, "--loops=5"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Cluster != "from-env" || c.Loops != 5 || c.MaxRequestBytes != 1<<20 || len(c.ConfigServers) != 2 {
		t.Errorf("got %+v", c)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for args, want := range map[string]string{
		"--listen nonsense":             `listen: "nonsense" is not host:port`,
		"--listen :x":                   "listen: ",
		"--configserver a,b:1":          `configserver: "a" is not host:port`,
		"--configserver=":               "configserver: name at least one",
		"--cluster=":                    "cluster: ",
		"--max-clients 0":               "max-clients: 0, want at least 1",
		"--max-request-bytes 8GiB":      "max-request-bytes: ",
		"--hold-timeout 0s":             "hold-timeout: ",
		"--loops -1 --drain-timeout 0s": "drain-timeout: ",
		"--password x":                  "unknown flag",
	} {
		if _, err := Load(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

func TestHelpNamesEverything(t *testing.T) {
	var c Config
	fs := Flags(&c)
	var out strings.Builder
	usage(fs, &out)
	for _, want := range []string{"--configserver", "512MiB", "BASALT_PROXY_MAX_CLIENTS", "--version", "--config"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, out.String())
		}
	}
}

package settings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

type conf struct {
	listen  string
	servers []string
	clients int
	drain   time.Duration
	budget  int64
	pprof   bool
}

func flags(c *conf) *pflag.FlagSet {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.StringVar(&c.listen, "listen", "127.0.0.1:1", "")
	fs.StringSliceVar(&c.servers, "configserver", []string{"a:1"}, "")
	fs.IntVar(&c.clients, "max-clients", 10, "")
	fs.DurationVar(&c.drain, "drain-timeout", time.Second, "")
	BytesVar(fs, &c.budget, "memory-budget-bytes", 1<<20, "")
	fs.BoolVar(&c.pprof, "pprof", false, "")
	return fs
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each place overrides the one before it, setting by setting.
func TestPrecedence(t *testing.T) {
	path := writeFile(t, "listen: file:1\nmax-clients: 20\ndrain-timeout: 5s\nconfigserver: [b:1, c:2]\n")
	t.Setenv("BASALT_TEST_LISTEN", "env:1")
	t.Setenv("BASALT_TEST_MAX_CLIENTS", "30")
	t.Setenv("BASALT_TEST_CONFIG", path)
	var c conf
	if err := Load(flags(&c), "BASALT_TEST", []string{"--listen", "flag:1"}); err != nil {
		t.Fatal(err)
	}
	if c.listen != "flag:1" || c.clients != 30 || c.drain != 5*time.Second || c.budget != 1<<20 {
		t.Errorf("got %+v", c)
	}
	if strings.Join(c.servers, " ") != "b:1 c:2" {
		t.Errorf("servers %q", c.servers)
	}
}

func TestFileValuesReachTheFlagAsWritten(t *testing.T) {
	var c conf
	path := writeFile(t, "max-clients: 0x20\nmemory-budget-bytes: 2 GiB\npprof: true\nlisten: \":6380\"\n")
	if err := Load(flags(&c), "BASALT_TEST", []string{"--config", path}); err != nil {
		t.Fatal(err)
	}
	if c.clients != 32 || c.budget != 2<<30 || !c.pprof || c.listen != ":6380" {
		t.Errorf("got %+v", c)
	}
}

func TestErrorsNameTheSettingAndItsPlace(t *testing.T) {
	for name, tc := range map[string]struct {
		file, env string
		args      []string
		want      []string
	}{
		"unknown key":     {file: "max_clients: 3\n", want: []string{"settings.yaml", `unknown setting "max_clients"`, `did you mean "max-clients"`}},
		"duplicate key":   {file: "listen: a\nlisten: b\n", want: []string{"settings.yaml", "already set"}},
		"bad file value":  {file: "max-clients: many\n", want: []string{"settings.yaml", "max-clients", "many"}},
		"bad environment": {env: "soon", want: []string{"BASALT_TEST_DRAIN_TIMEOUT", "soon"}},
		"mapping":         {file: "listen: {a: b}\n", want: []string{"want a value or a list"}},
		"unknown flag":    {args: []string{"--nope"}, want: []string{"--nope"}},
		"argument":        {args: []string{"serve"}, want: []string{`unexpected argument "serve"`}},
		"missing file":    {args: []string{"--config", "/nonexistent/x.yaml"}, want: []string{"/nonexistent/x.yaml"}},
		"config in file":  {file: "config: other.yaml\n", want: []string{`unknown setting "config"`}},
	} {
		t.Run(name, func(t *testing.T) {
			args := tc.args
			if tc.file != "" {
				args = append(args, "--config", writeFile(t, tc.file))
			}
			if tc.env != "" {
				t.Setenv("BASALT_TEST_DRAIN_TIMEOUT", tc.env)
			}
			err := Load(flags(&conf{}), "BASALT_TEST", args)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

func TestHelp(t *testing.T) {
	fs := flags(&conf{})
	fs.Usage = func() {}
	if err := Load(fs, "BASALT_TEST", []string{"--help"}); !errors.Is(err, pflag.ErrHelp) {
		t.Errorf("got %v", err)
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "65536": 65536, "64KiB": 65536, "64kb": 65536, "1.5 GiB": 3 << 29, "10b": 10, "1TB": 1 << 40,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "x", "1xb", "99999999TiB", "NaN", "Inf", "9223372036854775808"} {
		if n, err := ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, n)
		}
	}
	for n, want := range map[int64]string{0: "0", 1000: "1000", 1 << 20: "1MiB", 3 << 29: "1536MiB", 1 << 40: "1TiB"} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestDescribeBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 1023: "1023 bytes", 1536: "1536 bytes (1.5 KiB)", 7700433: "7700433 bytes (7.3 MiB)", 3 << 40: "3298534883328 bytes (3.0 TiB)",
	} {
		if got := DescribeBytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

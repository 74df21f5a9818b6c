// Package config holds the settings of a proxy: their names, defaults, meaning
// and limits.
package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/basalt-redis/basalt/internal/settings"
)

// EnvPrefix begins the names of the environment variables: BASALT_PROXY_LISTEN
// is --listen.
const EnvPrefix = "BASALT_PROXY"

// Config of a proxy; every field is a flag, see Flags.
type Config struct {
	Listen, Advertise, HTTPListen string
	Cluster                       string
	ConfigServers                 []string

	ClusterMode               bool
	Loops, MaxClients         int
	MaxPinned                 int
	BlockedOnFailover         string
	MaxRequestBytes           int64
	MaxArgs                   int
	MaxInlineBytes            int64
	ClientReplyBufferBytes    int64
	ClientPubSubBufferBytes   int64
	MemoryBudgetBytes         int64
	HoldTimeout               time.Duration
	HoldMaxBytes              int64
	NodeTimeout, DrainTimeout time.Duration
	SlowLogThreshold          time.Duration
	SlowLogLength             int
	Pprof                     bool
	EnableDebugCommand        bool
	LogLevel, LogFormat       string
	ShowVersion               bool
}

// Flags defines the flags of c, with c's fields set to the defaults.
func Flags(c *Config) *pflag.FlagSet {
	fs := pflag.NewFlagSet("proxy", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.SetOutput(os.Stdout) // help that was asked for; mistakes are returned
	fs.StringVar(&c.Listen, "listen", "127.0.0.1:6380", "`host:port` for clients")
	fs.StringVar(&c.Cluster, "cluster", "local", "`name` of the cluster to serve")
	fs.StringSliceVar(&c.ConfigServers, "configserver", []string{"127.0.0.1:7400"}, "Configservers, `host:port,…`; any of them will do")
	fs.StringVar(&c.HTTPListen, "http-listen", "127.0.0.1:6381", "`host:port` for /healthz, /readyz, /metrics and /slowlog; empty for none")
	fs.StringVar(&c.Advertise, "advertise", "", "`host:port` by which people know this proxy (default: where it listens)")
	fs.BoolVar(&c.ClusterMode, "cluster-mode", false, "tell clients that the proxies are a Redis Cluster (CLUSTER SLOTS and so on), for clients that insist on one")
	fs.IntVar(&c.Loops, "loops", 0, "event loops; 0 for half as many as processors, at least one")
	fs.IntVar(&c.MaxClients, "max-clients", 20000, "clients connected at once; one more is turned away")
	fs.IntVar(&c.MaxPinned, "max-pinned", 2000, "server connections that may serve a single client each at once, as WATCH and blocking commands need; of all proxies together it must stay below the servers' maxclients")
	fs.StringVar(&c.BlockedOnFailover, "blocked-on-failover", "reissue", "what becomes of blocked commands (BLPOP …) when a failover replaces their master: reissue sends them to the new one, fail answers that they may or may not have been executed")
	fs.BoolVar(&c.EnableDebugCommand, "enable-debug-command", false, "pass DEBUG on to servers that were started with enable-debug-command; for tests")
	settings.BytesVar(fs, &c.MaxRequestBytes, "max-request-bytes", 512<<20, "longest request, and longest argument")
	fs.IntVar(&c.MaxArgs, "max-args", 1<<20, "most arguments of one request")
	settings.BytesVar(fs, &c.MaxInlineBytes, "max-inline-bytes", 64<<10, "longest inline request")
	settings.BytesVar(fs, &c.ClientReplyBufferBytes, "client-reply-buffer-bytes", 1<<30, "replies that one client may leave unread before it is closed")
	settings.BytesVar(fs, &c.ClientPubSubBufferBytes, "client-pubsub-buffer-bytes", 32<<20, "messages and replies that a client with subscriptions may leave unread before it is closed")
	settings.BytesVar(fs, &c.MemoryBudgetBytes, "memory-budget-bytes", 1<<30, "requests and replies of all clients together; beyond it clients are not read, and those with most of it in unfinished requests or unread replies are closed")
	fs.DurationVar(&c.HoldTimeout, "hold-timeout", 10*time.Second, "how long a request waits for a master before it is refused with CLUSTERDOWN")
	settings.BytesVar(fs, &c.HoldMaxBytes, "hold-max-bytes", 256<<20, "requests that may wait for masters at once")
	fs.DurationVar(&c.NodeTimeout, "node-timeout", time.Second, "how long a node may leave a request unanswered before the Configserver is told")
	fs.DurationVar(&c.DrainTimeout, "drain-timeout", 10*time.Second, "how long clients get to finish when the proxy stops")
	fs.DurationVar(&c.SlowLogThreshold, "slowlog-threshold", 10*time.Millisecond, "commands that take as long or longer are kept in /slowlog; negative for none")
	fs.IntVar(&c.SlowLogLength, "slowlog-length", 128, "slow commands that are kept")
	fs.BoolVar(&c.Pprof, "pprof", false, "serve profiles under /debug/pprof of the HTTP address")
	fs.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	settings.AddConfigFlag(fs)
	fs.BoolVar(&c.ShowVersion, "version", false, "print the version and exit")
	fs.Usage = func() { usage(fs, fs.Output()) }
	return fs
}

func usage(fs *pflag.FlagSet, w io.Writer) {
	fmt.Fprintf(w, `Basalt proxy: one Redis in front of a cluster of servers.

It serves Redis clients at --listen, learns from the Configserver which server
owns which keys, and follows every change of that without an error to clients.

Usage:
  proxy [flags]

Example:
  proxy --cluster orders --configserver config-0:7400,config-1:7400 --listen :6379

A setting is taken from its flag, else from the environment (--max-clients is
%s), else from the file given by --config (the key
is the flag's name), else it is the default.

Flags:
%s`, settings.EnvName(EnvPrefix, "max-clients"), fs.FlagUsagesWrapped(100))
}

// Load reads the settings of a program that was started with args, and checks
// them. The error is pflag.ErrHelp after --help was answered.
func Load(args []string) (Config, error) {
	var c Config
	if err := settings.Load(Flags(&c), EnvPrefix, args); err != nil {
		return Config{}, err
	}
	if c.ShowVersion {
		return c, nil
	}
	return c, c.Validate()
}

// Validate says everything that is wrong, each with the name of its setting.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{name}, args...)...))
	}
	address := func(name, value string) {
		if err := checkAddress(value); err != nil {
			wrong(name, "%w", err)
		}
	}
	address("listen", c.Listen)
	if c.HTTPListen != "" {
		address("http-listen", c.HTTPListen)
	}
	if c.Advertise != "" {
		address("advertise", c.Advertise)
	}
	if c.Cluster == "" {
		wrong("cluster", "name the cluster to serve")
	}
	if len(c.ConfigServers) == 0 {
		wrong("configserver", "name at least one, host:port")
	}
	for _, s := range c.ConfigServers {
		address("configserver", s)
	}
	for _, n := range []struct {
		name       string
		value, min int64
	}{
		{"loops", int64(c.Loops), 0},
		{"max-clients", int64(c.MaxClients), 1},
		{"max-request-bytes", c.MaxRequestBytes, 1 << 10},
		{"max-pinned", int64(c.MaxPinned), 1},
		{"max-args", int64(c.MaxArgs), 16},
		{"max-inline-bytes", c.MaxInlineBytes, 1 << 10},
		{"client-reply-buffer-bytes", c.ClientReplyBufferBytes, 1 << 20},
		{"client-pubsub-buffer-bytes", c.ClientPubSubBufferBytes, 1 << 16},
		{"memory-budget-bytes", c.MemoryBudgetBytes, 16 << 20},
		{"hold-max-bytes", c.HoldMaxBytes, 1 << 20},
		{"slowlog-length", int64(c.SlowLogLength), 1},
	} {
		if n.value < n.min {
			wrong(n.name, "%d, want at least %d", n.value, n.min)
		}
	}
	if c.BlockedOnFailover != "reissue" && c.BlockedOnFailover != "fail" {
		wrong("blocked-on-failover", "%q, want reissue or fail", c.BlockedOnFailover)
	}
	if c.Loops > 1024 {
		wrong("loops", "%d, want at most 1024", c.Loops)
	}
	if c.MaxRequestBytes > 1<<31-1 {
		wrong("max-request-bytes", "%d, want at most 2147483647", c.MaxRequestBytes)
	}
	if c.MaxInlineBytes > c.MaxRequestBytes {
		wrong("max-inline-bytes", "%d, want at most max-request-bytes (%d)", c.MaxInlineBytes, c.MaxRequestBytes)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"hold-timeout", c.HoldTimeout}, {"node-timeout", c.NodeTimeout}, {"drain-timeout", c.DrainTimeout}} {
		if d.value < time.Millisecond {
			wrong(d.name, "%v, want at least 1ms", d.value)
		}
	}
	return errors.Join(errs...)
}

func checkAddress(value string) error {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		return fmt.Errorf("%q is not host:port", value)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q: the port is not a number up to 65535", value)
	}
	return nil
}

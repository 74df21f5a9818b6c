// Package local runs a whole Basalt on one machine, with real processes: etcd,
// Configservers, redis-servers and proxies. It is the playground behind
// `basaltctl local`, and the harness of the black-box tests.
//
// The runner (`local up`) stays in the foreground and is the parent of all
// processes. `local kill`, `pause` and the like speak to it over a unix socket,
// which they find in the state file.
package local

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Cluster is the name of the local cluster.
const Cluster = "local"

// Options say what to run.
type Options struct {
	// Shards and Replicas (per shard, besides the master) of the cluster; 0 for
	// shards and -1 for replicas mean: as the data directory says, else 3 and 1.
	Shards   int
	Replicas int
	// Proxies; 0: as the data directory says, else 1. They listen on Port, Port+1, …, or
	// on free ports when Port is 0.
	Proxies int
	Port    int
	// Configservers; more than one share a separate etcd process.
	Configservers    int
	ConfigserverPort int
	// AnyPort lets ConfigserverPort be another one when it is in use, and the state
	// file stand beside StatePath when another playground has that.
	AnyPort      bool
	SeparateEtcd bool
	// DataDir is kept; a temporary one is removed at exit when it is empty.
	DataDir string
	// StatePath is the state file.
	StatePath string
	// BinDir holds configserver and proxy; RedisServer is a path, or a name to be
	// found in PATH.
	BinDir      string
	RedisServer string
	// ClientPasswordFile holds the passwords (one or two lines) that clients must
	// AUTH with at the proxies; none when empty.
	ClientPasswordFile string
	// EnableDebug lets clients use DEBUG, as Redis's own tests do.
	EnableDebug bool
	// RedisConfig are further lines for every redis.conf.
	RedisConfig []string
	// Passed through to the processes: "KEY=VALUE", "--flag=value".
	ConfigserverEnv   []string
	ConfigserverFlags []string
	ProxyEnv          []string
	ProxyFlags        []string
	// Hurry, when it is closed while processes are being stopped, kills them.
	Hurry <-chan struct{}
}

// DefaultOptions are the defaults, overridden by the environment: SHARDS,
// REPLICAS, PROXIES, PORT, CONFIGSERVERS, DATA_DIR, REDIS_SERVER, DEBUG=1,
// CLIENT_PASSWORD_FILE, BASALT_LOCAL_STATE. A variable that is set to nothing
// counts as unset.
func DefaultOptions() (Options, error) {
	o := Options{
		Replicas:         -1,
		Port:             6380,
		Configservers:    1,
		ConfigserverPort: 7400,
		RedisServer:      "redis-server",
		StatePath:        DefaultStatePath(),
	}
	var errs []error
	for _, v := range []struct {
		name string
		into *int
	}{
		{"SHARDS", &o.Shards},
		{"REPLICAS", &o.Replicas},
		{"PROXIES", &o.Proxies},
		{"PORT", &o.Port},
		{"CONFIGSERVERS", &o.Configservers},
	} {
		text := os.Getenv(v.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s=%s: want a number", v.name, text))
			continue
		}
		*v.into = n
	}
	for _, v := range []struct {
		name string
		into *string
	}{
		{"DATA_DIR", &o.DataDir},
		{"REDIS_SERVER", &o.RedisServer},
		{"CLIENT_PASSWORD_FILE", &o.ClientPasswordFile},
	} {
		if text := os.Getenv(v.name); text != "" {
			*v.into = text
		}
	}
	switch os.Getenv("DEBUG") {
	case "1", "yes", "true":
		o.EnableDebug = true
	}
	if exe, err := os.Executable(); err == nil {
		o.BinDir = filepath.Dir(exe)
	}
	return o, errors.Join(errs...)
}

// check refuses what cannot work before anything is started, and makes paths
// absolute, as the processes have their own working directories.
func (o *Options) check() error {
	for _, v := range []struct {
		name            string
		value           int
		lowest, highest int
	}{
		{"SHARDS", o.Shards, 1, 1024},
		{"REPLICAS", o.Replicas, 0, 5},
		{"PROXIES", o.Proxies, 1, 64},
		{"PORT", o.Port, 0, 65535},
		{"CONFIGSERVERS", o.Configservers, 1, 9},
		{"--configserver-port", o.ConfigserverPort, 0, 65535},
	} {
		if v.value < v.lowest || v.value > v.highest {
			return fmt.Errorf("%s=%d: want %d to %d", v.name, v.value, v.lowest, v.highest)
		}
	}
	if o.Port != 0 && o.Port+o.Proxies-1 > 65535 {
		return fmt.Errorf("PORT=%d: %d proxies need ports up to %d; choose a lower one", o.Port, o.Proxies, o.Port+o.Proxies-1)
	}
	path, err := exec.LookPath(o.RedisServer)
	if err != nil {
		return fmt.Errorf("%s not found: install Redis (on Debian: apt-get install redis-server) or name a server binary with REDIS_SERVER=/path", o.RedisServer)
	}
	if o.RedisServer, err = filepath.Abs(path); err != nil {
		return err
	}
	if o.BinDir, err = filepath.Abs(o.BinDir); err != nil {
		return err
	}
	for _, name := range []string{"configserver", "proxy"} {
		if _, err := exec.LookPath(filepath.Join(o.BinDir, name)); err != nil {
			return fmt.Errorf("no %s in %s: run `make build`, or name the directory with --bin-dir", name, o.BinDir)
		}
	}
	if o.EnableDebug {
		if isSince7(o.RedisServer) { // an older server has DEBUG enabled
			o.RedisConfig = append(o.RedisConfig, "enable-debug-command yes")
		}
		o.ProxyFlags = append(o.ProxyFlags, "--enable-debug-command")
	}
	for _, kv := range append(append([]string{}, o.ConfigserverEnv...), o.ProxyEnv...) {
		if err := checkEnv(kv); err != nil {
			return err
		}
	}
	return nil
}

func checkEnv(kv string) error {
	if key, _, ok := strings.Cut(kv, "="); !ok || key == "" {
		return fmt.Errorf("environment %q: want KEY=VALUE", kv)
	}
	return nil
}

// Package config holds the settings of the configserver program: their flags,
// defaults and checks. What is in the struct after Check is valid.
package config

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/internal/settings"
)

// EnvPrefix is what the environment variables of all settings begin with:
// BASALT_CONFIGSERVER_LISTEN is --listen.
const EnvPrefix = "BASALT_CONFIGSERVER"

// Serve are the settings of `configserver serve`.
type Serve struct {
	// ID names this Configserver among its peers.
	ID string
	// Listen is where gRPC is served; Advertise is where the peers reach it.
	Listen, Advertise string
	// HTTPListen serves /healthz, /readyz and /metrics; empty for none.
	HTTPListen string
	Pprof      bool
	// DataDir and EtcdEmbeddedListen are of the embedded etcd, which runs when
	// there are no EtcdEndpoints.
	DataDir            string
	EtcdEmbeddedListen string
	EtcdEndpoints      []string
	// EtcdCAFile, EtcdCertFile and EtcdKeyFile are PEM files; EtcdCredentialsFile
	// holds a user on line 1 and a password on line 2.
	EtcdCAFile, EtcdCertFile, EtcdKeyFile string
	EtcdCredentialsFile                   string
	// CredentialsDir has one folder per cluster (package credentials).
	CredentialsDir string
	// LeaseTTL is how long the clusters of a dead Configserver wait for another.
	LeaseTTL time.Duration
	// KeepScripts and KeepScriptBytes limit the sources of scripts that are kept
	// for EVALSHA, per cluster.
	KeepScripts         int
	KeepScriptBytes     int64
	LogLevel, LogFormat string
}

// Flags defines the settings as flags with their defaults.
func (s *Serve) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&s.ID, "id", "", "unique `name` among the configservers of one etcd (default the host name and a random suffix)")
	fs.StringVar(&s.Listen, "listen", "127.0.0.1:7400", "`host:port` of the gRPC API")
	fs.StringVar(&s.Advertise, "advertise", "", "`host:port` at which the other configservers reach the gRPC API (default --listen)")
	fs.StringVar(&s.HTTPListen, "http-listen", "127.0.0.1:7401", "`host:port` of /healthz, /readyz and /metrics; empty for none")
	fs.BoolVar(&s.Pprof, "pprof", false, "serve profiles under /debug/pprof of --http-listen")
	fs.StringVar(&s.DataDir, "data-dir", "configserver-data", "`directory` of the embedded etcd")
	fs.StringVar(&s.EtcdEmbeddedListen, "etcd-embedded-listen", "127.0.0.1:0", "loopback `host:port` of the embedded etcd; port 0 takes a free one")
	fs.StringSliceVar(&s.EtcdEndpoints, "etcd-endpoints", nil, "comma-separated `host:port` list of an etcd; empty runs an embedded one")
	fs.StringVar(&s.EtcdCAFile, "etcd-ca-file", "", "PEM `file` of the CA that signed etcd's certificate; turns TLS on")
	fs.StringVar(&s.EtcdCertFile, "etcd-cert-file", "", "PEM `file` of this client's certificate for etcd; turns TLS on")
	fs.StringVar(&s.EtcdKeyFile, "etcd-key-file", "", "PEM `file` of the key of --etcd-cert-file")
	fs.StringVar(&s.EtcdCredentialsFile, "etcd-credentials-file", "", "`file` with the etcd user on line 1 and its password on line 2")
	fs.StringVar(&s.CredentialsDir, "credentials-dir", "", "`directory` with one folder of secrets per cluster: admin-password, cluster-secret, client-password")
	fs.DurationVar(&s.LeaseTTL, "lease-ttl", 3*time.Second, "how long the clusters of a dead configserver wait for another, in whole seconds")
	fs.IntVar(&s.KeepScripts, "keep-scripts", store.KeepScripts, "scripts kept per cluster for EVALSHA; those that came with EVAL are dropped first, then the longest unused")
	settings.BytesVar(fs, &s.KeepScriptBytes, "keep-script-bytes", store.KeepScriptBytes, "sources of scripts kept per cluster")
	fs.StringVar(&s.LogLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&s.LogFormat, "log-format", "text", "text or json")
}

var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Check fills in what depends on the machine and other settings, and says
// everything that is wrong, by flag.
func (s *Serve) Check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.ID == "" {
		s.ID = defaultID()
	}
	if !idForm.MatchString(s.ID) {
		wrong("--id %q: use 1 to 128 letters, digits, \".\", \"_\" and \"-\"", s.ID)
	}
	host, _, err := net.SplitHostPort(s.Listen)
	if err != nil {
		wrong("--listen %q: write host:port, like 127.0.0.1:7400", s.Listen)
	}
	if ip := net.ParseIP(host); err == nil && s.Advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
		wrong("--advertise is needed because --listen %s is no address that the other configservers could dial: "+
			"set it to this machine's host:port", s.Listen)
	}
	if s.Advertise != "" {
		if host, port, err := net.SplitHostPort(s.Advertise); err != nil || host == "" || port == "" || port == "0" {
			wrong("--advertise %q: write host:port with both", s.Advertise)
		}
	}
	if s.HTTPListen != "" {
		if _, _, err := net.SplitHostPort(s.HTTPListen); err != nil {
			wrong("--http-listen %q: write host:port, or nothing for no HTTP server", s.HTTPListen)
		}
	}
	if s.Pprof && s.HTTPListen == "" {
		wrong("--pprof: profiles are served by --http-listen, which is empty")
	}
	if len(s.EtcdEndpoints) == 0 && s.DataDir == "" {
		wrong("--data-dir: name a directory for the embedded etcd, or an etcd with --etcd-endpoints")
	}
	for _, e := range s.EtcdEndpoints {
		if strings.TrimSpace(e) == "" {
			wrong("--etcd-endpoints %q: an endpoint is empty", strings.Join(s.EtcdEndpoints, ","))
		}
	}
	if len(s.EtcdEndpoints) == 0 && (s.EtcdCAFile != "" || s.EtcdCertFile != "" || s.EtcdKeyFile != "" || s.EtcdCredentialsFile != "") {
		wrong("--etcd-ca-file, --etcd-cert-file, --etcd-key-file and --etcd-credentials-file are of no use with the embedded etcd: add --etcd-endpoints or drop them")
	}
	if (s.EtcdCertFile == "") != (s.EtcdKeyFile == "") {
		wrong("--etcd-cert-file and --etcd-key-file belong together: set both or none")
	}
	if s.LeaseTTL < time.Second || s.LeaseTTL > time.Minute || s.LeaseTTL%time.Second != 0 {
		wrong("--lease-ttl %v: use whole seconds from 1s to 1m", s.LeaseTTL)
	}
	s.KeepScripts = cmp.Or(s.KeepScripts, store.KeepScripts)
	s.KeepScriptBytes = cmp.Or(s.KeepScriptBytes, store.KeepScriptBytes)
	if s.KeepScripts < 1 || s.KeepScripts > 10000 {
		wrong("--keep-scripts %d: use 1 to 10000", s.KeepScripts)
	}
	if s.KeepScriptBytes < store.MaxScriptBytes || s.KeepScriptBytes > 1<<30 {
		wrong("--keep-script-bytes %d: use %d (one script of the greatest length) to 1 GiB", s.KeepScriptBytes, store.MaxScriptBytes)
	}
	if s.CredentialsDir != "" {
		if info, err := os.Stat(s.CredentialsDir); err != nil {
			wrong("--credentials-dir: %w; create it with one folder per cluster", err)
		} else if !info.IsDir() {
			wrong("--credentials-dir %s: is no directory", s.CredentialsDir)
		}
	}
	return errors.Join(errs...)
}

// defaultID is the host name, so that people recognise it, and a suffix, so
// that two processes on one host differ.
func defaultID() string {
	host, err := os.Hostname()
	if err != nil || !idForm.MatchString(host) {
		host = "configserver"
	}
	suffix := make([]byte, 3)
	_, _ = rand.Read(suffix) // never fails
	return host[:min(len(host), 100)] + "-" + hex.EncodeToString(suffix)
}

// EtcdTLS reads the PEM files; nil without any of them.
func (s *Serve) EtcdTLS() (*tls.Config, error) {
	if s.EtcdCAFile == "" && s.EtcdCertFile == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.EtcdCAFile != "" {
		pem, err := os.ReadFile(s.EtcdCAFile)
		if err != nil {
			return nil, fmt.Errorf("--etcd-ca-file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--etcd-ca-file %s: holds no PEM certificate", s.EtcdCAFile)
		}
	}
	if s.EtcdCertFile != "" {
		if _, err := tls.LoadX509KeyPair(s.EtcdCertFile, s.EtcdKeyFile); err != nil {
			return nil, fmt.Errorf("--etcd-cert-file and --etcd-key-file: %w", err)
		}
		// Read anew for each connection, so that a renewed certificate is used.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(s.EtcdCertFile, s.EtcdKeyFile)
			return &pair, err
		}
	}
	return c, nil
}

// EtcdLogin reads the user and password for etcd; empty without a file.
func (s *Serve) EtcdLogin() (user, password string, err error) {
	if s.EtcdCredentialsFile == "" {
		return "", "", nil
	}
	data, err := os.ReadFile(s.EtcdCredentialsFile)
	if err != nil {
		return "", "", fmt.Errorf("--etcd-credentials-file: %w", err)
	}
	lines := strings.Split(strings.ReplaceAll(string(data), "\r", ""), "\n")
	if len(lines) < 2 || lines[0] == "" || lines[1] == "" {
		return "", "", fmt.Errorf("--etcd-credentials-file %s: want the user on line 1 and the password on line 2", s.EtcdCredentialsFile)
	}
	return lines[0], lines[1], nil
}

// Etcd are the settings of `configserver etcd`.
type Etcd struct {
	DataDir                  string
	ListenClient, ListenPeer string
	LogLevel, LogFormat      string
}

// Flags defines the settings as flags with their defaults.
func (e *Etcd) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&e.DataDir, "data-dir", "etcd-data", "`directory` of the data and the log")
	fs.StringVar(&e.ListenClient, "listen-client", "127.0.0.1:2379", "loopback `host:port` for clients")
	fs.StringVar(&e.ListenPeer, "listen-peer", "127.0.0.1:0", "loopback `host:port` for peers, of which there are none; port 0 takes a free one")
	fs.StringVar(&e.LogLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&e.LogFormat, "log-format", "text", "text or json")
}

// Check says what is wrong, by flag.
func (e *Etcd) Check() error {
	if e.DataDir == "" {
		return errors.New("--data-dir: name a directory")
	}
	for flag, address := range map[string]string{"--listen-client": e.ListenClient, "--listen-peer": e.ListenPeer} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("%s %q: write host:port, like 127.0.0.1:2379", flag, address)
		}
	}
	return nil
}

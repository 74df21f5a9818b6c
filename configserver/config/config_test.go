package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// parse gives flags their values.
func parse(t *testing.T, args ...string) Serve {
	t.Helper()
	var s Serve
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	s.Flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaultsAreValid(t *testing.T) {
	s := parse(t)
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if s.LeaseTTL != 3*time.Second || s.Listen != "127.0.0.1:7400" || s.HTTPListen != "127.0.0.1:7401" {
		t.Errorf("defaults %+v", s)
	}
	other := parse(t)
	if err := other.Check(); err != nil || other.ID == s.ID || other.ID == "" {
		t.Errorf("ids %q and %q, %v", s.ID, other.ID, err)
	}
	var e Etcd
	e.Flags(pflag.NewFlagSet("etcd", pflag.ContinueOnError))
	if err := e.Check(); err != nil {
		t.Error(err)
	}
	if c, err := s.EtcdTLS(); c != nil || err != nil {
		t.Errorf("TLS without files: %v, %v", c, err)
	}
	if user, _, err := s.EtcdLogin(); user != "" || err != nil {
		t.Errorf("login without a file: %q, %v", user, err)
	}
}

func TestProblemsNameTheFlag(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--listen", "nowhere"},
		{"--advertise", "nowhere"},
		{"--advertise", "host:0"},
		{"--advertise", "", "--listen", "0.0.0.0:7400"},
		{"--advertise", "", "--listen", ":7400"},
		{"--http-listen", "7401"},
		{"--pprof", "--http-listen", ""},
		{"--id", "a/b"},
		{"--id", strings.Repeat("x", 129)},
		{"--lease-ttl", "500ms"},
		{"--lease-ttl", "2500ms"},
		{"--lease-ttl", "2m"},
		{"--data-dir", ""},
		{"--keep-scripts", "-1"},
		{"--keep-script-bytes", "100KiB"},
		{"--etcd-endpoints", "a:1,,b:1"},
		{"--etcd-ca-file", file},
		{"--etcd-cert-file", file, "--etcd-endpoints", "a:1"},
		{"--etcd-credentials-file", file},
		{"--credentials-dir", file},
		{"--credentials-dir", file + "/missing"},
	} {
		s := parse(t, args...)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("%v: %v", args, err)
		}
	}
	s := parse(t, "--listen", "x", "--lease-ttl", "0s")
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "--listen") || !strings.Contains(err.Error(), "--lease-ttl") {
		t.Errorf("two problems, told %v", err)
	}
	e := Etcd{DataDir: "d", ListenClient: "x", ListenPeer: "127.0.0.1:0"}
	if err := e.Check(); err == nil || !strings.Contains(err.Error(), "--listen-client") {
		t.Errorf("etcd: %v", err)
	}
}

func TestEtcdFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := write("cert", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	private := write("key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})))
	s := Serve{EtcdCAFile: cert, EtcdCertFile: cert, EtcdKeyFile: private, EtcdCredentialsFile: write("login", "basalt\nhunter2\n")}
	c, err := s.EtcdTLS()
	if err != nil || c.RootCAs == nil {
		t.Fatalf("TLS %v, %v", c, err)
	}
	if pair, err := c.GetClientCertificate(nil); err != nil || len(pair.Certificate) != 1 {
		t.Errorf("client certificate %v, %v", pair, err)
	}
	if user, password, err := s.EtcdLogin(); user != "basalt" || password != "hunter2" || err != nil {
		t.Errorf("login %q, %v", user, err)
	}
	junk := write("junk", "hunter2")
	for flag, s := range map[string]Serve{
		"--etcd-ca-file":          {EtcdCAFile: junk},
		"--etcd-cert-file":        {EtcdCertFile: cert, EtcdKeyFile: junk},
		"--etcd-credentials-file": {EtcdCredentialsFile: junk},
	} {
		_, err := s.EtcdTLS()
		if flag == "--etcd-credentials-file" {
			_, _, err = s.EtcdLogin()
		}
		if err == nil || !strings.Contains(err.Error(), flag) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

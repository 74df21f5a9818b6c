package etcdstore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/basalt-redis/basalt/configserver/config"
	"github.com/basalt-redis/basalt/configserver/store/etcdstore"
	"github.com/basalt-redis/basalt/configserver/store/storetest"
	"github.com/basalt-redis/basalt/configserver/topology"
)

// certificate writes a self-signed certificate for 127.0.0.1, which is also its
// own CA, and its key.
func certificate(t *testing.T, dir string) (cert, private string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, private = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, private: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, private
}

// secureEtcd starts an etcd that asks for client certificates and passwords, as
// one in production does. User basalt may use keys below /basalt/ only.
func secureEtcd(t *testing.T, cert, key string) string {
	t.Helper()
	address := freePort(t)
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	clientURL, peerURL := url.URL{Scheme: "https", Host: address}, url.URL{Scheme: "http", Host: freePort(t)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clientURL}, []url.URL{clientURL}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peerURL}, []url.URL{peerURL}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: cert, ClientCertAuth: true}
	cfg.LogLevel, cfg.LogOutputs = "error", []string{filepath.Join(cfg.Dir, "log")}
	cfg.BcryptCost = 4   // the least, for machines that do other things too
	cfg.AuthTokenTTL = 1 // second, so that tokens end during the test
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	<-etcd.Server.ReadyNotify()

	serve := config.Serve{EtcdCAFile: cert, EtcdCertFile: cert, EtcdKeyFile: key}
	tlsConfig, err := serve.EtcdTLS()
	if err != nil {
		t.Fatal(err)
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, TLS: tlsConfig})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx := t.Context()
	for _, step := range []func() error{
		func() error { _, err := root.UserAdd(ctx, "root", "rootsecret"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := root.RoleAdd(ctx, "basalt"); return err },
		func() error {
			_, err := root.RoleGrantPermission(ctx, "basalt", "/basalt/", clientv3.GetPrefixRangeEnd("/basalt/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := root.UserAdd(ctx, "basalt", "hunter2"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "basalt", "basalt"); return err },
		func() error { _, err := root.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return address
}

func TestTLSAndAuth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	address := secureEtcd(t, cert, key)
	serve := config.Serve{EtcdCAFile: cert, EtcdCertFile: cert, EtcdKeyFile: key}
	tlsConfig, err := serve.EtcdTLS()
	if err != nil {
		t.Fatal(err)
	}
	cfg := etcdstore.Config{Endpoints: []string{address}, TLS: tlsConfig, Username: "basalt", Password: "wrong", LeaseTTL: 2 * time.Second}
	if s, err := etcdstore.Open(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Fatalf("a wrong password: %v, %v", s, err)
	}
	cfg.Password = "hunter2"
	s, err := etcdstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := storetest.Cluster("a")
	session, o := createAndClaim(t, s, c)
	events, err := s.WatchEvents(t.Context(), "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	// Longer than the lease and the token live: both are renewed.
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(500 * time.Millisecond) {
		c = storetest.Next(c, "again")
		if err := o.Commit(t.Context(), c, topology.Event{Kind: "Committed"}); err != nil {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		select {
		case e := <-events:
			if e.Sequence != c.Epoch-1 {
				t.Fatalf("event %d at epoch %d", e.Sequence, c.Epoch)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("after %v: no event", time.Since(began))
		}
	}
	select {
	case <-session.Lost():
		t.Error("the lease was lost")
	default:
	}
	if err := session.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

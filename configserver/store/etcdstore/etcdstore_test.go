package etcdstore_test

import (
	"context"
	"crypto/sha1"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/basalt-redis/basalt/configserver/store/embedded"
	"github.com/basalt-redis/basalt/configserver/store/etcdstore"
	"github.com/basalt-redis/basalt/configserver/store/storetest"
)

// freePort finds a port outside of the range from which clients get theirs.
func freePort(t testing.TB) string {
	t.Helper()
	for port := 10000 + time.Now().Nanosecond()%19000; ; port++ {
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if err == nil {
			_ = l.Close()
			return address
		}
		if port > 30000 {
			t.Fatal("no free port below 30000")
		}
	}
}

func startEtcd(t testing.TB, dir, client string) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(context.Background(), embedded.Config{Dir: dir, ListenClient: client, ListenPeer: freePort(t)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var clientPrefix = clientv3.WithPrefix()

// incarnation is a run_id: 40 hexadecimal digits.
func incarnation(i, j int) string {
	return fmt.Sprintf("%x", sha1.Sum([]byte{byte(i), byte(i >> 8), byte(j)}))
}

var prefixes atomic.Int64

func open(t testing.TB, endpoint, prefix string) *etcdstore.Store {
	t.Helper()
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{
		Endpoints: []string{endpoint}, Prefix: prefix,
		LeaseTTL: 2 * time.Second, KeepEpochs: storetest.KeepEpochs, KeepEvents: storetest.KeepEvents,
		KeepScripts: storetest.KeepScripts, KeepScriptBytes: storetest.KeepScriptBytes,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func client(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestSuite(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t, t.TempDir(), freePort(t))
	defer etcd.Close()
	raw := client(t, etcd.Endpoint())
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		prefix := fmt.Sprintf("/test-%d/", prefixes.Add(1))
		return storetest.Backend{
			Store: open(t, etcd.Endpoint(), prefix),
			Other: open(t, etcd.Endpoint(), prefix),
			ExpireLease: func(t testing.TB, replica string) {
				r, err := raw.Get(t.Context(), prefix+"replicas/"+replica)
				if err != nil || len(r.Kvs) != 1 {
					t.Fatalf("lease of %s: %v, %v", replica, r, err)
				}
				if _, err := raw.Revoke(t.Context(), clientv3.LeaseID(r.Kvs[0].Lease)); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

package etcdstore_test

import (
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/storetest"
)

// TestExpired: an ownership whose keep-alives are not answered any more is
// expired by the clock, and not before.
func TestExpired(t *testing.T) {
	t.Parallel()
	address := freePort(t)
	etcd := startEtcd(t, t.TempDir(), address)
	s := open(t, address, "/expired/")
	session, o := createAndClaim(t, s, storetest.Cluster("a"))
	ttl := session.(interface{ TTL() time.Duration }).TTL()
	clock := o.(store.Punctual)
	for begin := time.Now(); time.Since(begin) < 2*ttl; time.Sleep(ttl / 20) {
		if clock.Expired() {
			t.Fatal("expired while keep-alives are answered")
		}
	}
	if err := etcd.Close(); err != nil {
		t.Fatal(err)
	}
	<-o.Lost()
	if !clock.Expired() {
		t.Error("lost, and not expired")
	}
}

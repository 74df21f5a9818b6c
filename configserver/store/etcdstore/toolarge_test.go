//go:build !race

// Tens of megabytes take longer than the lease lasts under the race detector.

package etcdstore_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/store/storetest"
)

// TestTooLarge: a commit beyond what etcd takes, and one beyond what its client
// sends, are told apart from what may be tried again.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t, t.TempDir(), freePort(t))
	defer etcd.Close()
	s := open(t, etcd.Endpoint(), "/toolarge/")
	c := storetest.Cluster("a")
	session, o := createAndClaim(t, s, c)
	defer session.Close(context.Background())
	for _, size := range []int{5 << 20, 40 << 20} {
		random := make([]byte, size)
		_, _ = rand.Read(random)
		if err := o.Commit(t.Context(), storetest.Next(c, hex.EncodeToString(random))); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("%d bytes: %.200v", size, err)
		}
	}
	if err := o.Commit(t.Context(), storetest.Next(c, "small")); err != nil {
		t.Error(err)
	}
}

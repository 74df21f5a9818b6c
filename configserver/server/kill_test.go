//go:build !race

// These tests kill a built binary, which the race detector does not see: once
// without it is enough.

package server_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/basalt-redis/basalt/configserver/server"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// ttl is the default of --lease-ttl; etcd looks for ended leases twice a second.
const ttl = 3 * time.Second

// slack is what a busy machine may add.
const slack = 1500 * time.Millisecond

var names = []string{"one", "two", "three", "four"}

// servedBy checks that a replica says itself that it runs the loops.
func servedBy(t *testing.T, r *replica, clusters ...string) func() error {
	t.Helper()
	conn, err := grpc.NewClient(r.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	health := grpc_health_v1.NewHealthClient(conn)
	return func() error {
		for _, name := range clusters {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			got, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: server.HealthService(name)})
			cancel()
			if err != nil {
				return err
			}
			if got.Status != grpc_health_v1.HealthCheckResponse_SERVING {
				return fmt.Errorf("%s is %v at %s", name, got.Status, r.id)
			}
		}
		return nil
	}
}

// pair starts two Configservers on one etcd, the first of which owns all.
func pair(t *testing.T) (*world, *replica, *replica) {
	t.Helper()
	w := newWorld(t)
	a := w.serve(t, "cs-a")
	for _, name := range names {
		create(t, a, w.credentials, name)
	}
	eventually(t, "cs-a owns all", 5*time.Second, w.ownedBy(t, "cs-a", names...))
	eventually(t, "cs-a serves all", 5*time.Second, servedBy(t, a, names...))
	return w, a, w.serve(t, "cs-b")
}

func TestOwnerKilled(t *testing.T) {
	t.Parallel()
	w, a, b := pair(t)
	a.signal(t, syscall.SIGKILL)
	a.exited(t, time.Second)
	took := eventually(t, "cs-b takes over", ttl+500*time.Millisecond+slack, servedBy(t, b, names...))
	t.Logf("taken over %v after kill -9 of the owner, with a lease of %v", took.Round(time.Millisecond), ttl)
	if err := w.ownedBy(t, "cs-b", names...)(); err != nil {
		t.Error(err)
	}
	got, err := b.api.GetCluster(t.Context(), &basaltv1.GetClusterRequest{Name: "one"})
	if err != nil || got.GetOwner() != "cs-b" {
		t.Errorf("owner %q, %v", got.GetOwner(), err)
	}
}

// TestOwnerHangs stops the owner for longer than its lease. When it wakes, it
// must give up what is no longer its own, and it may join again.
func TestOwnerHangs(t *testing.T) {
	t.Parallel()
	w, a, _ := pair(t)
	a.signal(t, syscall.SIGSTOP)
	took := eventually(t, "cs-b takes over", ttl+500*time.Millisecond+slack, w.ownedBy(t, "cs-b", names...))
	t.Logf("taken over %v after SIGSTOP of the owner", took.Round(time.Millisecond))
	a.signal(t, syscall.SIGCONT)
	eventually(t, "cs-a is back", 10*time.Second, a.ready)
	eventually(t, "cs-a noticed", 10*time.Second, func() error {
		if !strings.Contains(a.log.String(), "session lost") {
			return fmt.Errorf("no line about the session")
		}
		return nil
	})
}

func TestOwnerStopped(t *testing.T) {
	t.Parallel()
	w, a, b := pair(t)
	a.signal(t, syscall.SIGTERM)
	took := eventually(t, "cs-b takes over", 2*time.Second, servedBy(t, b, names...))
	t.Logf("taken over %v after SIGTERM of the owner", took.Round(time.Millisecond))
	if state := a.exited(t, 5*time.Second); !state.Success() {
		t.Errorf("cs-a ended with %v", state)
	}
	if err := w.ownedBy(t, "cs-b", names...)(); err != nil {
		t.Error(err)
	}
}

// TestClustersSpread waits for the handover of those clusters for
// which the second replica is placed better; none of them waits for a lease.
func TestClustersSpread(t *testing.T) {
	t.Parallel()
	w, _, b := pair(t)
	eventually(t, "cs-b gets a share", 20*time.Second, func() error {
		for _, name := range names {
			if w.ownedBy(t, "cs-b", name)() == nil {
				return servedBy(t, b, name)()
			}
		}
		return fmt.Errorf("cs-b owns nothing")
	})
}

// back waits until both replicas are ready and every cluster has an owner.
func back(t *testing.T, w *world, replicas ...*replica) {
	t.Helper()
	for _, r := range replicas {
		eventually(t, r.id+" ready again", 15*time.Second, r.ready)
	}
	took := eventually(t, "owners", 15*time.Second, w.ownedBy(t, "", names...))
	t.Logf("every cluster was owned again %v later", took.Round(time.Millisecond))
	for _, r := range replicas {
		select {
		case <-r.done:
			t.Errorf("%s ended", r.id)
		default:
		}
	}
}

func TestEtcdHangs(t *testing.T) {
	t.Parallel()
	w, a, b := pair(t)
	w.etcd.signal(t, syscall.SIGSTOP)
	for _, r := range []*replica{a, b} {
		eventually(t, r.id+" notices", 2*ttl, r.notReady)
	}
	time.Sleep(ttl)
	if err := servedBy(t, a, names...)(); err == nil {
		t.Error("loops run at cs-a though its lease ended")
	}
	w.etcd.signal(t, syscall.SIGCONT)
	back(t, w, a, b)
}

func TestEtcdKilled(t *testing.T) {
	t.Parallel()
	w, a, b := pair(t)
	w.etcd.signal(t, syscall.SIGKILL)
	w.etcd.exited(t, time.Second)
	for _, r := range []*replica{a, b} {
		eventually(t, r.id+" notices", 2*ttl, r.notReady)
	}
	time.Sleep(ttl)
	w.startEtcd(t)
	back(t, w, a, b)
	create(t, b, w.credentials, "five")
	eventually(t, "a new cluster is owned", 5*time.Second, w.ownedBy(t, "", "five"))
}

// TestEtcdRestartsQuickly is over before any lease ends: nobody loses a cluster.
func TestEtcdRestartsQuickly(t *testing.T) {
	t.Parallel()
	w, a, b := pair(t)
	w.etcd.signal(t, syscall.SIGKILL)
	w.etcd.exited(t, time.Second)
	w.startEtcd(t)
	back(t, w, a, b)
	if strings.Contains(a.log.String(), "session lost") {
		t.Error("cs-a lost its session")
	}
}

// TestEmbedded restarts a Configserver with its own etcd, killed and stopped.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	dir, credentials := t.TempDir(), t.TempDir()
	args := []string{"--data-dir", dir, "--etcd-embedded-listen", freePort(t)}
	a := serve(t, "cs-a", credentials, args...)
	create(t, a, credentials, "one")
	eventually(t, "served", 5*time.Second, servedBy(t, a, "one"))
	a.signal(t, syscall.SIGKILL)
	a.exited(t, time.Second)

	began := time.Now()
	a = serve(t, "cs-a", credentials, args...)
	t.Logf("ready %v after a restart", time.Since(began).Round(time.Millisecond))
	eventually(t, "served after kill -9", 2*ttl+slack, servedBy(t, a, "one"))
	a.signal(t, syscall.SIGTERM)
	if state := a.exited(t, 10*time.Second); !state.Success() {
		t.Errorf("cs-a ended with %v", state)
	}

	a = serve(t, "cs-a", credentials, args...)
	eventually(t, "served after SIGTERM", time.Second+slack, servedBy(t, a, "one"))
	second := start(t, "second", "serve", "--listen", freePort(t), "--http-listen", "", "--data-dir", dir)
	if state := second.exited(t, 5*time.Second); state.Success() || !strings.Contains(second.log.String(), "in use by another process") {
		t.Errorf("a second server on the directory: %v", state)
	}
	busy := start(t, "busy", "serve", "--listen", a.grpc, "--http-listen", "", "--data-dir", t.TempDir())
	if state := busy.exited(t, 5*time.Second); state.Success() || !strings.Contains(busy.log.String(), "--listen") {
		t.Errorf("a busy port: %v", state)
	}
}

func TestStartsBeforeEtcd(t *testing.T) {
	t.Parallel()
	credentials, endpoint, dir := t.TempDir(), freePort(t), t.TempDir()
	r := &replica{id: "early", grpc: freePort(t), http: freePort(t)}
	r.process = start(t, "early", "serve", "--listen", r.grpc, "--http-listen", r.http,
		"--credentials-dir", credentials, "--etcd-endpoints", endpoint)
	eventually(t, "waits", 5*time.Second, r.notReady)
	eventually(t, "says so", 5*time.Second, func() error {
		if !strings.Contains(r.log.String(), "cannot join") {
			return fmt.Errorf("no line about it")
		}
		return nil
	})
	time.Sleep(time.Second)
	start(t, "etcd", "etcd", "--data-dir", dir, "--listen-client", endpoint, "--listen-peer", freePort(t))
	eventually(t, "ready", 15*time.Second, r.ready)
	if n := strings.Count(r.log.String(), "cannot join"); n != 1 {
		t.Errorf("%d lines about etcd that is away", n)
	}
	r.signal(t, syscall.SIGTERM)
	if state := r.exited(t, 10*time.Second); !state.Success() {
		t.Errorf("ended with %v", state)
	}
}

package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/configserver/config"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// TestServes runs a whole server in this process and asks it everything that a
// program or a person would ask first.
func TestServes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	folder := filepath.Join(dir, "credentials", "a")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"admin-password": "test-admin", "cluster-secret": "test-secret-of-some-length"} {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := config.Serve{
		ID: "cs", Listen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", DataDir: filepath.Join(dir, "data"),
		CredentialsDir: filepath.Join(dir, "credentials"), LeaseTTL: 2 * time.Second, LogLevel: "error", LogFormat: "text", Pprof: true,
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + s.http.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if code, body := get("/readyz"); code == http.StatusOK {
			break
		} else if time.Since(began) > 10*time.Second {
			t.Fatalf("not ready: %s", body)
		}
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz %d", code)
	}
	if code, _ := get("/debug/pprof/"); code != http.StatusOK {
		t.Errorf("pprof %d", code)
	}

	conn, err := grpc.NewClient(s.rpc.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	api := basaltv1.NewClusterServiceClient(conn)
	if _, err := api.GetCluster(ctx, &basaltv1.GetClusterRequest{Name: "a"}); status.Code(err) != codes.NotFound {
		t.Errorf("unknown cluster: %v", err)
	}
	_, err = api.CreateCluster(ctx, &basaltv1.CreateClusterRequest{Name: "nofiles", Shards: 1, NodesPerShard: 1})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(status.Convert(err).Message(), "admin-password") {
		t.Errorf("create without credentials: %v", err)
	}
	if _, err := api.CreateCluster(ctx, &basaltv1.CreateClusterRequest{Name: "a", Shards: 1, NodesPerShard: 1}); err != nil {
		t.Fatal(err)
	}
	health := grpc_health_v1.NewHealthClient(conn)
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		got, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: HealthService("a")})
		if err == nil && got.Status == grpc_health_v1.HealthCheckResponse_SERVING {
			break
		} else if time.Since(began) > 10*time.Second {
			t.Fatalf("the loop does not run: %v, %v", got, err)
		}
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		got, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil && got.Status == grpc_health_v1.HealthCheckResponse_SERVING {
			break
		} else if time.Since(began) > 10*time.Second {
			t.Fatalf("health %v, %v", got, err)
		}
	}
	services := reflected(t, conn)
	for _, want := range []string{"basalt.v1.ClusterService", "basalt.v1.TopologyService", "basalt.v1.EventService", "grpc.health.v1.Health"} {
		if !slices.Contains(services, want) {
			t.Errorf("reflection does not know %s: %v", want, services)
		}
	}
	_, metrics := get("/metrics")
	for _, want := range []string{
		"basalt_configserver_session_held 1", "basalt_configserver_clusters_owned 1",
		`basalt_configserver_store_request_seconds_count{operation="create",result="ok"} 1`,
		`method="/basalt.v1.ClusterService/CreateCluster"`, "basalt_build_info",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}

	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("did not stop")
	}
}

// reflected lists the services that reflection knows.
func reflected(t *testing.T, conn *grpc.ClientConn) (names []string) {
	t.Helper()
	stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range got.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	return names
}

func TestCallsContainPanics(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	c := newCalls(prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
	_, err := c.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/x/Y"}, func(context.Context, any) (any, error) { panic("hunger") })
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "hunger") {
		t.Errorf("unary: %v", err)
	}
	err = c.stream(nil, nil, &grpc.StreamServerInfo{FullMethod: "/x/Z"}, func(any, grpc.ServerStream) error { panic("thirst") })
	if status.Code(err) != codes.Internal {
		t.Errorf("stream: %v", err)
	}
	if !strings.Contains(log.String(), "hunger") || !strings.Contains(log.String(), "thirst") {
		t.Errorf("logged %s", log.String())
	}
	want := errors.New("as it is")
	if _, err := c.unary(t.Context(), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { return nil, want }); err != want {
		t.Errorf("error became %v", err)
	}
}

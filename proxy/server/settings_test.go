package server

import (
	"context"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/internal/redistest"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// settings is the part of a Configserver that CONFIG SET needs: it sets
// parameters on servers, or answers with an error.
type settings struct {
	basaltv1.UnimplementedClusterServiceServer

	mu      sync.Mutex
	servers []*redistest.Server
	err     error
	calls   int
}

func (s *settings) SetConfig(_ context.Context, r *basaltv1.SetConfigRequest) (*basaltv1.Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls++; s.err != nil {
		err := s.err
		if status.Code(err) == codes.Unavailable {
			s.err = nil // another one owns the cluster the next time
		}
		return nil, err
	}
	for _, server := range s.servers {
		for _, p := range r.GetParameters() {
			server.MustDo("CONFIG", "SET", p.GetName(), p.GetValue())
		}
	}
	return &basaltv1.Cluster{Name: r.GetCluster()}, nil
}

func TestConfig(t *testing.T) {
	ctx := t.Context()
	servers := []*redistest.Server{redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})}
	own := &settings{servers: servers}
	c := startConfigserver(t, own)
	c.publish(topologyOf(1, servers...))
	r := startProxy(t, c)
	r.eventually("readiness", r.ready)
	client := r.redis()
	set := func(pairs ...string) string {
		args := []any{"CONFIG", "SET"}
		for _, p := range pairs {
			args = append(args, p)
		}
		if err := client.Do(ctx, args...).Err(); err != nil {
			return err.Error()
		}
		return "OK"
	}
	if got := set("maxmemory-policy", "allkeys-lru", "hz", "33"); got != "OK" {
		t.Error(got)
	}
	shown, err := client.ConfigGet(ctx, "*").Result()
	if err != nil || shown["maxmemory-policy"] != "allkeys-lru" || shown["hz"] != "33" || shown["maxclients"] != "20000" || shown["masterauth"] != "" || len(shown) < 150 {
		t.Errorf("CONFIG GET: %d parameters, %v, %v", len(shown), shown["maxmemory-policy"], err)
	}
	// Tools write back what they read; only the servers' go any further.
	calls := own.calls
	if got := set("maxclients", "20000", "masterauth", ""); got != "OK" || own.calls != calls {
		t.Error(got, own.calls)
	}
	for _, refused := range []struct {
		err  error
		want string
	}{
		{status.Error(codes.InvalidArgument, "ERR Unknown option or number of arguments for CONFIG SET - 'x'"), "ERR Unknown option or number of arguments for CONFIG SET - 'x'"},
		{status.Error(codes.InvalidArgument, "parameters: 600, want 1 to 500"), "ERR CONFIG SET failed - parameters: 600"},
		{status.Error(codes.FailedPrecondition, "no master answers now"), "ERR CONFIG SET failed - no master answers now"},
		{status.Error(codes.Internal, "two\r\nlines"), "ERR CONFIG SET failed - it may or may not be done (two  lines)"},
		{status.Error(codes.Unavailable, "no configserver owns cluster \"local\" right now"), "OK"}, // asked again
	} {
		own.mu.Lock()
		own.err = refused.err
		own.mu.Unlock()
		if got := set("hz", "10"); !strings.HasPrefix(got, refused.want) {
			t.Errorf("%v: %q", refused.err, got)
		}
	}
	if got := set("requirepass", "s3cret"); !strings.Contains(got, "it is a secret") || strings.Contains(got, "s3cret") {
		t.Error(got)
	}
	if got := set("hz", "\xff\xfe"); !strings.Contains(got, "is not UTF-8") {
		t.Error(got)
	}
	c.stop()
	r.eventually("the Configserver to be missed", func() bool {
		return strings.Contains(set("hz", "12"), "it needs the Configserver, which does not answer now; nothing was changed")
	})
	if got, err := client.ConfigGet(ctx, "hz").Result(); err != nil || got["hz"] != "10" {
		t.Errorf("CONFIG GET without a Configserver: %v, %v", got, err)
	}
	if log := r.log.String(); strings.Contains(log, "s3cret") {
		t.Error("the log has a secret in it")
	}
}

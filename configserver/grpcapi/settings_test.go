package grpcapi

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func TestSetConfig(t *testing.T) {
	st := newStore(t)
	cs, other := startConfigserver(t, st, "cs-0"), startConfigserver(t, st, "cs-1")
	loop := cs.own(t, st, "blue")
	set := func(pairs ...string) (*basaltv1.Cluster, error) {
		req := &basaltv1.SetConfigRequest{Cluster: "blue"}
		for i := 0; i < len(pairs); i += 2 {
			req.Parameters = append(req.Parameters, &basaltv1.ConfigParameter{Name: pairs[i], Value: pairs[i+1]})
		}
		return other.clusters().SetConfig(t.Context(), req)
	}
	c, err := set("maxmemory", "1mb")
	if err != nil || len(c.GetConfig()) != 1 || c.GetConfig()[0].GetValue() != "1mb" || c.GetOwner() != "cs-0" {
		t.Errorf("%v, %v", c, err)
	}
	_, err = set()
	wantStatus(t, err, codes.InvalidArgument, "parameters")
	_, err = set(strings.Repeat("n", topology.MaxSettingName+1), "x")
	wantStatus(t, err, codes.InvalidArgument, "a name has")
	_, err = set("requirepass", strings.Repeat("s3cret", 1000))
	wantStatus(t, err, codes.InvalidArgument, "at most")
	if strings.Contains(status.Convert(err).Message(), "s3cret") {
		t.Error("the error repeats the value")
	}
	_, err = other.clusters().UnsetConfig(t.Context(), &basaltv1.UnsetConfigRequest{Cluster: "blue"})
	wantStatus(t, err, codes.InvalidArgument, "names")

	// The words of a server arrive as they were.
	loop.err = &topology.RefusalError{Reply: "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'"}
	_, err = set("nosuch", "1")
	wantStatus(t, err, codes.InvalidArgument)
	if got := status.Convert(err).Message(); got != loop.err.Error() {
		t.Errorf("message %q", got)
	}
}

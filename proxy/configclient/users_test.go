package configclient

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// fakeUsers is what a fake Configserver knows of users.
type fakeUsers struct {
	basaltv1.UnimplementedUserServiceServer
	*fake
}

func (f fakeUsers) answer() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.userErrors) == 0 {
		return nil
	}
	err := f.userErrors[0]
	f.userErrors = f.userErrors[1:]
	return err
}

func (f fakeUsers) SetUser(context.Context, *basaltv1.SetUserRequest) (*basaltv1.SetUserResponse, error) {
	return &basaltv1.SetUserResponse{}, f.answer()
}

func (f fakeUsers) DeleteUsers(context.Context, *basaltv1.DeleteUsersRequest) (*basaltv1.DeleteUsersResponse, error) {
	return &basaltv1.DeleteUsersResponse{Deleted: 1}, f.answer()
}

// TestUsersWhileTheClusterMoves: while nobody runs the cluster nothing is done, so it
// is asked for again; any other error may mean that it was done.
func TestUsersWhileTheClusterMoves(t *testing.T) {
	f := startFake(t)
	p := startProxy(t, nil, f)
	if err := p.SetUser("app", nil); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("without a Configserver: %v", err)
	}
	s := f.stream(0)
	s.snapshot(topologyAt(1, "a"))
	s.acked(1)
	moving := status.Error(codes.Unavailable, `no configserver owns cluster "local" right now; retry in a few seconds`)
	f.do(func() { f.userErrors = []error{moving, moving} })
	if err := p.SetUser("app", []string{"on"}); err != nil {
		t.Errorf("while it moves: %v", err)
	}
	f.do(func() { f.userErrors = []error{moving} })
	if n, err := p.DeleteUsers([]string{"app"}); n != 1 || err != nil {
		t.Errorf("while it moves: %d, %v", n, err)
	}
	f.do(func() {
		f.userErrors = []error{status.Error(codes.Unavailable, "configserver died while it worked on this")}
	})
	if err := p.SetUser("app", []string{"on"}); err == nil || !strings.Contains(err.Error(), "it is not known") {
		t.Errorf("when it died: %v", err)
	}
	f.do(func() {
		f.userErrors = []error{status.Error(codes.InvalidArgument, "Error in ACL SETUSER modifier 'x': Syntax error")}
	})
	if err := p.SetUser("app", []string{"x"}); err == nil || !strings.HasPrefix(err.Error(), "Error in ACL SETUSER") {
		t.Errorf("a mistake: %v", err)
	}
}

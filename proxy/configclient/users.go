package configclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/acl"
)

// usersTimeout bounds a change of users. The Configserver waits for the acks of
// all proxies, and shuts those out that do not answer.
const usersTimeout = 20 * time.Second

var _ acl.Keeper = (*Client)(nil)

// SetUser implements acl.Keeper.
func (c *Client) SetUser(name string, modifiers []string) error {
	request := &basaltv1.SetUserRequest{Cluster: c.cfg.Cluster, User: []byte(name)}
	for _, m := range modifiers {
		request.Modifiers = append(request.Modifiers, []byte(m))
	}
	return c.askKeeper(func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := basaltv1.NewUserServiceClient(conn).SetUser(ctx, request)
		return err
	})
}

// DeleteUsers implements acl.Keeper.
func (c *Client) DeleteUsers(names []string) (int, error) {
	request := &basaltv1.DeleteUsersRequest{Cluster: c.cfg.Cluster}
	for _, name := range names {
		request.Users = append(request.Users, []byte(name))
	}
	deleted := 0
	err := c.askKeeper(func(ctx context.Context, conn *grpc.ClientConn) error {
		reply, err := basaltv1.NewUserServiceClient(conn).DeleteUsers(ctx, request)
		deleted = int(reply.GetDeleted())
		return err
	})
	return deleted, err
}

// askKeeper makes a call about users. The error is for clients to read.
func (c *Client) askKeeper(call func(ctx context.Context, conn *grpc.ClientConn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), usersTimeout)
	defer cancel()
	err := c.atOwner(ctx, func(conn *grpc.ClientConn) error { return call(ctx, conn) })
	if errors.Is(err, ErrAway) || ownerless(err) {
		return errors.New("no Configserver can be reached now, and it keeps the users: nothing was changed, try again")
	}
	s := status.Convert(err)
	switch s.Code() {
	case codes.OK:
		return nil
	case codes.InvalidArgument, codes.FailedPrecondition:
		return errors.New(s.Message())
	}
	return fmt.Errorf("it is not known if the users were changed (%s): ask for it again", s.Message())
}

// compileUsers compiles the users of a state, unless they are those in force.
// nil means that the Configserver does not know users.
func (c *Client) compileUsers(next state) *acl.Users {
	if next.users == nil {
		return nil
	}
	if c.users != nil && proto.Equal(next.users, c.state.users) {
		return c.users
	}
	texts := make([]acl.Text, len(next.users.GetUsers()))
	for i, u := range next.users.GetUsers() {
		texts[i] = acl.Text{Rules: u.GetRules(), Created: u.GetCreated()}
	}
	users, errs := acl.Compile(texts, c.users)
	for _, err := range errs {
		c.log.Error("a user is off: this version does not understand its rules", "error", err)
	}
	return users
}

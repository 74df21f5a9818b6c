package configclient

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// ErrAway: no Configserver is connected now.
var ErrAway = errors.New("no configserver is connected")

// SetConfig has the Configserver set parameters of the servers' configuration;
// settings are names and values in turn. Errors: ErrAway, before anything was
// sent, and those of the API as they are.
func (c *Client) SetConfig(ctx context.Context, settings []string) error {
	req := &basaltv1.SetConfigRequest{Cluster: c.cfg.Cluster}
	for i := 0; i+1 < len(settings); i += 2 {
		req.Parameters = append(req.Parameters, &basaltv1.ConfigParameter{Name: settings[i], Value: settings[i+1]})
	}
	return c.atOwner(ctx, func(conn *grpc.ClientConn) error {
		_, err := basaltv1.NewClusterServiceClient(conn).SetConfig(ctx, req)
		return err
	})
}

// atOwner makes a call to the Configserver of the stream, and again while the
// cluster moves to another one: nothing was done then.
func (c *Client) atOwner(ctx context.Context, call func(conn *grpc.ClientConn) error) error {
	for {
		conn := c.peer()
		if conn == nil {
			return ErrAway
		}
		err := call(conn)
		if !ownerless(err) {
			return err
		}
		select {
		case <-time.After(reownWait):
		case <-ctx.Done():
			return err
		}
	}
}

// ownerless tells if a call was not made, because nobody runs the cluster now.
func ownerless(err error) bool {
	return status.Code(err) == codes.Unavailable && strings.HasPrefix(status.Convert(err).Message(), "no configserver owns")
}

// reownWait is the pause before a Configserver without the cluster is asked again.
const reownWait = 100 * time.Millisecond

// peer is the connection to the Configserver whose stream is open; nil when none
// is.
func (c *Client) peer() *grpc.ClientConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

func (c *Client) setPeer(conn *grpc.ClientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn = conn; conn != nil {
		close(c.online)
	} else {
		c.online, c.offline = make(chan struct{}), time.Now()
	}
}

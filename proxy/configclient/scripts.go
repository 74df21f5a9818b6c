package configclient

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
	"github.com/basalt-redis/basalt/proxy/scripts"
)

// Calls beside the stream use its connection: it goes to a Configserver that is
// known to be alive, and when that dies they fail with the stream. Any
// Configserver answers them.

var errOffline = errors.New("not connected to a configserver")

// server returns the connection of the stream, once there is one.
func (c *Client) server(ctx context.Context) (*grpc.ClientConn, error) {
	for {
		c.mu.Lock()
		conn, online := c.conn, c.online
		c.mu.Unlock()
		if conn != nil {
			return conn, nil
		}
		select {
		case <-online:
		case <-ctx.Done():
			return nil, errOffline
		}
	}
}

// patience is how long after the end of a stream a question about scripts waits for
// the next stream. After that it is answered from memory at once: clients that give
// up after some milliseconds would never be told that a script is unknown, and so
// never send it.
const patience = time.Second

// away tells if no Configserver could be reached for a while.
func (c *Client) away() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn == nil && time.Since(c.offline) > patience
}

// PutScripts implements scripts.Keeper.
func (c *Client) PutScripts(ctx context.Context, flushes uint64, list []scripts.Source) (uint64, error) {
	conn, err := c.server(ctx)
	if err != nil {
		return 0, err
	}
	req := &basaltv1.PutScriptsRequest{Cluster: c.cfg.Cluster, Flushes: flushes}
	for _, s := range list {
		req.Scripts = append(req.Scripts, &basaltv1.Script{Sha: s.SHA, Source: []byte(s.Text), Loaded: s.Loaded})
	}
	r, err := basaltv1.NewScriptServiceClient(conn).PutScripts(ctx, req)
	return r.GetFlushes(), err
}

// GetScripts implements scripts.Keeper.
func (c *Client) GetScripts(ctx context.Context, shas []string, sources bool) (map[string]string, uint64, error) {
	if c.away() {
		return nil, 0, errOffline
	}
	conn, err := c.server(ctx)
	if err != nil {
		return nil, 0, err
	}
	req := &basaltv1.GetScriptsRequest{Cluster: c.cfg.Cluster, Shas: shas, NamesOnly: !sources}
	r, err := basaltv1.NewScriptServiceClient(conn).GetScripts(ctx, req)
	if err != nil {
		return nil, 0, err
	}
	kept := map[string]string{}
	for _, s := range r.GetScripts() {
		kept[s.GetSha()] = string(s.GetSource())
	}
	return kept, r.GetFlushes(), nil
}

// FlushScripts implements scripts.Keeper.
func (c *Client) FlushScripts(ctx context.Context) (uint64, error) {
	conn, err := c.server(ctx)
	if err != nil {
		return 0, err
	}
	r, err := basaltv1.NewScriptServiceClient(conn).FlushScripts(ctx, &basaltv1.FlushScriptsRequest{Cluster: c.cfg.Cluster})
	return r.GetFlushes(), err
}

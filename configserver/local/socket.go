package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// The runner is spoken to in HTTP with JSON over a unix socket that only its
// user can open.

// maxSocketPath is below the 108 bytes that Linux allows.
const maxSocketPath = 100

// listen opens the socket and serves it until the returned function is called.
func (g *playground) listen() (path string, closeSocket func(), err error) {
	dir := ""
	path = g.opts.StatePath[:len(g.opts.StatePath)-len(filepath.Ext(g.opts.StatePath))] + ".sock"
	if len(path) > maxSocketPath {
		if dir, err = os.MkdirTemp("/tmp", "basalt-"); err != nil {
			return "", nil, fmt.Errorf("control socket: %w", err)
		}
		path = filepath.Join(dir, "local.sock")
	}
	// The caller holds the lock of the state file: what is there is a leftover.
	_ = os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return "", nil, fmt.Errorf("control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /act", func(w http.ResponseWriter, r *http.Request) {
		var request Request
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&request); err != nil {
			answer(w, nil, err)
			return
		}
		done, err := g.act(r.Context(), request)
		answer(w, done, err)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		answer(w, g.status(r.Context()), nil)
	})
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, nil, nil)
		_ = http.NewResponseController(w).Flush()
		g.down()
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return path, func() {
		_ = server.Close()
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
	}, nil
}

// reply carries a result, an error, or what was done before an error.
type reply struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

func answer(w http.ResponseWriter, result any, err error) {
	var r reply
	if err != nil {
		r.Error = err.Error()
	}
	if data, marshalErr := json.Marshal(result); marshalErr == nil {
		r.Result = data
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(r)
}

// Client speaks to a running playground.
type Client struct {
	// State is what the state file says.
	State     State
	statePath string
	http      *http.Client
}

// Open finds the playground of a state file; ErrNoPlayground when there is
// none.
func Open(statePath string) (*Client, error) {
	state, err := ReadState(statePath)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	return &Client{State: state, statePath: statePath, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", state.Socket)
		},
		DisableKeepAlives: true,
	}}}, nil
}

// Act does something to processes. What was done before an error is returned
// with it.
func (c *Client) Act(ctx context.Context, r Request) ([]Done, error) {
	var done []Done
	err := c.call(ctx, http.MethodPost, "/act", r, &done)
	return done, err
}

// Status returns the playground and its processes.
func (c *Client) Status(ctx context.Context) (Status, error) {
	s := Status{State: c.State}
	err := c.call(ctx, http.MethodGet, "/status", nil, &s.Processes)
	return s, err
}

// Down asks the runner to stop everything and waits until it did.
func (c *Client) Down(ctx context.Context) error {
	if err := c.call(ctx, http.MethodPost, "/down", nil, nil); err != nil {
		return err
	}
	// The runner holds the lock of the state file until all is gone.
	for {
		lock, err := lockFile(c.statePath + ".lock")
		if err == nil {
			return lock.Close()
		}
		if !errors.Is(err, errLocked) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the playground (pid %d) has not stopped yet: %w", c.State.PID, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Client) call(ctx context.Context, method, path string, request, result any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://playground"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := c.http.Do(r)
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "dial" {
		return fmt.Errorf("the playground (pid %d) is gone; start it again with `basaltctl local up`", c.State.PID)
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer reply
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("answer of the playground: %w", err)
	}
	if result != nil && len(answer.Result) > 0 {
		if err := json.Unmarshal(answer.Result, result); err != nil {
			return fmt.Errorf("answer of the playground: %w", err)
		}
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return nil
}

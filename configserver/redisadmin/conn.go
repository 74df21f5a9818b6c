// Package redisadmin speaks to one redis-server as its administrator: typed
// commands over one connection that never becomes another one.
//
// A server may die and a new, empty one take its address within milliseconds.
// What the Configserver learned about the first must never be done to the
// second. So a Conn dials once, reads the run_id on that very connection, and
// refuses to dial again: whatever follows hits the incarnation that was read, or
// fails.
package redisadmin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/topology"
)

var (
	// ErrIncarnation: the server is another process than the one that was meant;
	// observe it again before doing anything to it.
	ErrIncarnation = errors.New("another incarnation answers")
	// ErrPassword: the server refuses every admin password on file.
	ErrPassword = errors.New("the server refuses the admin password")

	// ErrSilent: the connection was accepted and nothing is answered in time; a
	// process is there.
	ErrSilent = errors.New("connected, and not answered in time")

	errSecondDial = errors.New("connection is gone and is not replaced")
)

// CallTimeout bounds every command; a caller's context may shorten it.
const CallTimeout = time.Second

func init() {
	// go-redis writes failed dials to stderr; every error is returned as well
	// and is logged, once, by whoever knows what it means.
	logging.Disable()
}

// Conn is one connection to one incarnation of a server.
type Conn struct {
	// Address is "host:port".
	Address string
	// Info is what the server said of itself when the connection was made.
	Info Info
	// Guard is asked right before every command that changes the server; its
	// error is returned and nothing is sent. Whoever changes servers by a right
	// that it can lose sets it: the look at the right must not be older than the
	// dial and the answers that came between. nil asks nobody.
	Guard func() error
	// First is done once, before Guard is asked for the first time; nil for nothing.
	First func(ctx context.Context) error

	client *redis.Client
	conn   *redis.Conn
	nc     net.Conn
	stop   func() bool
}

// Dial connects, logs in with the first password that is accepted, and reads
// who answers. ctx bounds the dial, not the life of the connection (see Bind).
// Errors: ErrPassword, and those that SightOf tells apart.
func Dial(ctx context.Context, address string, passwords []string) (*Conn, error) {
	err := ErrPassword
	for _, password := range passwords {
		var c *Conn
		if c, err = dial(ctx, address, password); !errors.Is(err, ErrPassword) {
			return c, err
		}
	}
	return nil, err
}

// DialIncarnation is Dial that fails with ErrIncarnation unless the process
// with this run_id answers.
func DialIncarnation(ctx context.Context, address string, passwords []string, runID string) (*Conn, error) {
	c, err := Dial(ctx, address, passwords)
	if err != nil {
		return nil, err
	}
	if c.Info.RunID != runID {
		c.Close()
		return nil, fmt.Errorf("%s: want incarnation %.8s, found %.8s: %w", address, runID, c.Info.RunID, ErrIncarnation)
	}
	return c, nil
}

func dial(ctx context.Context, address, password string) (*Conn, error) {
	var dialed atomic.Pointer[net.Conn]
	client := redis.NewClient(&redis.Options{
		Addr:     address,
		Username: credentials.AdminUser,
		Password: password,
		Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
			if dialed.Load() != nil {
				return nil, errSecondDial
			}
			nc, err := (&net.Dialer{Timeout: CallTimeout}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			dialed.Store(&nc)
			return nc, nil
		},
		Protocol: 2, DisableIdentity: true,
		PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
		DialTimeout: CallTimeout, ReadTimeout: CallTimeout, WriteTimeout: CallTimeout,
		ContextTimeoutEnabled: true,
		ConnMaxIdleTime:       -1,
	})
	c := &Conn{Address: address, client: client, conn: client.Conn()}
	text, err := c.conn.Info(ctx).Result()
	if err != nil {
		c.Close()
		if isLoginError(err) {
			return nil, fmt.Errorf("%s: %w", address, ErrPassword)
		}
		if dialed.Load() != nil && isTimeout(err) {
			err = fmt.Errorf("%w: %w", ErrSilent, err)
		}
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	c.Info = ParseInfo(text)
	if nc := dialed.Load(); nc != nil {
		c.nc = *nc
	}
	return c, nil
}

// Bind closes the connection when ctx ends, also under a call that waits for an
// answer.
func (c *Conn) Bind(ctx context.Context) *Conn {
	if c.stop == nil && c.nc != nil {
		c.stop = context.AfterFunc(ctx, func() { _ = c.nc.Close() })
	}
	return c
}

// Remote is the "ip:port" that the connection leads to.
func (c *Conn) Remote() string {
	at, ok := c.nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	of := at.AddrPort()
	return netip.AddrPortFrom(of.Addr().Unmap(), of.Port()).String()
}

// Close ends the connection.
func (c *Conn) Close() {
	if c.stop != nil {
		c.stop()
	}
	_ = c.conn.Close()
	_ = c.client.Close()
}

// pipeline asks Guard (mayChange), sends commands in one write and returns the first error, with the
// name of its command and never its arguments, which may be secret.
func (c *Conn) pipeline(ctx context.Context, commands ...[]any) error {
	if err := c.mayChange(ctx); err != nil {
		return err
	}
	cmds, err := c.conn.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, args := range commands {
			p.Do(ctx, args...)
		}
		return nil
	})
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("%s: %s: %w", c.Address, name(cmd.Args()), err)
		}
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("%s: %w", c.Address, err)
	}
	return nil
}

// name is the part of a command that may be shown.
func name(args []any) string {
	if len(args) == 0 {
		return ""
	}
	first := fmt.Sprint(args[0])
	switch strings.ToUpper(first) {
	case "ACL", "CONFIG", "CLIENT":
		if len(args) > 1 {
			return first + " " + fmt.Sprint(args[1])
		}
	}
	return first
}

func isLoginError(err error) bool {
	text := err.Error()
	return strings.Contains(text, "WRONGPASS") || strings.HasPrefix(text, "NOAUTH") || strings.HasPrefix(text, "NOPERM")
}

// SightOf says what an error of a dial or a command means for the failure
// detector, and describes it for people. A missing route or name counts as a
// refusal: somebody said "no", and other vantage points are asked anyway.
func SightOf(err error) (topology.Sight, string) {
	var dns *net.DNSError
	switch {
	case err == nil:
		return topology.SightOK, "ok"
	case errors.Is(err, ErrPassword), isLoginError(err):
		return topology.SightFenced, "refuses the admin password: put the password the server was started with on line 1 or 2 of " + credentials.AdminFile
	case errors.Is(err, syscall.ECONNREFUSED):
		return topology.SightRefused, "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return topology.SightRefused, "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return topology.SightRefused, "no route to the host"
	case errors.As(err, &dns) && dns.IsNotFound:
		return topology.SightRefused, "host name not found"
	case isTimeout(err):
		return topology.SightTimeout, "no answer in time"
	}
	return topology.SightTimeout, err.Error()
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err)
}

package control

import (
	"context"
	"errors"
	"log/slog"

	"github.com/basalt-redis/basalt/configserver/credentials"
	"github.com/basalt-redis/basalt/configserver/store"
)

// ErrStopped: the loop ended or is ending; ask the cluster's new owner.
var ErrStopped = errors.New("the cluster's loop has stopped here")

// Config is what a loop needs.
type Config struct {
	// Cluster is the name.
	Cluster string
	// ID is the id of this Configserver, for reports.
	ID string
	// Store is read; every change goes through Ownership.
	Store     store.Store
	Ownership store.Ownership
	// Credentials opens the cluster's credentials files anew.
	Credentials func() (*credentials.Set, error)
	// Logger gets the cluster and the shard bound to it.
	Logger *slog.Logger
	// Metrics are shared by all loops of a process; nil for none.
	Metrics *Metrics
}

// Loop runs one cluster. It implements API.
type Loop struct {
	cfg Config
}

// New makes a loop, which does nothing until Run.
func New(cfg Config) (*Loop, error) {
	return &Loop{cfg: cfg}, nil
}

// Run owns the cluster until ctx ends (nil), the ownership is lost
// (store.ErrLeaseLost) or the cluster was deleted (nil).
func (l *Loop) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

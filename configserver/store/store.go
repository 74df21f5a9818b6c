// Package store keeps what the Configservers agree on: the record of every
// cluster, the epochs before it, its events, its proxies, who runs its loop.
//
// Every change goes through an Ownership, and lands in one transaction that
// compares the epoch before and the lease of the owner. A Configserver that
// lost its lease can therefore change nothing, however late its call arrives.
package store

import (
	"context"
	"errors"

	"github.com/basalt-redis/basalt/configserver/topology"
)

var (
	// ErrNotFound: no such cluster, or an epoch that was compacted.
	ErrNotFound = errors.New("not found")
	// ErrExists: a cluster of this name exists.
	ErrExists = errors.New("already exists")
	// ErrConflict: the record is at another epoch than the caller thought; read
	// it again and decide again.
	ErrConflict = errors.New("changed meanwhile")
	// ErrOwned: another Configserver runs this cluster's loop.
	ErrOwned = errors.New("owned by another configserver")
	// ErrLeaseLost: the caller must stop acting on the cluster at once.
	ErrLeaseLost = errors.New("lease lost")
	// ErrUncertain: the store did not answer in time, the change may or may not
	// have landed. Read the record before acting again.
	ErrUncertain = errors.New("outcome unknown")
	// ErrTooLarge: the store does not take that much at once; nothing was changed,
	// and asking again does not help.
	ErrTooLarge = errors.New("too large for the store")
	// ErrUnavailable: the store cannot be read now; try again.
	ErrUnavailable = errors.New("the store does not answer")
)

// Limits of what is kept per cluster.
const (
	KeepEpochs = 1000
	KeepEvents = 1000
)

// Replica is one live Configserver.
type Replica struct {
	ID string `json:"id"`
	// Address is where the others reach its gRPC API, "host:port".
	Address string `json:"address"`
}

// Member is a proxy that was given credentials of the cluster. It stays a
// member, dead or alive, until it says goodbye or is fenced: only then is it
// certain that it sends nothing by an old epoch.
type Member struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Version string `json:"version,omitempty"`
	// Seat is a number of topology.Cluster.Seats, and SeatVersion what it was when
	// the proxy was given credentials last; 0 in members of before there were seats.
	Seat        int    `json:"seat,omitempty"`
	SeatVersion uint32 `json:"seatVersion,omitempty"`
}

// Store is read by every Configserver and written through a Session.
type Store interface {
	// Join registers this Configserver under a lease that it keeps alive.
	Join(ctx context.Context, self Replica) (Session, error)
	// Replicas lists the live Configservers by id.
	Replicas(ctx context.Context) ([]Replica, error)
	// Owner tells who runs a cluster's loop; ErrNotFound when nobody does.
	Owner(ctx context.Context, cluster string) (Replica, error)

	// Create stores a new cluster at epoch 1; ErrExists.
	Create(ctx context.Context, c topology.Cluster) error
	// Cluster returns the newest record; ErrNotFound.
	Cluster(ctx context.Context, name string) (topology.Cluster, error)
	// Clusters returns the newest record of each cluster, by name.
	Clusters(ctx context.Context) ([]topology.Cluster, error)
	// Epoch returns the record as it was at an epoch, without its users;
	// ErrNotFound.
	Epoch(ctx context.Context, name string, epoch uint64) (topology.Cluster, error)
	// Epochs returns up to limit kept records, newest first, without users.
	Epochs(ctx context.Context, name string, limit int) ([]topology.Cluster, error)
	// Members lists the proxies of a cluster by id.
	Members(ctx context.Context, name string) ([]Member, error)

	// Events returns up to limit of the newest kept events with a sequence
	// number above after, oldest first.
	Events(ctx context.Context, name string, after uint64, limit int) ([]topology.Event, error)
	// WatchEvents sends kept events after a sequence number, then new ones, until
	// ctx ends. The channel closes with ctx or when the store fails.
	WatchEvents(ctx context.Context, name string, after uint64) (<-chan topology.Event, error)
	// Watch sends a signal after the set of clusters, owners or replicas
	// changed. Signals coalesce. The channel closes when ctx ends.
	Watch(ctx context.Context) <-chan struct{}

	// PutScripts keeps sources of scripts (scripts.go). flushes is how many flushes
	// the caller knows of; ErrFlushed when there were others. It may be repeated
	// after any error, and some other scripts may be dropped for it.
	PutScripts(ctx context.Context, name string, flushes uint64, scripts []Script) error
	// Scripts returns those that are kept of up to MaxScripts, without their
	// sources unless these are wanted, and how many flushes there were.
	Scripts(ctx context.Context, name string, shas []string, sources bool) (kept []Script, flushes uint64, err error)
	// FlushScripts forgets all sources and returns how many flushes there were.
	FlushScripts(ctx context.Context, name string) (flushes uint64, err error)

	Close() error
}

// Session is a Configserver's lease.
type Session interface {
	// Lost closes when the lease is gone; nothing may be done under it any more.
	Lost() <-chan struct{}
	// Claim takes a cluster's loop; ErrOwned when somebody has it.
	Claim(ctx context.Context, cluster string) (Ownership, error)
	// Close gives the lease back, and with it every ownership.
	Close(ctx context.Context) error
}

// Ownership is the right to change one cluster. Every call is fenced by the
// lease in its own transaction and fails with ErrLeaseLost once it is gone.
type Ownership interface {
	// Lost closes when the right is gone.
	Lost() <-chan struct{}
	// Commit replaces the record of epoch next.Epoch-1 by next, keeps the old
	// one as history, and appends events, all in one transaction. next must
	// pass Validate. ErrConflict, ErrLeaseLost, ErrTooLarge, ErrUncertain.
	Commit(ctx context.Context, next topology.Cluster, events ...topology.Event) error
	// Adopt is Commit with epochs left out between before, which must be the record,
	// and next: they were committed once, and lost when the store was restored from a
	// backup. Nothing but that is a reason for it. The epochs before are forgotten, so
	// that nothing can follow them any more.
	Adopt(ctx context.Context, before, next topology.Cluster, events ...topology.Event) error
	// Append adds events without a new epoch.
	Append(ctx context.Context, events ...topology.Event) error
	// PutMember must succeed before a proxy is given credentials.
	PutMember(ctx context.Context, m Member) error
	// RemoveMembers forgets proxies that said goodbye or were fenced.
	RemoveMembers(ctx context.Context, ids ...string) error
	// Delete removes the cluster, its history, events and members.
	Delete(ctx context.Context, epoch uint64) error
	// Release gives the cluster to whoever claims it next.
	Release(ctx context.Context) error
}

// Punctual is an Ownership that can look at the clock. A process that was
// stopped and goes on may hear of the end of its lease from Lost a moment after
// its other goroutines went on.
type Punctual interface {
	// Expired tells if the lease may have ended by now.
	Expired() bool
}

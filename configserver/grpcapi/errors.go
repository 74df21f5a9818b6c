package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/configserver/control"
	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	"github.com/basalt-redis/basalt/internal/acl"
)

// toStatus gives every error its gRPC code and a message that says what to do.
// It is the only place where codes are chosen for errors of other packages.
// Errors that are a gRPC status already, as those of a forwarded call, stay.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	var invalid *topology.InvalidError
	var precondition *topology.PreconditionError
	var refusal *topology.RefusalError
	var rule *acl.Error
	switch {
	case errors.As(err, &refusal):
		return status.Error(codes.InvalidArgument, refusal.Reply)
	case errors.As(err, &rule):
		return status.Error(codes.InvalidArgument, strings.ToValidUTF8(rule.Error(), "?")) // it holds no password, only their sums
	case errors.As(err, &invalid):
		// Several fields may be wrong at once: errors.Join puts one on a line.
		return status.Error(codes.InvalidArgument, strings.ReplaceAll(err.Error(), "\n", "; "))
	case errors.As(err, &precondition):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, store.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, store.ErrExists):
		return status.Error(codes.AlreadyExists, err.Error())
	case errors.Is(err, store.ErrConflict):
		return status.Errorf(codes.Aborted, "%v; read the cluster again and retry", err)
	case errors.Is(err, store.ErrUncertain):
		return status.Errorf(codes.Unknown, "%v: the change may or may not have landed; read the cluster before trying again", err)
	case errors.Is(err, store.ErrLeaseLost), errors.Is(err, store.ErrOwned), errors.Is(err, control.ErrStopped):
		return status.Errorf(codes.Unavailable, "%v: the cluster is moving to another configserver; retry in a few seconds", err)
	case errors.Is(err, store.ErrUnavailable):
		return status.Errorf(codes.Unavailable, "%v; retry in a few seconds, and see if etcd runs", err)
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

// aboutCluster says in an error of the store what to do about the cluster, and
// names it when the store did not.
func aboutCluster(name string, err error) error {
	if err == nil {
		return nil
	}
	if !strings.Contains(err.Error(), name) {
		err = fmt.Errorf("cluster %s: %w", name, err)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("%w; `basaltctl cluster list` shows those there are", err)
	case errors.Is(err, store.ErrExists):
		return fmt.Errorf("%w; delete it first or choose another name", err)
	}
	return err
}

// noOwner is what a caller gets while nobody runs the cluster's loop.
func noOwner(cluster string) error {
	return status.Errorf(codes.Unavailable, "no configserver owns cluster %q right now; retry in a few seconds", cluster)
}

// moved ends streams whose loop is not here any more.
func moved(cluster string) error {
	return status.Errorf(codes.Unavailable, "cluster %q is moving to another configserver; reconnect", cluster)
}

package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// method is a method of the API, as its client has it.
type method[Q, R any] func(ctx context.Context, request Q, options ...grpc.CallOption) (R, error)

// call repeats a request while nobody owns the cluster, as during a failover
// between Configservers, until ctx ends. The Configserver says so before it does
// anything, so that this is safe for every request.
func call[Q, R any](ctx context.Context, f method[Q, R], request Q) (R, error) {
	return repeat(ctx, nobodyOwns, f, request)
}

// read repeats a request that changes nothing as long as it may still be answered.
func read[Q, R any](ctx context.Context, f method[Q, R], request Q) (R, error) {
	return repeat(ctx, func(err error) bool {
		return status.Code(err) == codes.Unavailable && !strings.Contains(status.Convert(err).Message(), "Error while dialing")
	}, f, request)
}

func repeat[Q, R any](ctx context.Context, again func(error) bool, f method[Q, R], request Q) (R, error) {
	for {
		reply, err := f(ctx, request)
		if !again(err) {
			return reply, err
		}
		select {
		case <-ctx.Done():
			return reply, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func nobodyOwns(err error) bool {
	return status.Code(err) == codes.Unavailable && strings.HasPrefix(status.Convert(err).Message(), "no configserver owns")
}

// explain turns an error into one sentence that says what to do.
func (a *app) explain(err error) string {
	s, isStatus := status.FromError(err)
	if !isStatus {
		if errors.Is(err, context.Canceled) {
			return "interrupted"
		}
		return err.Error()
	}
	at := strings.Join(a.dialled, ",")
	switch message := s.Message(); s.Code() {
	case codes.Unavailable:
		// gRPC's own words, when no connection could be made.
		if _, why, ok := strings.Cut(message, "Error while dialing: "); ok {
			if i := strings.LastIndex(why, ": "); i >= 0 {
				why = why[i+2:]
			}
			return "no configserver answers at " + at + " (" + strings.Trim(why, `"`) + "); start a playground with `basaltctl local up`, or name a configserver with --configserver"
		}
		if strings.HasPrefix(message, "error reading from server") || strings.HasPrefix(message, "connection error") {
			return "the connection to the configserver at " + at + " broke (" + message + "); see with `basaltctl cluster status` what was done before trying again"
		}
		return message
	case codes.DeadlineExceeded:
		// gRPC's own words, when the time was over here, or over there a moment before.
		if strings.Contains(message, "context deadline exceeded") || strings.Contains(message, "terminated by RST_STREAM") {
			return "no answer from the configserver at " + at + " in time; see with `basaltctl cluster status` what was done, or wait longer with --timeout"
		}
		return message
	case codes.Canceled:
		return "interrupted"
	case codes.Unimplemented:
		return "the configserver at " + at + " is older than this basaltctl (" + message + "); upgrade it"
	default:
		return message
	}
}

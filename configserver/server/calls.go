package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// calls measures gRPC calls and contains their panics: one bad request must
// not take down every cluster's loop.
type calls struct {
	log     *slog.Logger
	seconds *prometheus.HistogramVec
	streams *prometheus.GaugeVec
	panics  prometheus.Counter
}

func newCalls(reg prometheus.Registerer, log *slog.Logger) *calls {
	c := &calls{
		log: log,
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "basalt", Subsystem: "configserver", Name: "grpc_request_seconds",
			Help:    "Duration of unary gRPC calls, by method and code.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"method", "code"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "basalt", Subsystem: "configserver", Name: "grpc_streams",
			Help: "Open gRPC streams, by method.",
		}, []string{"method"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "basalt", Subsystem: "configserver", Name: "grpc_panics_total",
			Help: "Panics while answering gRPC calls.",
		}),
	}
	reg.MustRegister(c.seconds, c.streams, c.panics)
	return c
}

func (c *calls) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (reply any, err error) {
	began := time.Now()
	defer func() {
		c.seconds.WithLabelValues(info.FullMethod, status.Code(err).String()).Observe(time.Since(began).Seconds())
	}()
	defer c.contain(info.FullMethod, &err)
	return handler(ctx, request)
}

func (c *calls) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	open := c.streams.WithLabelValues(info.FullMethod)
	open.Inc()
	defer open.Dec()
	defer c.contain(info.FullMethod, &err)
	return handler(server, stream)
}

// contain turns a panic into an INTERNAL error.
func (c *calls) contain(method string, err *error) {
	if p := recover(); p != nil {
		c.panics.Inc()
		c.log.Error("a call panicked", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "%s: internal error; the log of the configserver has the details", method)
	}
}

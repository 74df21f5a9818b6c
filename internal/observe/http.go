package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/basalt-redis/basalt/internal/version"
)

// NewRegistry returns a registry with the metrics every program has: the Go
// runtime's, the process's, and basalt_build_info.
func NewRegistry() *prometheus.Registry {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "basalt_build_info",
		Help:        "Always 1; the version is in the label.",
		ConstLabels: prometheus.Labels{"version": version.String()},
	})
	build.Set(1)
	r := prometheus.NewRegistry()
	r.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// HTTP serves /healthz, /readyz and /metrics, /debug/pprof when asked to, and
// whatever else Handle adds. Set the fields, then Listen, then Run.
type HTTP struct {
	// Address to listen on, "host:port"; empty for no server at all.
	Address string
	// Alive says why the process should be restarted, nil while it is well; a nil
	// func means always well.
	Alive func() error
	// Ready says why no client should be sent here now, nil when they may.
	Ready func() error
	// Lacking are lines about what is wrong although clients may be sent here; /readyz
	// answers 200 with them instead of "ok". nil: nothing ever is.
	Lacking func() []string
	// Metrics to serve.
	Metrics prometheus.Gatherer
	// Pprof serves profiles under /debug/pprof.
	Pprof bool
	Log   *slog.Logger

	extra    map[string]http.Handler
	listener net.Listener
}

// Handle adds a handler; the pattern is one of http.ServeMux. Call it before
// Run.
func (h *HTTP) Handle(pattern string, handler http.Handler) {
	if h.extra == nil {
		h.extra = map[string]http.Handler{}
	}
	h.extra[pattern] = handler
}

// Listen opens the port, so that a busy one is an error before anything else
// starts.
func (h *HTTP) Listen() (err error) {
	if h.Address == "" {
		return nil
	}
	h.listener, err = net.Listen("tcp", h.Address)
	if err != nil {
		return fmt.Errorf("http-listen: %w", err)
	}
	return nil
}

// Addr is where the server listens; nil when it does not.
func (h *HTTP) Addr() net.Addr {
	if h.listener == nil {
		return nil
	}
	return h.listener.Addr()
}

// Run serves until ctx ends, and then gives requests in flight two seconds.
// Without a listener it only waits for ctx.
func (h *HTTP) Run(ctx context.Context) error {
	if h.listener == nil {
		<-ctx.Done()
		return nil
	}
	server := &http.Server{Handler: h.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	if h.Log != nil {
		server.ErrorLog = slog.NewLogLogger(h.Log.Handler(), slog.LevelWarn)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if server.Shutdown(late) != nil {
			_ = server.Close() // the listener is closed already, connections are cut
		}
	}()
	if err := server.Serve(h.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	<-stopped
	return nil
}

// Handler returns everything the server serves.
func (h *HTTP) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", check(h.Alive, nil))
	mux.Handle("GET /readyz", check(h.Ready, h.Lacking))
	if h.Metrics != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(h.Metrics, promhttp.HandlerOpts{}))
	}
	if h.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	for pattern, handler := range h.extra {
		mux.Handle(pattern, handler)
	}
	return mux
}

// check answers 200 with "ok" or what is lacking, or 503 and the reason.
func check(problem func() error, lacking func() []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if problem != nil {
			if err := problem(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintln(w, err)
				return
			}
		}
		lines := []string{"ok"}
		if lacking != nil {
			if lack := lacking(); len(lack) > 0 {
				lines = lack
			}
		}
		fmt.Fprintln(w, strings.Join(lines, "\n"))
	})
}

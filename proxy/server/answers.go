package server

import (
	"encoding/json"
	"net/http"
	"os"
	"time"

	"github.com/basalt-redis/basalt/internal/version"
	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/introspect"
	"github.com/basalt-redis/basalt/proxy/reactor"
)

// These answer the commands with which a client asks a Redis about itself. The
// engine calls them outside of its loops.

func (s *Server) command(dst []byte, args [][]byte, proto int) []byte {
	return introspect.Command(dst, args, proto)
}

func (s *Server) loops() int {
	if s.cfg.Loops > 0 {
		return s.cfg.Loops
	}
	return reactor.DefaultLoops()
}

func (s *Server) info(dst []byte, args, shards [][]byte) []byte {
	var wanted []string
	for _, a := range args[1:] {
		wanted = append(wanted, string(a))
	}
	return introspect.Info(dst, wanted, shards, s.describe())
}

// describe is what INFO tells of this proxy.
func (s *Server) describe() introspect.Proxy {
	stats, status, table := s.engine.Stats(), s.client.Status(), s.engine.Table()
	p := introspect.Proxy{
		Version: version.String(), ID: s.client.ID(), RunID: s.runID, Software: s.engine.Software(), Port: s.port(), Bind: s.host(), ClusterMode: s.cfg.ClusterMode, Now: time.Now(), Started: s.started,
		ProcessID: os.Getpid(), Cluster: s.cfg.Cluster, Phase: status.Phase, Epoch: status.Epoch, AckedEpoch: status.AckedEpoch,
		ConfigServer: status.Server, Shards: len(table.Shards), Nodes: len(stats.Nodes), Loops: len(stats.Loops),
		Clients: stats.Clients, MaxClients: s.cfg.MaxClients, ClientsBlocked: stats.ClientsBlocked, ClientsTimed: stats.ClientsTimed, ClientsTracking: stats.ClientsTracking, ClientsAccepted: stats.ClientsAccepted, ClientsRejected: stats.ClientsRejected,
		ClientsTooSlow: stats.ClientsTooSlow, ClientsEvicted: stats.ClientsEvicted, ProtocolErrors: stats.ProtocolErrors, UnknownCommands: stats.UnknownCommands,
		Held: stats.Held, HeldBytes: stats.HeldBytes, HeldTotal: stats.HeldTotal, HeldRefused: stats.HeldRefused, MemoryBytes: stats.MemoryBytes,
		Subscribers: stats.PubSub.Subscribers, Subscriptions: stats.PubSub.Subscriptions, Messages: stats.PubSub.Messages, Deliveries: stats.PubSub.Deliveries,
	}
	for _, n := range stats.Nodes {
		p.InFlight += n.InFlight
	}
	for id, c := range stats.Commands {
		p.Commands += c.Calls
		if c.Calls > 0 {
			p.Calls = append(p.Calls, introspect.Calls{
				Name: command.ByID(id).Name, Calls: c.Calls, Errors: c.Errors, Rejected: c.Rejected, Total: c.TotalTime,
				P50: quantile(&c, 0.5), P99: quantile(&c, 0.99), P999: quantile(&c, 0.999),
			})
		}
	}
	p.Errors = stats.OwnErrors
	if path, err := os.Executable(); err == nil {
		p.Executable = path
	}
	return p
}

// quantile is the upper bound of the bucket in which the q-quantile lies; of the
// last bucket, which has none, the lower one.
func quantile(c *reactor.CommandStats, q float64) time.Duration {
	var total, sum uint64
	for _, n := range c.Latency {
		total += n
	}
	for i, n := range c.Latency {
		if sum += n; n > 0 && float64(sum) >= q*float64(total) {
			return reactor.LatencyBound(min(i, reactor.LatencyBuckets-2))
		}
	}
	return 0
}

// slowCommand is an entry of /slowlog.
type slowCommand struct {
	ID         uint64    `json:"id"`
	Time       time.Time `json:"time"`
	DurationUs int64     `json:"duration_us"`
	Client     string    `json:"client"`
	Name       string    `json:"name,omitempty"`
	Args       []string  `json:"args"`
}

// slowLogHandler serves the slow commands, newest first.
func slowLogHandler(entries func() []reactor.SlowEntry) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		list := []slowCommand{}
		for _, e := range entries() {
			list = append(list, slowCommand{e.ID, e.Time, e.Duration.Microseconds(), e.Client, e.Name, e.Args})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(list) // the reader may be gone
	})
}

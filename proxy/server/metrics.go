package server

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/configclient"
	"github.com/basalt-redis/basalt/proxy/reactor"
)

// collector asks the engine for its counters when Prometheus asks for metrics,
// so that the loops count without locks or atomics.
type collector struct {
	stats  func() reactor.Stats
	status func() configclient.Status

	clients, accepted, rejected, tooSlow, evicted, pinned, blocked, malformed, unknown, bytes, crossSlot *prometheus.Desc
	calls, errors, latency                                                                               *prometheus.Desc
	inFlight, connections, requests, reconnects, sight                                                   *prometheus.Desc
	held, heldBytes, heldTotal, heldRefused, memory                                                      *prometheus.Desc
	subscribers, subscriptions, topics, links                                                            *prometheus.Desc
	messages, deliveries, subscribersTooSlow                                                             *prometheus.Desc
	epoch, acked, connected, connects, refused                                                           *prometheus.Desc
	busy, wakeups, loopClients                                                                           *prometheus.Desc
}

func newCollector(cluster string, stats func() reactor.Stats, status func() configclient.Status) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("basalt_proxy_"+name, help, labels, prometheus.Labels{"cluster": cluster})
	}
	return &collector{
		stats: stats, status: status,
		clients:     desc("clients", "Clients connected now."),
		accepted:    desc("clients_accepted_total", "Clients accepted."),
		rejected:    desc("clients_rejected_total", "Clients turned away because of max-clients."),
		tooSlow:     desc("clients_too_slow_total", "Clients closed because they left too many replies unread."),
		pinned:      desc("pinned_connections", "Server connections that serve a single client each, as WATCH and blocking commands need."),
		blocked:     desc("blocked_clients", "Clients with a command that waits: for data or replicas, or for the end of CLIENT PAUSE."),
		evicted:     desc("clients_evicted_total", "Clients closed because they held most of a memory budget that was full."),
		malformed:   desc("protocol_errors_total", "Clients closed for malformed or oversized requests."),
		unknown:     desc("unknown_commands_total", "Requests refused by the command table."),
		crossSlot:   desc("cross_slot_requests_total", "Requests over several slots: served with one shard, unless policy cross_slot is refuse, refused else.", "command"),
		bytes:       desc("client_bytes_total", "Bytes read from clients (in) and written to them (out).", "direction"),
		calls:       desc("commands_total", "Commands answered.", "command"),
		errors:      desc("command_errors_total", "Commands answered with an error.", "command"),
		latency:     desc("command_duration_seconds", "Time from a parsed request to its reply.", "command"),
		inFlight:    desc("node_in_flight", "Requests sent to a node and not answered.", "shard", "node"),
		connections: desc("node_connections", "Connections to a node that are logged in.", "shard", "node"),
		requests:    desc("node_requests_total", "Requests sent to a node.", "shard", "node"),
		reconnects:  desc("node_reconnects_total", "Connections to a node opened beyond the first.", "shard", "node"),
		sight:       desc("node_sight", "1 for what was seen last of a node.", "shard", "node", "sight"),
		held:        desc("held_requests", "Requests that wait for a master now."),
		heldBytes:   desc("held_bytes", "Bytes of the requests that wait for a master now."),
		heldTotal:   desc("held_requests_total", "Requests that ever waited for a master."),
		heldRefused: desc("held_requests_refused_total", "Requests that waited for a master in vain."),
		memory:      desc("buffer_bytes", "Bytes of requests and replies of all clients."),

		subscribers:        desc("subscribers", "Clients that are subscribed to anything."),
		subscriptions:      desc("subscriptions", "What those clients are subscribed to, summed up."),
		topics:             desc("subscribed_names", "Channels, patterns and shard channels that any client is subscribed to.", "kind"),
		links:              desc("subscription_links", "Connections to masters on which everything is subscribed."),
		messages:           desc("messages_total", "Messages that came from servers."),
		deliveries:         desc("message_deliveries_total", "Messages handed to clients."),
		subscribersTooSlow: desc("subscribers_too_slow_total", "Subscribers closed because they left too much unread."),

		epoch:       desc("epoch", "Newest epoch known."),
		acked:       desc("acked_epoch", "Newest epoch that every loop obeys."),
		connected:   desc("configserver_connected", "1 while connected to a Configserver."),
		connects:    desc("configserver_connects_total", "Streams that delivered a topology."),
		refused:     desc("topology_refused_total", "Topologies that were not obeyed: stale or contradictory."),
		busy:        desc("loop_busy_seconds_total", "Time an event loop did not wait for events.", "loop"),
		wakeups:     desc("loop_wakeups_total", "Times an event loop woke up.", "loop"),
		loopClients: desc("loop_clients", "Clients of an event loop.", "loop"),
	}
}

// Describe tells Prometheus nothing in advance: which commands and nodes there
// are is known when it asks.
func (c *collector) Describe(out chan<- *prometheus.Desc) { out <- c.clients }

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	s, st := c.stats(), c.status()
	gauge(c.clients, float64(s.Clients))
	count(c.accepted, float64(s.ClientsAccepted))
	count(c.rejected, float64(s.ClientsRejected))
	count(c.tooSlow, float64(s.ClientsTooSlow))
	count(c.evicted, float64(s.ClientsEvicted))
	gauge(c.pinned, float64(s.Pinned))
	gauge(c.blocked, float64(s.ClientsBlocked))
	count(c.malformed, float64(s.ProtocolErrors))
	count(c.unknown, float64(s.UnknownCommands))
	crossSlot := map[int]uint64{}
	for k, n := range s.Crossings {
		crossSlot[k.Command] += n
	}
	for id, n := range crossSlot {
		count(c.crossSlot, float64(n), command.ByID(id).Name)
	}
	count(c.bytes, float64(s.ClientBytesIn), "in")
	count(c.bytes, float64(s.ClientBytesOut), "out")
	for id := range s.Commands {
		k := &s.Commands[id]
		if k.Calls == 0 {
			continue
		}
		name := command.ByID(id).Name
		count(c.calls, float64(k.Calls), name)
		count(c.errors, float64(k.Errors), name)
		out <- histogram(c.latency, k, name)
	}
	for _, n := range s.Nodes {
		gauge(c.inFlight, float64(n.InFlight), n.Shard, n.Node)
		gauge(c.connections, float64(n.Connections), n.Shard, n.Node)
		count(c.requests, float64(n.Requests), n.Shard, n.Node)
		count(c.reconnects, float64(n.Reconnects), n.Shard, n.Node)
		gauge(c.sight, 1, n.Shard, n.Node, n.Sight.String())
	}
	gauge(c.held, float64(s.Held))
	gauge(c.heldBytes, float64(s.HeldBytes))
	count(c.heldTotal, float64(s.HeldTotal))
	count(c.heldRefused, float64(s.HeldRefused))
	gauge(c.memory, float64(s.MemoryBytes))
	gauge(c.subscribers, float64(s.PubSub.Subscribers))
	gauge(c.subscriptions, float64(s.PubSub.Subscriptions))
	gauge(c.topics, float64(s.PubSub.Channels), "channel")
	gauge(c.topics, float64(s.PubSub.Patterns), "pattern")
	gauge(c.topics, float64(s.PubSub.ShardChannels), "shard-channel")
	gauge(c.links, float64(s.PubSub.Links))
	count(c.messages, float64(s.PubSub.Messages))
	count(c.deliveries, float64(s.PubSub.Deliveries))
	count(c.subscribersTooSlow, float64(s.PubSub.TooSlow))
	for i, l := range s.Loops {
		loop := strconv.Itoa(i)
		count(c.busy, l.Busy.Seconds(), loop)
		count(c.wakeups, float64(l.Wakeups), loop)
		gauge(c.loopClients, float64(l.Clients), loop)
	}
	gauge(c.epoch, float64(st.Epoch))
	gauge(c.acked, float64(st.AckedEpoch))
	connected := 0.0
	if st.Server != "" {
		connected = 1
	}
	gauge(c.connected, connected)
	count(c.connects, float64(st.Connects))
	count(c.refused, float64(st.Refused))
}

// histogram makes Prometheus's cumulative buckets of the engine's. The last one
// has no bound and is only in the count.
func histogram(d *prometheus.Desc, k *reactor.CommandStats, name string) prometheus.Metric {
	buckets := make(map[float64]uint64, reactor.LatencyBuckets)
	var sum uint64
	for i, n := range k.Latency {
		sum += n
		if i < reactor.LatencyBuckets-1 {
			buckets[reactor.LatencyBound(i).Seconds()] = sum
		}
	}
	return prometheus.MustNewConstHistogram(d, sum, k.TotalTime.Seconds(), buckets, name)
}

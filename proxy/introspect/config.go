package introspect

import (
	"slices"
	"strconv"
	"strings"

	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/glob"
)

// Parameters are what CONFIG GET shows: the proxy's settings under the names of
// Redis's parameters, and the values that describe the whole behind it.
type Parameters struct {
	// Port and Bind are where clients connect.
	Port int
	Bind string
	// ClusterMode: clients are told of a Redis Cluster.
	ClusterMode bool
	// MaxClients, RequestBytes, InlineBytes and Loops are the proxy's limits.
	MaxClients, Loops         int
	RequestBytes, InlineBytes int64
	// ClientReplyBufferBytes is the hard limit of a client's output.
	ClientReplyBufferBytes int64
	// ClientPubSubBufferBytes is that of a client with subscriptions.
	ClientPubSubBufferBytes int64
	// SlowLogThresholdMicros and SlowLogLength of the proxy's slow log.
	SlowLogThresholdMicros int64
	SlowLogLength          int
	// LogLevel in Redis's words: debug, notice, warning.
	LogLevel string
}

// parameter is one line of CONFIG GET.
type parameter struct{ name, value string }

// list is sorted by name. A parameter that only a server can have, and that can
// differ from server to server, is not here: an absent one is better than a
// wrong one. Those that clients and benchmarks ask for are.
func (p Parameters) list() []parameter {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	params := []parameter{
		{"appendfsync", "everysec"},
		{"appendonly", "no"},
		{"bind", p.Bind},
		{"client-output-buffer-limit", "normal " + number(p.ClientReplyBufferBytes) + " 0 0 slave 0 0 0 pubsub " + number(p.ClientPubSubBufferBytes) + " 0 0"},
		{"client-query-buffer-limit", number(p.RequestBytes)},
		{"cluster-enabled", yesNo(p.ClusterMode)},
		{"daemonize", "no"},
		{"databases", strconv.Itoa(command.Databases)},
		{"io-threads", strconv.Itoa(p.Loops)},
		{"loglevel", p.LogLevel},
		{"maxclients", strconv.Itoa(p.MaxClients)},
		{"maxmemory", "0"},
		{"maxmemory-policy", "noeviction"},
		{"notify-keyspace-events", ""},
		{"port", strconv.Itoa(p.Port)},
		{"proto-inline-max-len", number(p.InlineBytes)},
		{"proto-max-bulk-len", number(p.RequestBytes)},
		{"protected-mode", "no"},
		{"save", ""},
		{"slowlog-log-slower-than", number(p.SlowLogThresholdMicros)},
		{"slowlog-max-len", strconv.Itoa(p.SlowLogLength)},
		{"tcp-keepalive", "300"},
		{"timeout", "0"},
		{"tls-port", "0"},
	}
	slices.SortFunc(params, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	return params
}

// Config appends the reply to CONFIG GET or CONFIG RESETSTAT. The request has
// passed command.Lookup, which refuses the rest of CONFIG. resetStats is called
// for RESETSTAT.
func Config(dst []byte, args [][]byte, proto int, p Parameters, resetStats func()) []byte {
	if strings.EqualFold(string(args[1]), "get") {
		return configGet(dst, args[2:], proto, p)
	}
	resetStats()
	return append(dst, "+OK\r\n"...)
}

func configGet(dst []byte, patterns [][]byte, proto int, p Parameters) []byte {
	n, body := 0, []byte(nil)
	for _, param := range p.list() {
		if slices.ContainsFunc(patterns, func(g []byte) bool { return glob.Fold(string(g), param.name) }) {
			body = appendBulk(appendBulk(body, param.name), param.value)
			n++
		}
	}
	return inProtocol(dst, append(appendHeader(nil, '%', n), body...), proto)
}

func yesNo(on bool) string {
	if on {
		return "yes"
	}
	return "no"
}

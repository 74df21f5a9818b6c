package introspect

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/glob"
)

// Parameters are the proxy's settings under the names of Redis's parameters.
// CONFIG GET shows them in place of the servers', of which it shows the rest:
// they are what clients of the proxy have to do with.
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
	// Debug: DEBUG is passed on.
	Debug bool
}

// parameter is one line of CONFIG GET, and why it cannot be set.
type parameter struct{ name, value, reason string }

// Reasons.
const (
	immutable = "can't set immutable config"
	secret    = "it is a secret, which comes from the Configserver's credentials files"
)

func ownSetting(flag string) string { return "it is a setting of the proxy, --" + flag }

// list is sorted by name. Secrets are here so that those of the servers are
// never shown: there are none for clients of the proxy.
func (p Parameters) list() []parameter {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	params := []parameter{
		{"bind", p.Bind, ownSetting("listen")},
		{
			"client-output-buffer-limit", "normal " + number(p.ClientReplyBufferBytes) + " 0 0 slave 0 0 0 pubsub " + number(p.ClientPubSubBufferBytes) + " 0 0",
			ownSetting("client-reply-buffer-bytes and --client-pubsub-buffer-bytes"),
		},
		{"client-query-buffer-limit", number(p.RequestBytes), ownSetting("max-request-bytes")},
		{"cluster-enabled", yesNo(p.ClusterMode), immutable},
		{"databases", strconv.Itoa(command.Databases), immutable},
		{"enable-debug-command", yesNo(p.Debug), immutable},
		{"io-threads", strconv.Itoa(p.Loops), immutable},
		{"masterauth", "", secret},
		{"masteruser", "", secret},
		{"maxclients", strconv.Itoa(p.MaxClients), ownSetting("max-clients")},
		{"maxmemory-clients", "0", ownSetting("memory-budget-bytes")},
		{"port", strconv.Itoa(p.Port), "Unable to listen on this port: " + ownSetting("listen")},
		{"proto-inline-max-len", number(p.InlineBytes), ownSetting("max-inline-bytes")},
		{"proto-max-bulk-len", number(p.RequestBytes), ownSetting("max-request-bytes")},
		{"protected-mode", "no", "clients connect to the proxy, which has no such mode"},
		{"requirepass", "", secret},
		{"timeout", "0", "the proxy keeps the connections of its clients"},
		{"tls-client-key-file-pass", "", secret},
		{"tls-key-file-pass", "", secret},
		{"tls-port", "0", "the proxy has no TLS yet"},
	}
	slices.SortFunc(params, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	return params
}

// ConfigGet appends the reply to CONFIG GET: the proxy's own parameters that
// match, and those of a server's reply, names and values in turn.
func ConfigGet(dst []byte, args [][]byte, proto int, p Parameters, server []string) []byte {
	own := p.list()
	shown := make([]parameter, 0, len(own)+len(server)/2)
	for _, param := range own {
		if slices.ContainsFunc(args[2:], func(g []byte) bool { return glob.Fold(string(g), param.name) }) {
			shown = append(shown, param)
		}
	}
	for i := 0; i+1 < len(server); i += 2 {
		if !slices.ContainsFunc(own, func(o parameter) bool { return strings.EqualFold(o.name, server[i]) }) {
			shown = append(shown, parameter{name: server[i], value: server[i+1]})
		}
	}
	slices.SortFunc(shown, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	body := []byte(nil)
	for _, param := range shown {
		body = appendBulk(appendBulk(body, param.name), param.value)
	}
	return inProtocol(dst, append(appendHeader(nil, '%', len(shown)), body...), proto)
}

// ConfigSet looks at the parameters of a CONFIG SET. Those of the proxy are not
// to be changed: a value that is another one is refused with line, the same one
// is no change, for there are tools that write back what CONFIG GET showed them.
// A value that a server would not take either is refused in its words. rest are
// the names and values for the servers, in turn.
func ConfigSet(args [][]byte, p Parameters) (rest []string, line []byte) {
	if len(args)%2 != 0 {
		return nil, []byte("-ERR syntax error\r\n")
	}
	own := p.list()
	for i := 2; i < len(args); i += 2 {
		name, value := string(args[i]), string(args[i+1])
		at := slices.IndexFunc(own, func(o parameter) bool { return strings.EqualFold(o.name, name) })
		if at < 0 {
			rest = append(rest, name, value)
			continue
		}
		param := own[at]
		reason := param.reason
		if wrong := wrongValue(param.name, value); wrong != "" {
			reason = wrong
		} else if reason != immutable && sameValue(param.name, param.value, value) {
			continue
		}
		return nil, command.ErrorLine("CONFIG SET failed (possibly related to argument '", bytes.ToLower(args[i]), "') - "+reason)
	}
	return rest, nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

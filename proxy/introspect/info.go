package introspect

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/proxy/command"
	"github.com/basalt-redis/basalt/proxy/software"
)

// Proxy is what INFO tells of the proxy itself. All counts are since it
// started, or since CONFIG RESETSTAT.
type Proxy struct {
	// Version of the program, ID of the process as the Configserver knows it,
	// RunID the 40 hex digits clients see.
	Version, ID, RunID string
	// Software is what the servers are, for when none of them answered.
	Software software.Software
	// Port and Bind are where clients connect. ClusterMode: they are told of a Redis
	// Cluster.
	Port        int
	Bind        string
	ClusterMode bool
	// Now and Started tell the uptime.
	Now, Started time.Time
	// ProcessID of the proxy.
	ProcessID int
	// Cluster it serves, its phase, the newest epoch known and the one obeyed.
	Cluster, Phase    string
	Epoch, AckedEpoch uint64
	// ConfigServer that it is connected to, empty when none.
	ConfigServer string
	// Shards and Nodes of the epoch, event loops.
	Shards, Nodes, Loops int
	// Clients now, allowed, accepted and refused.
	Clients, MaxClients              int
	ClientsBlocked                   int
	ClientsTimed, ClientsTracking    int
	ClientsAccepted, ClientsRejected uint64
	ClientsTooSlow, ClientsEvicted   uint64
	ProtocolErrors                   uint64
	Commands, UnknownCommands        uint64
	// Errors are error replies that no server made, by their code.
	Errors map[string]uint64
	// Executable is the path of the program.
	Executable string
	// Requests held now, ever, and refused in the end.
	Held                   int
	HeldBytes              int64
	HeldTotal, HeldRefused uint64
	// InFlight requests to nodes, MemoryBytes of requests and replies.
	InFlight    int
	MemoryBytes int64
	// Subscribers now and all they listen to; messages that came and went out.
	Subscribers, Subscriptions int
	Messages, Deliveries       uint64
	// Calls of each command that was called.
	Calls []Calls
}

// Calls of one command, those that were answered with an error, and of these those that
// were not executed.
type Calls struct {
	Name                    string
	Calls, Errors, Rejected uint64
	Total                   time.Duration
	// P50, P99 and P999 are upper bounds of latency quantiles.
	P50, P99, P999 time.Duration
}

// section is one section of an INFO text: fields in order.
type section struct {
	title  string
	fields []field
}

type field struct{ name, value string }

// Sections in the order of Redis, Proxy last. The first column is what a client
// asks for.
var infoSections = []struct {
	name      string
	title     string
	byDefault bool
	make      func(p *Proxy, shards [][]section) []field
}{
	{"server", "Server", true, serverInfo},
	{"clients", "Clients", true, clientsInfo},
	{"memory", "Memory", true, memoryInfo},
	{"persistence", "Persistence", true, persistenceInfo},
	{"stats", "Stats", true, statsInfo},
	{"replication", "Replication", true, replicationInfo},
	{"cpu", "CPU", true, cpuInfo},
	{"modules", "Modules", true, func(*Proxy, [][]section) []field { return nil }},
	{"commandstats", "Commandstats", false, commandStatsInfo},
	{"errorstats", "Errorstats", true, errorStatsInfo},
	{"latencystats", "Latencystats", false, latencyStatsInfo},
	{"cluster", "Cluster", true, clusterInfo},
	{"keyspace", "Keyspace", true, keyspaceInfo},
	{"proxy", "Proxy", true, proxyInfo},
}

// Info appends the text of INFO for the sections asked for (none: the default
// ones), made of the INFO texts of the shards' masters and of the proxy. A
// shard that did not answer is nil: sums then lack it, and the Proxy section
// says how many answered.
func Info(dst []byte, wanted []string, shards [][]byte, p Proxy) []byte {
	parsed := make([][]section, 0, len(shards))
	for _, text := range shards {
		if text != nil {
			parsed = append(parsed, parseInfo(text))
		}
	}
	first := true
	for _, s := range infoSections {
		if !isWanted(wanted, s.name, s.byDefault) {
			continue
		}
		if !first {
			dst = append(dst, "\r\n"...)
		}
		first = false
		dst = fmt.Appendf(dst, "# %s\r\n", s.title)
		for _, f := range s.make(&p, parsed) {
			dst = append(append(append(append(dst, f.name...), ':'), f.value...), "\r\n"...)
		}
		if s.name == "proxy" {
			dst = fmt.Appendf(dst, "shards_answered:%d\r\n", len(parsed))
		}
	}
	return dst
}

func isWanted(wanted []string, name string, byDefault bool) bool {
	if len(wanted) == 0 {
		return byDefault
	}
	for _, w := range wanted {
		switch w = strings.ToLower(w); {
		case w == name, w == "all", w == "everything", w == "default" && byDefault:
			return true
		}
	}
	return false
}

// parseInfo reads an INFO text; lines that are neither a section's title nor a
// field are skipped.
func parseInfo(text []byte) (sections []section) {
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		if title, ok := bytes.CutPrefix(line, []byte("# ")); ok {
			sections = append(sections, section{title: string(title)})
			continue
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if ok && len(sections) > 0 {
			s := &sections[len(sections)-1]
			s.fields = append(s.fields, field{string(name), string(value)})
		}
	}
	return sections
}

// get returns a field of a shard's text, "" when it is not there.
func get(sections []section, title, name string) string {
	for _, s := range sections {
		if s.title != title {
			continue
		}
		for _, f := range s.fields {
			if f.name == name {
				return f.value
			}
		}
	}
	return ""
}

func number(text string) int64 { n, _ := strconv.ParseInt(text, 10, 64); return n }

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func unsigned(n uint64) string { return strconv.FormatUint(n, 10) }

// serverInfo is what the servers say of themselves, but for what is about a process: that
// is the proxy.
func serverInfo(p *Proxy, shards [][]section) (fields []field) {
	mode := "standalone"
	if p.ClusterMode {
		mode = "cluster"
	}
	up := p.Now.Sub(p.Started)
	own := []field{
		{"multiplexing_api", "epoll"},
		{"process_id", strconv.Itoa(p.ProcessID)},
		{"run_id", p.RunID},
		{"tcp_port", strconv.Itoa(p.Port)},
		{"server_time_usec", decimal(p.Now.UnixMicro())},
		{"uptime_in_seconds", decimal(int64(up / time.Second))},
		{"uptime_in_days", decimal(int64(up / (24 * time.Hour)))},
		{"executable", p.Executable},
		{"config_file", ""},
	}
	theirs := []field{
		{"redis_version", p.Software.Redis}, {"redis_git_sha1", "00000000"}, {"redis_git_dirty", "0"}, {"redis_build_id", "0"},
		{"redis_mode", mode}, {"os", "Linux"}, {"arch_bits", "64"}, {"hz", "10"}, {"configured_hz", "10"},
	}
	for _, s := range oldest(shards) {
		if s.title == "Server" {
			theirs = s.fields
		}
	}
	for _, f := range theirs {
		switch {
		case f.name == "redis_mode" || f.name == "server_mode":
			f.value = mode
		case f.name == "listener0":
			f.value = fmt.Sprintf("name=tcp,bind=%s,port=%d", p.Bind, p.Port)
		case strings.HasPrefix(f.name, "listener") || f.name == "availability_zone":
			continue // of one server
		}
		if i := slices.IndexFunc(own, func(o field) bool { return o.name == f.name }); i >= 0 {
			f.value = own[i].value
			own = slices.Delete(own, i, i+1)
		}
		fields = append(fields, f)
	}
	return append(append(fields, own...), field{"basalt_version", p.Version})
}

// oldest returns the text of the shard whose version is the least one can rely on.
func oldest(shards [][]section) (from []section) {
	var least software.Software
	for _, sections := range shards {
		s := software.Of(text(sections, "Server"))
		if s.Version != "" && (from == nil || s.Before(least)) {
			from, least = sections, s
		}
	}
	return from
}

// text is a section as the server wrote it.
func text(sections []section, title string) (out []byte) {
	for _, s := range sections {
		for _, f := range s.fields {
			if s.title == title {
				out = append(append(append(append(out, f.name...), ':'), f.value...), "\r\n"...)
			}
		}
	}
	return out
}

// clientsInfo is about the clients of this proxy; what else servers count, they count for all.
func clientsInfo(p *Proxy, shards [][]section) []field {
	fields := []field{
		{"connected_clients", strconv.Itoa(p.Clients)},
		{"cluster_connections", "0"},
		{"maxclients", strconv.Itoa(p.MaxClients)},
		{"client_recent_max_input_buffer", "0"},
		{"client_recent_max_output_buffer", "0"},
		{"blocked_clients", strconv.Itoa(p.ClientsBlocked)},
		{"tracking_clients", strconv.Itoa(p.ClientsTracking)},
		{"clients_in_timeout_table", strconv.Itoa(p.ClientsTimed)},
	}
	for _, f := range merge("Clients", shards, nil) {
		switch {
		case f.name == "pubsub_clients":
			f.value = strconv.Itoa(p.Subscribers)
		case slices.ContainsFunc(fields, func(o field) bool { return o.name == f.name }):
			continue
		}
		fields = append(fields, f)
	}
	return fields
}

func cpuInfo(_ *Proxy, shards [][]section) []field { return merge("CPU", shards, nil) }

// errorStatsInfo sums "errorstat_ERR:count=12" of the servers, for all proxies and scripts,
// and adds the errors that this proxy made itself.
func errorStatsInfo(p *Proxy, shards [][]section) (fields []field) {
	sums := map[string]uint64{}
	for code, n := range p.Errors {
		sums["errorstat_"+code] = n
	}
	for _, c := range collect("Errorstats", shards) {
		for _, v := range c.values {
			sums[c.name] += uint64(number(strings.TrimPrefix(v, "count=")))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fields = append(fields, field{name, "count=" + unsigned(sums[name])})
	}
	return fields
}

// commandStatsInfo is of the servers, for all proxies and scripts, as to commands
// that they execute, and of this proxy for those that it answers itself or sends
// to every shard.
func commandStatsInfo(p *Proxy, shards [][]section) (fields []field) {
	rejected := map[string]uint64{}
	for _, c := range p.Calls {
		if spec := command.ByName(c.Name); spec != nil && spec.OnShards() && c.Rejected > 0 {
			rejected[c.Name] = c.Rejected
		}
	}
	for _, c := range collect("Commandstats", shards) {
		name := strings.TrimPrefix(c.name, "cmdstat_")
		if spec := command.ByName(name); spec == nil || spec.OnShards() {
			fields = append(fields, field{c.name, sumCommandStats(c.values, rejected[name])})
			delete(rejected, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rejected)) {
		fields = append(fields, field{"cmdstat_" + name, sumCommandStats(nil, rejected[name])})
	}
	for _, c := range p.Calls {
		if spec := command.ByName(c.Name); spec != nil && spec.OnShards() {
			continue
		}
		c.Calls, c.Errors = c.Calls-c.Rejected, c.Errors-c.Rejected
		usec := c.Total.Microseconds()
		fields = append(fields, field{"cmdstat_" + c.Name, fmt.Sprintf(
			"calls=%d,usec=%d,usec_per_call=%.2f,rejected_calls=%d,failed_calls=%d",
			c.Calls, usec, float64(c.Total.Nanoseconds())/1e3/float64(max(c.Calls, 1)), c.Rejected, c.Errors)})
	}
	return fields
}

// sumCommandStats adds up values of cmdstat lines, and calls that proxies rejected.
func sumCommandStats(values []string, rejected uint64) string {
	sum := [4]int64{2: int64(rejected)} // calls, usec, rejected_calls, failed_calls
	for _, v := range values {
		for pair := range strings.SplitSeq(v, ",") {
			name, value, _ := strings.Cut(pair, "=")
			if i := slices.Index([]string{"calls", "usec", "rejected_calls", "failed_calls"}, name); i >= 0 {
				sum[i] += number(value)
			}
		}
	}
	return fmt.Sprintf("calls=%d,usec=%d,usec_per_call=%.2f,rejected_calls=%d,failed_calls=%d",
		sum[0], sum[1], float64(sum[1])/float64(max(sum[0], 1)), sum[2], sum[3])
}

func latencyStatsInfo(p *Proxy, _ [][]section) (fields []field) {
	micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	for _, c := range p.Calls {
		fields = append(fields, field{"latency_percentiles_usec_" + c.Name, fmt.Sprintf(
			"p50=%.3f,p99=%.3f,p99.9=%.3f", micros(c.P50), micros(c.P99), micros(c.P999))})
	}
	return fields
}

// keyspaceInfo sums the keys of each database that has any; avg_ttl is weighted
// by the keys that expire.
func keyspaceInfo(_ *Proxy, shards [][]section) (fields []field) {
	for i := range command.Databases {
		db := "db" + strconv.Itoa(i)
		var keys, expires, weighted, subexpiry int64
		ofFields := false // servers from Redis 7.4 count the keys with fields that expire
		for _, s := range shards {
			values := map[string]int64{}
			for pair := range strings.SplitSeq(get(s, "Keyspace", db), ",") {
				name, value, _ := strings.Cut(pair, "=")
				values[name] = number(value)
			}
			keys += values["keys"]
			expires += values["expires"]
			weighted += values["avg_ttl"] * values["expires"]
			n, has := values["subexpiry"]
			subexpiry, ofFields = subexpiry+n, ofFields || has
		}
		if keys == 0 {
			continue
		}
		value := fmt.Sprintf("keys=%d,expires=%d,avg_ttl=%d", keys, expires, weighted/max(expires, 1))
		if ofFields {
			value += ",subexpiry=" + decimal(subexpiry)
		}
		fields = append(fields, field{db, value})
	}
	return fields
}

func proxyInfo(p *Proxy, _ [][]section) []field {
	return []field{
		{"proxy_id", p.ID},
		{"cluster", p.Cluster},
		{"phase", p.Phase},
		{"epoch", unsigned(p.Epoch)},
		{"acked_epoch", unsigned(p.AckedEpoch)},
		{"configserver", p.ConfigServer},
		{"shards", strconv.Itoa(p.Shards)},
		{"nodes", strconv.Itoa(p.Nodes)},
		{"loops", strconv.Itoa(p.Loops)},
		{"commands_processed", unsigned(p.Commands)},
		{"in_flight_requests", strconv.Itoa(p.InFlight)},
		{"held_requests", strconv.Itoa(p.Held)},
		{"held_bytes", decimal(p.HeldBytes)},
		{"total_held_requests", unsigned(p.HeldTotal)},
		{"refused_held_requests", unsigned(p.HeldRefused)},
		{"memory_bytes", decimal(p.MemoryBytes)},
		{"subscribers", strconv.Itoa(p.Subscribers)},
		{"subscriptions", strconv.Itoa(p.Subscriptions)},
		{"messages", unsigned(p.Messages)},
		{"message_deliveries", unsigned(p.Deliveries)},
		{"slow_readers_closed", unsigned(p.ClientsTooSlow)},
		{"evicted_clients", unsigned(p.ClientsEvicted)},
		{"protocol_errors", unsigned(p.ProtocolErrors)},
		{"unknown_commands", unsigned(p.UnknownCommands)},
	}
}

func clusterInfo(p *Proxy, _ [][]section) []field {
	if p.ClusterMode {
		return []field{{"cluster_enabled", "1"}}
	}
	return []field{{"cluster_enabled", "0"}}
}

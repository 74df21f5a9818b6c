package introspect

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	p := Parameters{Port: 6380, Bind: "127.0.0.1", MaxClients: 10000, RequestBytes: 512 << 20}
	server := []string{"maxmemory", "100", "appendonly", "yes", "port", "7001", "MasterAuth", "a-secret", "maxclients", "4064"}
	get := func(proto int, words ...string) string {
		return string(ConfigGet(nil, split(append([]string{"config", "get"}, words...)), proto, p, server))
	}
	for _, c := range []struct{ want, got string }{
		{"*12\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n$10\r\nmasterauth\r\n$0\r\n\r\n$10\r\nmaxclients\r\n$5\r\n10000\r\n$9\r\nmaxmemory\r\n$3\r\n100\r\n" +
			"$17\r\nmaxmemory-clients\r\n$1\r\n0\r\n$4\r\nport\r\n$4\r\n6380\r\n", get(2, "PORT", "maxmem*", "appendonly", "masterauth", "maxclients")},
		{"%2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n$9\r\nmaxmemory\r\n$3\r\n100\r\n", get(3, "appendonly", "maxmemory")},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	if all := get(2, "*"); strings.Contains(all, "a-secret") || strings.Contains(all, "7001") || strings.Contains(all, "4064") {
		t.Errorf("the server's own: %q", all)
	}
	names := []string{}
	for _, param := range p.list() {
		names = append(names, param.name)
		if param.reason == "" {
			t.Errorf("%s without a reason", param.name)
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("parameters %v", names)
	}
}

func TestConfigSet(t *testing.T) {
	p := Parameters{Port: 6380, MaxClients: 10000, RequestBytes: 512 << 20}
	for _, c := range []struct{ request, rest, line string }{
		{"maxmemory 1mb hz 20", "maxmemory 1mb hz 20", ""},
		{"port 6380 MAXCLIENTS 10000", "", ""},
		{"port 6380 hz 20", "hz 20", ""},
		{"maxmemory 1mb Port 1", "", "-ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port: it is a setting of the proxy, --listen"},
		{"requirepass s3cret", "", "-ERR CONFIG SET failed (possibly related to argument 'requirepass') - it is a secret"},
		{"maxmemory 1 maxmemory-clients 200% client-query-buffer-limit invalid", "", "-ERR CONFIG SET failed (possibly related to argument 'maxmemory-clients') - percentage argument must be less or equal to 100\r\n"},
		{"maxmemory-clients 20%", "", "-ERR CONFIG SET failed (possibly related to argument 'maxmemory-clients') - it is a setting of the proxy, --memory-budget-bytes"},
		{"maxmemory-clients 0kb client-query-buffer-limit 512MB proto-max-bulk-len 524288kb PROTECTED-mode NO", "", ""},
		{"port 6381", "", "-ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port: it is a setting of the proxy, --listen\r\n"},
		{"databases 1", "", "-ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config\r\n"},
		{"maxmemory 1mb hz", "", "-ERR syntax error\r\n"},
	} {
		rest, line := ConfigSet(split(append([]string{"config", "set"}, strings.Fields(c.request)...)), p)
		if got := strings.Join(rest, " "); got != c.rest || !strings.HasPrefix(string(line), c.line) || (line == nil) != (c.line == "") {
			t.Errorf("%s: %q, %q", c.request, got, line)
		}
		if strings.Contains(string(line), "s3cret") {
			t.Errorf("%s: %q repeats a secret", c.request, line)
		}
	}
}

// An unknown command is a null bulk string in RESP2, not a null array.
func TestInfoOfUnknownCommands(t *testing.T) {
	for proto, want := range map[int]string{2: "*1\r\n$-1\r\n", 3: "*1\r\n_\r\n"} {
		if got := string(Command(nil, split([]string{"COMMAND", "INFO", "nosuch"}), proto)); got != want {
			t.Errorf("in RESP%d: %q, want %q", proto, got, want)
		}
	}
}

func shard(lines ...string) []byte { return []byte(strings.Join(lines, "\r\n") + "\r\n") }

func TestInfoMerges(t *testing.T) {
	a := shard("# Server", "redis_version:7.2.4", "", "# Memory", "used_memory:1048576", "used_memory_human:1.00M", "used_memory_rss:2097152",
		"mem_fragmentation_ratio:2.00", "maxmemory_policy:noeviction", "", "# Persistence", "loading:0", "rdb_last_save_time:20", "rdb_last_bgsave_status:ok",
		"", "# Stats", "total_commands_processed:5", "total_error_replies:3", "expired_keys:3", "instantaneous_input_kbps:1.50", "# Replication", "role:master", "connected_slaves:2",
		"slave0:ip=10.0.0.1,port=1", "master_repl_offset:100", "# CPU", "used_cpu_sys:1.250000", "# Commandstats",
		"cmdstat_get:calls=3,usec=9,usec_per_call=3.00,rejected_calls=1,failed_calls=0", "cmdstat_info:calls=9,usec=1,usec_per_call=0.11,rejected_calls=0,failed_calls=0", "# Errorstats", "errorstat_ERR:count=2",
		"# Keyspace", "db0:keys=10,expires=2,avg_ttl=100")
	b := shard("# Server", "redis_version:7.0.15", "# Memory", "used_memory:1048576", "used_memory_human:1.00M", "used_memory_rss:2097152",
		"mem_fragmentation_ratio:2.00", "maxmemory_policy:allkeys-lru", "# Persistence", "loading:1", "rdb_last_save_time:10", "rdb_last_bgsave_status:err",
		"# Stats", "total_commands_processed:5", "total_error_replies:4", "expired_keys:4", "instantaneous_input_kbps:0.25", "# Replication", "role:master", "connected_slaves:1",
		"master_repl_offset:11", "# CPU", "used_cpu_sys:0.500000", "# Commandstats",
		"cmdstat_get:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=1", "cmdstat_object|freq:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0", "# Errorstats", "errorstat_ERR:count=1", "errorstat_WRONGTYPE:count=4",
		"# Keyspace", "db0:keys=5,expires=6,avg_ttl=300")
	p := Proxy{Commands: 77, Errors: map[string]uint64{"ERR": 4, "NOAUTH": 1}, Calls: []Calls{
		{Name: "get", Calls: 9, Errors: 5, Rejected: 2, Total: time.Second}, {Name: "rename", Calls: 1, Errors: 1, Rejected: 1}, {Name: "info", Calls: 3, Errors: 2, Rejected: 1, Total: 10 * time.Microsecond, P50: 2 * time.Microsecond}}}
	text := string(Info(nil, []string{"everything"}, [][]byte{a, b}, p))
	for _, want := range []string{
		"redis_version:7.0.15", "used_memory:2097152", "used_memory_human:2.00M", "mem_fragmentation_ratio:2.00", "maxmemory_policy:mixed",
		"loading:1", "rdb_last_save_time:10", "rdb_last_bgsave_status:err", "total_commands_processed:10", "commands_processed:77", "expired_keys:7",
		"instantaneous_input_kbps:1.75", "connected_slaves:3", "master_repl_offset:111", "used_cpu_sys:1.750000", "errorstat_ERR:count=7", "errorstat_NOAUTH:count=1", "total_error_replies:12",
		"errorstat_WRONGTYPE:count=4", "db0:keys=15,expires=8,avg_ttl=250",
		"cmdstat_get:calls=4,usec=10,usec_per_call=2.50,rejected_calls=3,failed_calls=1", "cmdstat_info:calls=2,usec=10,usec_per_call=5.00,rejected_calls=1,failed_calls=1",
		"cmdstat_rename:calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0",
		"cmdstat_object|freq:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0",
	} {
		if !strings.Contains(text, "\r\n"+want+"\r\n") {
			t.Errorf("INFO lacks %q", want)
		}
	}
	if strings.Contains(text, "slave0") || strings.Count(text, "cmdstat_get") != 1 || strings.Count(text, "total_commands_processed") != 1 {
		t.Error(text)
	}
}

func TestInfoSections(t *testing.T) {
	for asked, want := range map[string]string{
		"keyspace":        "Keyspace",
		"CPU keyspace":    "CPU Keyspace",
		"nosuch":          "",
		"proxy cluster":   "Cluster Proxy",
		"":                "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats Cluster Keyspace Proxy",
		"default":         "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats Cluster Keyspace Proxy",
		"commandstats":    "Commandstats",
		"all":             "Server Clients Memory Persistence Stats Replication CPU Modules Commandstats Errorstats Latencystats Cluster Keyspace Proxy",
		"everything nope": "Server Clients Memory Persistence Stats Replication CPU Modules Commandstats Errorstats Latencystats Cluster Keyspace Proxy",
	} {
		var titles []string
		for _, s := range parseInfo(Info(nil, strings.Fields(asked), nil, Proxy{})) {
			titles = append(titles, s.title)
		}
		if got := strings.Join(titles, " "); got != want {
			t.Errorf("INFO %s: sections %s, want %s", asked, got, want)
		}
	}
}

// Hostile text from a server neither panics nor ends a line early.
func FuzzInfo(f *testing.F) {
	f.Add([]byte("# Memory\r\nused_memory:1\r\n# Keyspace\r\ndb0:keys=1"))
	f.Add([]byte("# Memory\nused_memory_human:\n#\n# \n:::"))
	f.Fuzz(func(t *testing.T, text []byte) {
		out := Info(nil, []string{"everything"}, [][]byte{text, text}, Proxy{})
		for line := range strings.SplitSeq(string(out), "\n") {
			if line != "" && !strings.HasSuffix(line, "\r") {
				t.Fatalf("line %q", line)
			}
		}
	})
}

// TestCommandListHasSubcommands: a list without a filter is that of all names, those
// of subcommands among them.
func TestCommandListHasSubcommands(t *testing.T) {
	words := func(line string) (args [][]byte) {
		for word := range strings.FieldsSeq(line) {
			args = append(args, []byte(word))
		}
		return args
	}
	all := string(Command(nil, words("COMMAND LIST"), 2))
	if filtered := string(Command(nil, words("COMMAND LIST FILTERBY PATTERN *"), 2)); all != filtered {
		t.Errorf("COMMAND LIST without a filter is not the list of all names:\n%q\n%q", all, filtered)
	}
	if !strings.Contains(all, "client|list\r\n") {
		t.Errorf("no subcommands in COMMAND LIST: %q", all)
	}
}

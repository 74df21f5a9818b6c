package introspect

import (
	"fmt"
	"strconv"
	"strings"
)

// rule says how the values of one field of all shards become one.
type rule uint8

const (
	ruleSum   rule = iota // the default for numbers
	ruleMax               // the worst, or the highest
	ruleMin               // the earliest
	ruleDrop              // means nothing for the whole
	ruleWorst             // "ok" only when all are
)

// merge returns the fields of a section over all shards, in the order in which
// the shards name them. Numbers are summed unless rules say otherwise; texts
// stay when all shards agree, and are "mixed" when they do not.
func merge(title string, shards [][]section, rules map[string]rule) []field {
	var fields []field
	for _, c := range collect(title, shards) {
		if v, ok := mergeValues(c.values, rules[c.name]); ok {
			fields = append(fields, field{c.name, v})
		}
	}
	return fields
}

// column is one field and its value at each shard that has it.
type column struct {
	name   string
	values []string
}

func collect(title string, shards [][]section) (columns []column) {
	at := map[string]int{}
	for _, sections := range shards {
		for _, s := range sections {
			if s.title != title {
				continue
			}
			for _, f := range s.fields {
				i, ok := at[f.name]
				if !ok {
					i = len(columns)
					at[f.name] = i
					columns = append(columns, column{name: f.name})
				}
				columns[i].values = append(columns[i].values, f.value)
			}
		}
	}
	return columns
}

func mergeValues(values []string, r rule) (string, bool) {
	switch r {
	case ruleDrop:
		return "", false
	case ruleWorst:
		for _, v := range values {
			if v != "ok" {
				return v, true
			}
		}
		return values[0], true
	}
	integers, numbers := true, true
	var sum, high, low float64
	var whole int64
	for i, v := range values {
		n, err := strconv.ParseInt(v, 10, 64)
		integers = integers && err == nil
		whole += n
		f, err := strconv.ParseFloat(v, 64)
		numbers = numbers && err == nil
		sum += f
		if i == 0 {
			high, low = f, f
		}
		high, low = max(high, f), min(low, f)
	}
	digits := 0
	if _, fraction, ok := strings.Cut(values[0], "."); ok {
		digits = len(fraction)
	}
	switch {
	case !numbers:
		for _, v := range values {
			if v != values[0] {
				return "mixed", true
			}
		}
		return values[0], true
	case r == ruleMax:
		return strconv.FormatFloat(high, 'f', digits, 64), true
	case r == ruleMin:
		return strconv.FormatFloat(low, 'f', digits, 64), true
	case integers:
		return decimal(whole), true
	}
	return strconv.FormatFloat(sum, 'f', digits, 64), true
}

// memoryInfo sums bytes, and computes anew what is derived from them: human
// forms, ratios and percentages.
func memoryInfo(_ *Proxy, shards [][]section) (fields []field) {
	merged := merge("Memory", shards, map[string]rule{
		"total_system_memory":   ruleMax, // shards may share a machine
		"active_defrag_running": ruleMax,
	})
	bytes := map[string]float64{}
	for _, f := range merged {
		bytes[f.name] = float64(number(f.value))
	}
	ratio := func(a, b string) string {
		if bytes[b] == 0 {
			return "0.00"
		}
		return strconv.FormatFloat(bytes[a]/bytes[b], 'f', 2, 64)
	}
	percent := func(part, whole float64) string {
		if whole <= 0 {
			return "0.00%"
		}
		return strconv.FormatFloat(100*part/whole, 'f', 2, 64) + "%"
	}
	for _, f := range merged {
		switch f.name {
		case "used_memory_peak_perc":
			f.value = percent(bytes["used_memory"], bytes["used_memory_peak"])
		case "used_memory_dataset_perc":
			f.value = percent(bytes["used_memory_dataset"], bytes["used_memory"]-bytes["used_memory_startup"])
		case "mem_fragmentation_ratio":
			f.value = ratio("used_memory_rss", "used_memory")
		case "allocator_frag_ratio":
			f.value = ratio("allocator_active", "allocator_allocated")
		case "allocator_rss_ratio":
			f.value = ratio("allocator_resident", "allocator_active")
		case "rss_overhead_ratio":
			f.value = ratio("used_memory_rss", "allocator_resident")
		default:
			if of, ok := strings.CutSuffix(f.name, "_human"); ok {
				f.value = human(bytes[of])
			}
		}
		fields = append(fields, f)
	}
	return fields
}

// human writes bytes as Redis does: "991.17K".
func human(n float64) string {
	if n < 1024 {
		return fmt.Sprintf("%.0fB", n)
	}
	unit := -1
	for n >= 1024 && unit < 4 {
		n /= 1024
		unit++
	}
	return fmt.Sprintf("%.2f%c", n, "KMGTP"[unit])
}

func persistenceInfo(_ *Proxy, shards [][]section) []field {
	rules := map[string]rule{
		"rdb_last_save_time": ruleMin, "rdb_last_bgsave_status": ruleWorst,
		"aof_last_bgrewrite_status": ruleWorst, "aof_last_write_status": ruleWorst,
		"current_fork_perc": ruleMax,
	}
	for _, name := range strings.Fields(`loading async_loading current_cow_peak current_cow_size_age
		rdb_bgsave_in_progress rdb_last_bgsave_time_sec rdb_current_bgsave_time_sec
		aof_enabled aof_rewrite_in_progress aof_rewrite_scheduled aof_last_rewrite_time_sec aof_current_rewrite_time_sec
		aof_rewrites_consecutive_failures module_fork_in_progress`) {
		rules[name] = ruleMax
	}
	return merge("Persistence", shards, rules)
}

// statsInfo sums what the shards did, for clients of all proxies; to error replies those of
// this proxy itself are added. Connections are those of its own clients, and so are the
// commands in the section Proxy.
func statsInfo(p *Proxy, shards [][]section) []field {
	var errors uint64
	for _, n := range p.Errors {
		errors += n
	}
	for _, s := range shards {
		errors += uint64(number(get(s, "Stats", "total_error_replies")))
	}
	fields := []field{
		{"total_connections_received", unsigned(p.ClientsAccepted)},
		{"rejected_connections", unsigned(p.ClientsRejected)},
		{"total_error_replies", unsigned(errors)},
	}
	rules := map[string]rule{
		"latest_fork_usec": ruleMax, "expired_stale_perc": ruleMax,
		// Every shard knows all of them.
		"pubsub_channels": ruleMax, "pubsub_patterns": ruleMax,
	}
	for _, f := range fields {
		rules[f.name] = ruleDrop
	}
	return append(fields, merge("Stats", shards, rules)...)
}

// replicationInfo shows a master whose replicas are those of all shards; their
// addresses are not shown, for clients must not connect to them.
func replicationInfo(p *Proxy, shards [][]section) []field {
	var replicas, offset int64
	for _, s := range shards {
		replicas += number(get(s, "Replication", "connected_slaves"))
		offset += number(get(s, "Replication", "master_repl_offset"))
	}
	fields := []field{
		{"role", "master"},
		{"connected_slaves", decimal(replicas)},
		{"master_failover_state", "no-failover"},
		{"master_replid", p.RunID},
		{"master_replid2", strings.Repeat("0", 40)},
		{"master_repl_offset", decimal(offset)},
		{"second_repl_offset", "-1"},
		{"repl_backlog_active", "0"},
		{"repl_backlog_size", "0"},
		{"repl_backlog_first_byte_offset", "0"},
		{"repl_backlog_histlen", "0"},
	}
	for _, f := range merge("Replication", shards, nil) {
		if strings.HasPrefix(f.name, "replicas_") { // newer servers count some of them apart
			fields = append(fields, f)
		}
	}
	return fields
}

package conformance

import "strings"

// missing commands: the endpoint refuses them, in these words.
func missing() (all []*difference) {
	for _, m := range refusals {
		for name := range strings.FieldsSeq(m.commands) {
			title := strings.ToUpper(strings.ReplaceAll(name, "|", " "))
			all = append(all, &difference{command: name, reply: "-ERR " + strings.ReplaceAll(m.sentence, "%s", title) + "\r\n", why: m.why})
		}
	}
	return all
}

// refusal is a sentence of the proxy, and what it refuses.
type refusal struct{ commands, sentence, why string }

var refusals = []refusal{
	{"acl|cat acl|deluser acl|dryrun acl|genpass acl|getuser acl|help acl|list acl|load acl|log acl|save acl|setuser acl|users acl|whoami",
		"%s is not supported behind the proxy: users and passwords are managed by the Configserver",
		"users and passwords are managed by the Configserver"},
	{"save",
		"%s is not supported behind the proxy: every master would stand still until it is done, use BGSAVE and LASTSAVE",
		"every master would stand still until it is done, BGSAVE and LASTSAVE work"},
	{"shutdown",
		"%s is not supported behind the proxy: restarts are run per server, by the Configserver and whoever runs the servers",
		"restarts are run per server, by the Configserver and whoever runs the servers"},
	{"config|rewrite config|set module|help module|list module|load module|loadex module|unload",
		"%s is not supported behind the proxy: servers are configured by whoever runs them, the proxy by its settings",
		"servers are configured by whoever runs them, the proxy by its settings"},
	{"debug",
		"%s is not supported behind the proxy: it looks inside one server, connect to that one as its admin",
		"it looks inside one server, connect to that one as its admin"},
	{"failover psync replconf replicaof slaveof sync",
		"%s is not supported behind the proxy: the Configserver alone decides who is master, use basaltctl switchover or basaltctl failover",
		"the Configserver alone decides who is master, use basaltctl switchover or basaltctl failover"},
	{"function|delete function|dump function|flush function|help function|kill function|list function|load function|restore function|stats",
		"%s is not supported behind the proxy yet: load functions into every shard's servers with the admin's credentials, and call them with FCALL",
		"not yet: load functions into every shard's servers with the admin's credentials, and call them with FCALL"},
	{"latency|doctor latency|graph latency|help latency|histogram latency|history latency|latest latency|reset",
		"%s is not supported behind the proxy yet: latencies are at /metrics of the proxy's HTTP address",
		"not yet: latencies are at /metrics of the proxy's HTTP address"},
	{"memory|doctor memory|malloc-stats memory|purge memory|stats",
		"%s is not supported behind the proxy yet: name a key with MEMORY USAGE, or read INFO memory",
		"not yet: name a key with MEMORY USAGE, or read INFO memory"},
	{"migrate restore-asking",
		"%s is not supported behind the proxy: keys move between shards by the Configserver only",
		"keys move between shards by the Configserver only"},
	{"swapdb",
		"%s is not supported behind the proxy: the databases of all shards cannot be exchanged at one instant, SELECT the other one instead",
		"the databases of all shards cannot be exchanged at one instant"},
	{"script|debug script|exists script|flush script|help script|kill script|load",
		"%s is not supported behind the proxy yet: use EVAL with the source, it is cached by every shard that runs it",
		"not yet: use EVAL with the source, it is cached by every shard that runs it"},
	{"slowlog|get slowlog|help slowlog|len slowlog|reset",
		"%s is not supported behind the proxy yet: the proxy's slow log is at /slowlog of its HTTP address",
		"not yet: the proxy's slow log is at /slowlog of its HTTP address"},
}

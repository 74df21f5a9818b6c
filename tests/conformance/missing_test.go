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
	{"shutdown",
		"%s is not supported behind the proxy: restarts are run per server, by the Configserver and whoever runs the servers",
		"restarts are run per server, by the Configserver and whoever runs the servers"},
	{"config|rewrite",
		"%s is not supported behind the proxy: there is nothing to rewrite, the Configserver keeps what CONFIG SET sets and sets it again when a server starts",
		"there is nothing to rewrite, the Configserver keeps what CONFIG SET sets"},
	{"module|load module|loadex module|unload",
		"%s is not supported behind the proxy: servers load modules when they are started, by whoever runs them",
		"servers load modules when they are started, by whoever runs them"},
	{"psync replconf sync",
		"%s is not supported behind the proxy: there is no one server to copy, take the RDB of each shard from its server (BGSAVE, or redis-cli --rdb there)",
		"there is no one server to copy, RDBs are taken from the servers"},
	{"failover replicaof slaveof",
		"%s is not supported behind the proxy: the Configserver alone decides who is master, use basaltctl switchover or basaltctl failover",
		"the Configserver alone decides who is master, use basaltctl switchover or basaltctl failover"},
	{"migrate restore-asking",
		"%s is not supported behind the proxy: keys move between shards by the Configserver only",
		"keys move between shards by the Configserver only"},
	{"swapdb",
		"%s is not supported behind the proxy: the databases of all shards cannot be exchanged at one instant, SELECT the other one instead",
		"the databases of all shards cannot be exchanged at one instant"},
	{"script|debug",
		"%s is not supported behind the proxy: the debugger stops a server for everybody, debug against a server of your own",
		"the debugger stops a server for everybody, debug against a server of your own"},
}

package conformance

import "strings"

// missing commands: the endpoint refuses them, in these words.
func missing() (all []*difference) {
	for _, m := range refusals {
		for name := range strings.FieldsSeq(m.commands) {
			title := strings.ToUpper(strings.ReplaceAll(name, "|", " "))
			all = append(all, &difference{command: name, only: m.only, reply: "-ERR " + strings.ReplaceAll(m.sentence, "%s", title) + "\r\n", why: m.why})
		}
	}
	return all
}

// refusal is a sentence of the proxy, and what it refuses.
type refusal struct {
	commands, sentence, why string
	only                    func(v version) bool
}

var refusals = []refusal{
	{commands: "shutdown",
		sentence: "%s is not supported behind the proxy: restarts are run per server, by the Configserver and whoever runs the servers",
		why:      "restarts are run per server, by the Configserver and whoever runs the servers"},
	{commands: "config|rewrite",
		sentence: "%s is not supported behind the proxy: there is nothing to rewrite, the Configserver keeps what CONFIG SET sets and sets it again when a server starts",
		why:      "there is nothing to rewrite, the Configserver keeps what CONFIG SET sets"},
	{commands: "module|load module|loadex module|unload",
		sentence: "%s is not supported behind the proxy: servers load modules when they are started, by whoever runs them",
		why:      "servers load modules when they are started, by whoever runs them"},
	{commands: "psync replconf sync",
		sentence: "%s is not supported behind the proxy: there is no one server to copy, take the RDB of each shard from its server (BGSAVE, or redis-cli --rdb there)",
		why:      "there is no one server to copy, RDBs are taken from the servers"},
	{commands: "failover replicaof slaveof",
		sentence: "%s is not supported behind the proxy: the Configserver alone decides who is master, use basaltctl switchover or basaltctl failover",
		why:      "the Configserver alone decides who is master, use basaltctl switchover or basaltctl failover"},
	{commands: "migrate restore-asking",
		sentence: "%s is not supported behind the proxy: keys move between shards by the Configserver only",
		why:      "keys move between shards by the Configserver only"},
	{commands: "swapdb",
		sentence: "%s is not supported behind the proxy: the databases of all shards cannot be exchanged at one instant, SELECT the other one instead",
		why:      "the databases of all shards cannot be exchanged at one instant"},
	{commands: "script|debug",
		sentence: "%s is not supported behind the proxy: the debugger stops a server for everybody, debug against a server of your own",
		why:      "the debugger stops a server for everybody, debug against a server of your own"},
	{commands: "script|show",
		sentence: "%s is not supported behind the proxy yet: sources are kept to be run, not to be shown",
		why:      "sources are kept to be run, not to be shown", only: valkey8},
}

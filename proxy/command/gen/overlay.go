package main

import (
	"strings"
)

// decision is what the proxy does with a command: the one thing a server cannot
// tell us.
type decision struct {
	kind   string // constant of package command
	rule   string // constant of package command, or empty
	reason string // of Unsupported
}

// Sentences. %s becomes the command's name as people write it, "CLIENT KILL".
const (
	yet   = "%s is not supported behind the proxy yet: "
	never = "%s is not supported behind the proxy: "
)

// byName decides commands; an entry of a container ("config") also decides its
// subcommands that have no entry of their own. Commands with keys that are not
// here are Keyed; a command without keys must be here.
var byName = merge(
	decide("Split", "", "mget del unlink exists touch"),
	decide("Split", "rulePairs", "mset"),
	decide("AllShards", "", "dbsize flushall flushdb scan keys randomkey info role lastsave save bgsave bgrewriteaof"),
	decide("AllShards", "", "slowlog latency memory config|get config|resetstat debug"),
	decide("Local", "", "ping echo auth hello select quit reset time readonly readwrite command"),
	decide("Local", "", "multi exec discard watch unwatch monitor"),
	decide("Local", "", "wait waitaof"),
	decide("Local", "", "client|id client|getname client|setname client|setinfo client|info client|list client|kill client|pause client|unpause client|unblock client|reply client|no-evict client|no-touch client|capa client|help"),
	decide("Local", "", "client|tracking client|trackinginfo client|caching client|getredir"),
	decide("Local", "", "config|set"),
	decide("AnyShard", "", "lolwut pfselftest object|help xinfo|help xgroup|help memory|help slowlog|help latency|help config|help command|help module|help script|help function|help module|list"),
	decide("Local", "", "cluster asking"), // refused unless cluster mode is on
	decide("Local", "", "acl"),
	decide("PubSub", "", "subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe publish spublish pubsub"),
	decide("Script", "", "eval eval_ro evalsha evalsha_ro fcall fcall_ro"),
	decide("ScriptAdmin", "", "script function"),
	decide("Keyed", "ruleSort", "sort sort_ro"),

	refuse(never+"restarts are run per server, by the Configserver and whoever runs the servers", "shutdown"),
	refuse(never+"the Configserver alone decides who is master, use basaltctl switchover or basaltctl failover",
		"replicaof slaveof failover"),
	refuse(never+"there is no one server to copy, take the RDB of each shard from its server (BGSAVE, or redis-cli --rdb there)",
		"replconf psync sync"),
	refuse(never+"keys move between shards by the Configserver only", "migrate restore-asking"),
	refuse(never+"the databases of all shards cannot be exchanged at one instant, SELECT the other one instead", "swapdb"),
	refuse(never+"there is nothing to rewrite, the Configserver keeps what CONFIG SET sets and sets it again when a server starts",
		"config|rewrite"),
	refuse(never+"servers load modules when they are started, by whoever runs them",
		"module|load module|loadex module|unload"),
	refuse(yet+"sources are kept to be run, not to be shown",
		"script|show"),
	refuse(never+"the debugger stops a server for everybody, debug against a server of your own",
		"script|debug"),
)

// cursors says which argument is the cursor of an iteration.
var cursors = map[string]int{"scan": 1, "hscan": 2, "sscan": 2, "zscan": 2}

func decide(kind, rule, names string) map[string]decision {
	m := map[string]decision{}
	for _, name := range strings.Fields(names) {
		m[name] = decision{kind: kind, rule: rule}
	}
	return m
}

func refuse(reason, names string) map[string]decision {
	m := map[string]decision{}
	for _, name := range strings.Fields(names) {
		m[name] = decision{kind: "Unsupported", reason: reason}
	}
	return m
}

// merge joins decisions; two about one command are a mistake here.
func merge(parts ...map[string]decision) map[string]decision {
	all := map[string]decision{}
	for _, part := range parts {
		for name, d := range part {
			if _, twice := all[name]; twice {
				panic("two decisions about " + name)
			}
			all[name] = d
		}
	}
	return all
}

// decisionFor returns what is decided about a command; ok is false when nothing
// is, and it has no keys to route by.
func decisionFor(name string, isContainer, hasKeys bool) (decision, bool) {
	d, ok := byName[name]
	if !ok && hasKeys {
		// A subcommand with keys is useful even when its container is refused.
		d, ok = decision{kind: "Keyed"}, true
	}
	if container, _, isSub := strings.Cut(name, "|"); !ok && isSub {
		d, ok = byName[container]
	}
	if !ok && isContainer {
		// Alone, a container is only ever answered with a wrong number of
		// arguments; how its subcommands are answered is decided one by one.
		d, ok = decision{kind: "Local"}, true
	}
	d.reason = strings.ReplaceAll(d.reason, "%s", strings.ToUpper(strings.ReplaceAll(name, "|", " ")))
	return d, ok
}

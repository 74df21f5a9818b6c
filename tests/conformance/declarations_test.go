package conformance

import "strings"

// Reasons that several commands share.
const (
	counted     = "a command of later servers: the endpoint counts its arguments first"
	oneTable    = "the commands of later servers that the endpoint has are listed, too"
	texts       = "the texts of HELP and COMMAND DOCS are those of Redis 7.0"
	wording     = "what the endpoint refuses by itself it says in the words of Redis 7.0"
	inOrder     = "with several things wrong, another one of them is told"
	unanswered  = "servers from 7.2 do not answer a refused AUTH before which other replies wait"
	lenient     = "the endpoint takes it, as other servers do"
	laterForms  = "a form that came with later servers"
	patterns    = "patterns of BY and GET that may name keys of other slots are refused, in the words of a Redis Cluster"
	replicas    = "clients of a Redis Cluster send it; it is a wish to read from replicas"
	laterValkey = "Valkey 8 has it, and its clients send it"
	laterWords  = "Redis 7.2 takes more words; in a transaction an older server says at EXEC, not when it is queued, that it does not"
	laterRedis  = "Redis 7.2 has it, and its clients send it"
	afterwards  = "in a transaction it shows the state behind the transaction, of all shards"
	notQueued   = "not yet: subscriptions at all shards cannot be part of what one shard executes; send it before MULTI or after EXEC"
	ownSetting  = "what is about clients of the proxy is a setting of the proxy, and shown as that"
)

// differences between the endpoint and a plain server, with the reason.
func differences() []*difference {
	all := constant()
	for name := range strings.FieldsSeq("hexpire hexpireat hexpiretime hpersist hpexpire hpexpireat hpexpiretime hpttl httl") {
		all = append(all, &difference{command: name, reply: "-ERR wrong number of arguments for '" + name + "' command", harmless: true,
			only: func(v version) bool { return !v.redis(7, 4) }, why: counted})
	}
	return all
}

func constant() []*difference {
	return []*difference{
		{command: "zrank", words: 4, reply: "+QUEUED", harmless: true, only: before72, why: laterWords},
		{command: "zrevrank", words: 4, reply: "+QUEUED", harmless: true, only: before72, why: laterWords},
		{command: "exec", reply: "-EXECABORT Transaction discarded because of: ERR wrong number of arguments for 'z", harmless: true, only: before72, why: laterWords},
		{command: "waitaof", reply: "-ERR wrong number of arguments for 'waitaof' command", harmless: true, only: before72, why: counted},
		{command: "sort", reply: "-ERR BY option of SORT denied in Cluster mode", why: patterns},
		{command: "sort", reply: "-ERR GET option of SORT denied in Cluster mode", why: patterns},
		{command: "sort_ro", reply: "-ERR BY option of SORT denied in Cluster mode", harmless: true, why: patterns},
		{command: "sort_ro", reply: "-ERR GET option of SORT denied in Cluster mode", harmless: true, why: patterns},
		{command: "subscribe", reply: "-ERR SUBSCRIBE is not supported inside MULTI", why: notQueued},
		{command: "unsubscribe", reply: "-ERR UNSUBSCRIBE is not supported inside MULTI", why: notQueued},
		{command: "psubscribe", reply: "-ERR PSUBSCRIBE is not supported inside MULTI", why: notQueued},
		{command: "punsubscribe", reply: "-ERR PUNSUBSCRIBE is not supported inside MULTI", why: notQueued},
		{command: "ssubscribe", reply: "-ERR SSUBSCRIBE is not supported inside MULTI", why: notQueued},
		{command: "sunsubscribe", reply: "-ERR SUNSUBSCRIBE is not supported inside MULTI", why: notQueued},
		{command: "scan", queued: true, harmless: true, why: afterwards},
		{command: "randomkey", queued: true, harmless: true, why: afterwards},
		{command: "readonly", reply: "+OK", harmless: true, only: others, why: replicas},
		{command: "readwrite", reply: "+OK", harmless: true, only: others, why: replicas},
		{command: "client", word: "setinfo", harmless: true, only: before72, why: laterRedis},
		{command: "client", word: "no-touch", harmless: true, only: before72, why: laterRedis},
		{command: "client", word: "capa", harmless: true, only: others, why: laterValkey},
		{command: "cluster", word: "myshardid", reply: "-ERR This instance has cluster support disabled", harmless: true, only: before72, why: laterRedis},
		{command: "client|help", harmless: true, only: from72, why: texts},
		{command: "pubsub|help", harmless: true, only: from74, why: texts},
		{command: "acl|help", harmless: true, only: from74, why: texts},
		{command: "command|docs", harmless: true, only: from72, why: texts},
		{command: "acl|getuser", harmless: true, only: from72, why: wording},
		{command: "acl|load", reply: "-ERR This Redis instance", harmless: true, only: valkey8, why: wording},
		{command: "acl|save", reply: "-ERR This Redis instance", harmless: true, only: valkey8, why: wording},
		{command: "", reply: "-NOPERM this user has no permissions", harmless: true, only: from72, why: wording},
		{command: "acl|dryrun", harmless: true, only: from72, why: wording},
		{command: "multi", reply: "-ERR MULTI calls can not be nested", harmless: true, only: valkey8, why: wording},
		{command: "watch", reply: "-ERR WATCH inside MULTI is not allowed", harmless: true, only: valkey8, why: wording},
		{command: "client|setinfo", reply: "-ERR Unrecognized option", harmless: true, only: from72, why: wording},
		{command: "client|setname", reply: "-ERR Client names", harmless: true, only: from72, why: "names may not hold a null byte"},
		{command: "client|kill", word: "maxage", reply: "-ERR syntax error", harmless: true, only: from74, why: laterForms},
		{command: "hello", reply: "-WRONGPASS", harmless: true, only: from72, why: inOrder},
		{command: "scan", reply: "-ERR syntax error", harmless: true, only: from74, why: inOrder},
		{command: "scan", reply: "*2", harmless: true, only: from74, why: lenient},
		{command: "auth", harmless: true, only: from72, why: unanswered},
		{command: "hello", harmless: true, only: from72, why: unanswered},
		{command: "client|getname", harmless: true, only: from72, why: "HELLO that fails sets no name there"},
		{command: "command|getkeys", reply: "-ERR wrong number of arguments", harmless: true, only: from72, why: laterForms},
		{command: "exec", reply: "-EXECABORT Transaction discarded because of: NOPERM this user", harmless: true, only: from72, why: wording},
		{command: "exec", reply: "*", only: valkey8, why: "MULTI or WATCH in a transaction makes it fail there"},
		{command: "client|setinfo", reply: "-ERR lib-name cannot contain", harmless: true, only: from72, why: "names may not hold a null byte"},
		{command: "unsubscribe", harmless: true, only: valkey8, why: lenient},
		{command: "punsubscribe", harmless: true, only: valkey8, why: lenient},
		{command: "sunsubscribe", harmless: true, only: valkey8, why: lenient},
		{command: "command", words: 1, harmless: true, why: oneTable},
		{command: "command|count", words: 2, harmless: true, why: oneTable},
		{command: "command|list", words: 2, harmless: true, why: oneTable},
		{command: "command|info", words: 2, harmless: true, why: oneTable},
		{command: "command|docs", words: 2, harmless: true, only: before72, why: oneTable},
		{command: "config|get", word: "*", harmless: true, why: ownSetting},
		{command: "config|get", word: "port", harmless: true, why: ownSetting},
		{command: "config|set", word: "maxclients", reply: "-ERR CONFIG SET failed (possibly related to argument 'maxclients') - it is a setting of the proxy", harmless: true, why: ownSetting},
	}
}

package conformance

// Reasons that several commands share.
const (
	oneTable   = "the commands of Redis 7.2 that the endpoint has are listed, too"
	patterns   = "patterns of BY and GET that may name keys of other slots are refused, in the words of a Redis Cluster"
	replicas   = "clients of a Redis Cluster send it; it is a wish to read from replicas"
	laterRedis = "Redis 7.2 has it, and its clients send it"
	afterwards = "in a transaction it shows the state behind the transaction, of all shards"
	notQueued  = "not yet: subscriptions at all shards cannot be part of what one shard executes; send it before MULTI or after EXEC"
	ownSetting = "what is about clients of the proxy is a setting of the proxy, and shown as that"
)

// differences between the endpoint and a plain server, with the reason.
func differences() []*difference {
	return []*difference{
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
		{command: "readonly", reply: "+OK", harmless: true, why: replicas},
		{command: "readwrite", reply: "+OK", harmless: true, why: replicas},
		{command: "client", word: "setinfo", harmless: true, why: laterRedis},
		{command: "client", word: "no-touch", harmless: true, why: laterRedis},
		{command: "command", words: 1, harmless: true, why: oneTable},
		{command: "command|count", words: 2, harmless: true, why: oneTable},
		{command: "command|list", words: 2, harmless: true, why: oneTable},
		{command: "command|info", words: 2, harmless: true, why: oneTable},
		{command: "command|docs", words: 2, harmless: true, why: oneTable},
		{command: "config|get", word: "*", harmless: true, why: ownSetting},
		{command: "config|get", word: "port", harmless: true, why: ownSetting},
		{command: "config|set", word: "maxclients", reply: "-ERR CONFIG SET failed (possibly related to argument 'maxclients') - it is a setting of the proxy", harmless: true, why: ownSetting},
	}
}

// Package parameters knows which parameters of the servers' configuration an
// admin may set for a whole cluster, and why the others are not his to set. It
// is pure; what a value must look like is left to the servers, which say it in
// their own words.
//
// Four kinds:
//
//   - Most are kept with the cluster: every node has them, now and after it
//     starts again (CONFIG SET through a proxy, `basaltctl cluster config`).
//   - Momentary ones are set now and are not kept, see momentary.
//   - Managed ones belong to the Configserver, or would cut connections that
//     many clients share. They are refused with the reason.
//   - Secrets are refused, and are never repeated in an answer or a log.
package parameters

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Kind says what becomes of a parameter.
type Kind uint8

// Kinds.
const (
	// Kept with the cluster.
	Kept Kind = iota
	// Momentary: set on every node, and not again when one starts.
	Momentary
	// Managed by the Configserver.
	Managed
	// Secret: comes from the credentials files.
	Secret
)

// aliases are the names a parameter had before.
var aliases = map[string]string{
	"lua-time-limit":                 "busy-reply-threshold",
	"list-max-ziplist-size":          "list-max-listpack-size",
	"hash-max-ziplist-entries":       "hash-max-listpack-entries",
	"hash-max-ziplist-value":         "hash-max-listpack-value",
	"zset-max-ziplist-entries":       "zset-max-listpack-entries",
	"zset-max-ziplist-value":         "zset-max-listpack-value",
	"slaveof":                        "replicaof",
	"slave-lazy-flush":               "replica-lazy-flush",
	"slave-serve-stale-data":         "replica-serve-stale-data",
	"slave-read-only":                "replica-read-only",
	"slave-ignore-maxmemory":         "replica-ignore-maxmemory",
	"slave-announce-ip":              "replica-announce-ip",
	"slave-announce-port":            "replica-announce-port",
	"slave-priority":                 "replica-priority",
	"repl-ping-slave-period":         "repl-ping-replica-period",
	"min-slaves-to-write":            "min-replicas-to-write",
	"min-slaves-max-lag":             "min-replicas-max-lag",
	"cluster-slave-validity-factor":  "cluster-replica-validity-factor",
	"cluster-slave-no-failover":      "cluster-replica-no-failover",
	"tls-client-key-file-passphrase": "tls-client-key-file-pass",
}

// Canonical is the one name of a parameter: in lower case, and the newest of
// those it has had.
func Canonical(name string) string {
	name = strings.ToLower(name)
	if newer, ok := aliases[name]; ok {
		return newer
	}
	return name
}

// Reasons that several parameters share.
const (
	fromFiles    = "it is a secret, which comes from the Configserver's credentials files; see basaltctl credentials rotate"
	detection    = "the Configserver sets it, failures are detected by it"
	copying      = "the Configserver sets it, so that replicas are copied at once"
	roles        = "the Configserver sets it, replicas must not differ from their master"
	addresses    = "nodes are known by the address they were registered with"
	listening    = "the Configserver, proxies and replicas would lose the server; change it where the server is started"
	files        = "it is about files of one server; change it where the server is started"
	sharedByMany = "it would close the connections that all clients of a proxy share"
	priorities   = "the Configserver chooses masters by the priority of the nodes; see basaltctl node register --priority"
)

// managed parameters, with the reason why they cannot be set.
var managed = map[string]string{
	"repl-ping-replica-period":  detection,
	"repl-diskless-sync":        copying,
	"repl-diskless-sync-delay":  copying,
	"replica-read-only":         roles,
	"replica-serve-stale-data":  roles,
	"replica-ignore-maxmemory":  "a replica that evicts by itself does not have what its master has",
	"replica-priority":          priorities,
	"replica-announced":         addresses,
	"replica-announce-ip":       addresses,
	"replica-announce-port":     addresses,
	"port":                      listening,
	"bind":                      listening,
	"bind-source-addr":          listening,
	"protected-mode":            listening,
	"unixsocket":                listening,
	"dir":                       files,
	"dbfilename":                files,
	"timeout":                   sharedByMany,
	"maxmemory-clients":         sharedByMany,
	"proto-max-bulk-len":        sharedByMany + ", when one client sends a longer value; see the proxy's --max-request-bytes",
	"client-query-buffer-limit": sharedByMany + ", when one client sends a longer request; see the proxy's --max-request-bytes",
	"client-output-buffer-limit": sharedByMany + "; see the proxy's --client-reply-buffer-bytes and --client-pubsub-buffer-bytes. " +
		"The limit of the class replica alone can be set",
}

// MinReplicas is the name of the parameter that the policy's min_replicas_to_write
// is about, too (failover.MinReplicas).
const MinReplicas = "min-replicas-to-write"

var secrets = map[string]bool{
	"masteruser": true, "masterauth": true, "requirepass": true, "tls-key-file-pass": true, "tls-client-key-file-pass": true,
}

// momentary parameters decide what a server loads when it starts, before
// anybody can tell it: one that starts without its append-only file and is then
// told to write one would write it anew, over what it did not load. So they are
// set as Redis sets them without CONFIG REWRITE, and whoever wants them for good
// puts them into the servers' own configuration.
var momentary = map[string]bool{"appendonly": true}

// lowest values of parameters that are numbers.
var lowest = map[string]struct {
	value  int64
	reason string
}{
	"maxclients":           {1000, "the Configserver, the proxies and the replicas must always get in"},
	"repl-timeout":         {10, "a master that is busy for a moment would be taken for a lost one"},
	"min-replicas-max-lag": {1, "a master that is cut off would go on taking writes; to wait for no replica, set min-replicas-to-write to 0"},
}

// KindOf a parameter, by any of its names.
func KindOf(name string) Kind {
	name = Canonical(name)
	switch {
	case secrets[name]:
		return Secret
	case momentary[name]:
		return Momentary
	case managed[name] != "" || strings.HasPrefix(name, "tls-"):
		return Managed
	}
	return Kept
}

// Refusal is why a parameter cannot be set to a value, or "". A script runs for
// at most busy before the server must answer BUSY.
func Refusal(name, value string, busy time.Duration) string {
	canonical := Canonical(name)
	switch KindOf(name) {
	case Secret:
		return fromFiles
	case Managed:
		if canonical == "client-output-buffer-limit" && onlyReplicas(value) {
			return ""
		}
		if reason := managed[canonical]; reason != "" {
			return reason
		}
		return listening
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return "" // the server says what is wrong
	}
	if limit, ok := lowest[canonical]; ok && n < limit.value {
		return fmt.Sprintf("it must be at least %d: %s", limit.value, limit.reason)
	}
	if canonical == "busy-reply-threshold" && (n <= 0 || n > busy.Milliseconds()) {
		return fmt.Sprintf("it must be from 1 to %d, so that a long script is not taken for a server that hangs; see basaltctl cluster update --hung-after", busy.Milliseconds())
	}
	return ""
}

// onlyReplicas tells if a value of client-output-buffer-limit is about the
// class of replicas only.
func onlyReplicas(value string) bool {
	words := strings.Fields(value)
	for i := 0; i < len(words); i += 4 {
		if class := strings.ToLower(words[i]); class != "replica" && class != "slave" {
			return false
		}
	}
	return len(words) > 0
}

// RefusalReply is a refusal in the words of Redis, for clients that look at
// the beginning.
func RefusalReply(name, reason string) string {
	return fmt.Sprintf("ERR CONFIG SET failed (possibly related to argument '%s') - %s", name, reason)
}

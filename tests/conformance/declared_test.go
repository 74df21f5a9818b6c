package conformance

import (
	"bytes"
	"fmt"
	"strings"
)

// difference is a declared difference between the endpoint and a plain server.
type difference struct {
	// command, "" for any, and, where only some requests differ, a word of the request
	// in lower case, or how many words it has.
	command string
	word    string
	words   int
	// queued: only in a transaction.
	queued bool
	// reply begins the endpoint's reply, "" is any.
	reply string
	// harmless: the data are the same all the same, so the rest of a sequence is
	// still compared.
	harmless bool
	// only: on servers of these versions; nil for all.
	only func(v version) bool
	// why, for the table and the README.
	why string
	// seen counts how often the difference was seen.
	seen int
}

// version of the server that is compared with.
type version struct {
	valkey       bool
	major, minor int
}

// versionOf reads INFO server.
func versionOf(info string) (v version) {
	redis := ""
	for line := range strings.Lines(info) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); name {
		case "valkey_version":
			v.valkey = true
			_, _ = fmt.Sscanf(value, "%d.%d", &v.major, &v.minor)
		case "redis_version":
			redis = value
		}
	}
	if !v.valkey {
		_, _ = fmt.Sscanf(redis, "%d.%d", &v.major, &v.minor)
	}
	return v
}

// redis tells of a Redis from that version on; of a Valkey, from 7.2 on, what is true of
// the Redis 7.2 that it began as.
func (v version) redis(major, minor int) bool {
	if v.valkey {
		return major < 7 || major == 7 && minor <= 2
	}
	return v.major > major || v.major == major && v.minor >= minor
}

// Versions that the same is true of.
var (
	before72 = func(v version) bool { return !v.redis(7, 2) }
	from72   = func(v version) bool { return v.redis(7, 2) }
	from74   = func(v version) bool { return v.redis(7, 4) || v.valkey && v.major >= 8 }
	valkey8  = func(v version) bool { return v.valkey && v.major >= 8 }
	others   = func(v version) bool { return !valkey8(v) }
)

// matches tells if the difference explains a reply to a request, which was
// queued or not.
func (d *difference) matches(name string, args [][]byte, theirs reply) bool {
	if d.command != "" && d.command != name || !bytes.HasPrefix(theirs.raw, []byte(d.reply)) || d.words != 0 && d.words != len(args) {
		return false
	}
	if d.word == "" {
		return true
	}
	for _, a := range args[1:] {
		if strings.EqualFold(string(a), d.word) {
			return true
		}
	}
	return false
}

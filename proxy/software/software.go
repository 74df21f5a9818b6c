// Package software reads what a server says that it is.
package software

import (
	"bytes"
	"cmp"
	"strconv"
	"strings"
)

// Software of a server. The zero value is not known.
type Software struct {
	// Name and Version are those of HELLO: "redis" and "7.4.1", or "valkey" and "8.0.1".
	Name, Version string
	// Redis is redis_version of INFO: of a Valkey, the Redis that it is compatible with.
	Redis string
}

// Of reads the text of INFO server.
func Of(info []byte) Software {
	version := Field(info, "redis_version")
	// A Valkey that says server_mode says in HELLO, too, what it is. Before 8.0, and with
	// extended-redis-compatibility, it says redis_mode.
	if Field(info, "server_mode") != "" {
		return Software{Name: Field(info, "server_name"), Version: Field(info, "valkey_version"), Redis: version}
	}
	if version == "" {
		return Software{}
	}
	s := Software{Name: "redis", Version: version, Redis: version}
	if valkey := Field(info, "valkey_version"); strings.HasPrefix(valkey, "7.") {
		s.Version = valkey // which is a Redis by name only
	}
	return s
}

// Field returns the value of a field of INFO, "" when it is not there.
func Field(info []byte, name string) string {
	for line := range bytes.Lines(info) {
		if value, ok := bytes.CutPrefix(line, []byte(name)); ok && len(value) > 0 && value[0] == ':' {
			return string(bytes.TrimRight(value[1:], "\r\n"))
		}
	}
	return ""
}

// Before tells if clients can rely on less with s than with other.
func (s Software) Before(other Software) bool {
	return cmp.Or(compare(s.Redis, other.Redis), compare(s.Version, other.Version), strings.Compare(s.Name, other.Name)) < 0
}

// compare compares dotted numbers.
func compare(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, _ := strconv.Atoi(as[i])
		y, _ := strconv.Atoi(bs[i])
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(len(as), len(bs))
}

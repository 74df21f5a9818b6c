package redisadmin

import (
	"cmp"
	"strconv"
	"strings"
)

// Software is what a server runs.
type Software struct {
	// Valkey, or Redis.
	Valkey bool
	// Version is that of Redis or of Valkey, "7.4.1"; "" when it is not known.
	Version string
}

// softwareOf reads the fields of INFO server. redis_version of a Valkey is that of the
// Redis with which it is compatible.
func softwareOf(fields map[string]string) Software {
	if v := fields["valkey_version"]; v != "" {
		return Software{Valkey: true, Version: v}
	}
	return Software{Version: fields["redis_version"]}
}

// String is "Redis 7.4.1" or "Valkey 8.0.1".
func (s Software) String() string {
	name := "Redis"
	if s.Valkey {
		name = "Valkey"
	}
	return strings.TrimSpace(name + " " + s.Version)
}

// Loads tells if a server can load a full copy that a master sends: the RDB format of
// which must not be newer than its own. What is not known counts as possible.
//
// A replica empties itself before it loads, so one that cannot must not try. Without a
// full copy, going on where it stopped, it can follow any master.
func (s Software) Loads(master Software) bool {
	if !s.released() || !master.released() {
		return true
	}
	own, sent := s.format(), master.format()
	if s.Valkey && master.Valkey && !master.before(9, 1) {
		return true // it writes the format of the replica, which says its version
	}
	if s.Valkey && sent > lastShared && sent < firstOfValkey {
		return false // those are Redis's own
	}
	return sent <= own
}

// released tells if the version is known and not that of a development branch, which
// calls itself 255.255.255.
func (s Software) released() bool { return s.Version != "" && !strings.HasPrefix(s.Version, "255.") }

// Formats of RDB files: up to lastShared they are common to Redis and Valkey, from
// firstOfValkey on they are Valkey's.
const (
	lastShared    = 11
	firstOfValkey = 80
)

// format is the newest format of RDB files that a server reads, and the one it writes
// (RDB_VERSION in its rdb.h).
func (s Software) format() int {
	switch {
	case s.Valkey && s.before(9, 0):
		return lastShared
	case s.Valkey:
		return firstOfValkey
	case s.before(7, 0):
		return 9
	case s.before(7, 2):
		return 10
	case s.before(7, 4):
		return lastShared
	}
	return 12
}

// before tells if the version is older than major.minor.
func (s Software) before(major, minor int) bool {
	first, rest, _ := strings.Cut(s.Version, ".")
	second, _, _ := strings.Cut(rest, ".")
	a, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	b, _ := strconv.Atoi(second)
	return cmp.Or(cmp.Compare(a, major), cmp.Compare(b, minor)) < 0
}
